"""Scenes and pixels: geometry by hand, every latent visible, pixels a function of latents and seed."""

import subprocess
import sys
import types

import numpy as np
import pytest

from harness.data.causal3dident import renderer as renderer_module
from harness.data.causal3dident.renderer import Renderer, to_srgb
from harness.data.causal3dident.scene import CAMERA, COLUMNS, FIELD_OF_VIEW, OBJECT_SIZE, euler_xyz, placement
from harness.data.causal3dident.shapes import shape
from harness.errors import UserError


@pytest.fixture(scope="module")
def renderer():
    pytest.importorskip("mitsuba")
    return Renderer(shape(0), 24, 16)


def latents(**values):
    vector = np.zeros(10)
    for name, value in values.items():
        vector[COLUMNS.index(name)] = value
    return vector


def on_screen(point):
    """Where a point lies in the image, (across, down) in [-1, 1]: a pinhole at (8, 0, 8) that looks at the origin."""
    forward = -np.array(CAMERA) / np.linalg.norm(CAMERA)
    right, up = np.array([0.0, 1.0, 0.0]), np.array([-(0.5**0.5), 0.0, 0.5**0.5])
    ray = np.asarray(point) - CAMERA
    half = np.tan(np.radians(FIELD_OF_VIEW / 2)) * (ray @ forward)
    return ray @ right / half, -(ray @ up) / half


def test_placement_follows_the_published_scaling():
    place = placement(latents(x=0.5, y=-1, z=1, spotlight=1 / 3, hue_object=-0.5, hue_background=1))
    np.testing.assert_allclose(place.centre, [1.5, -3, 3 + OBJECT_SIZE / 2])
    np.testing.assert_allclose(place.spot_origin, [2, 4 * 3**0.5 / 2, 6 + OBJECT_SIZE])
    np.testing.assert_allclose(place.colour_object, [1, 0, 0.75])  # hue 0.875
    np.testing.assert_allclose(place.colour_ground, [0.7, 1, 0.4])  # hue 0.25, saturation 0.6
    np.testing.assert_allclose(place.colour_spot, [1, 0.2, 0.2])


def test_a_larger_object_lifts_object_and_spotlight():
    place = placement(latents(z=0.5), object_size=6)
    np.testing.assert_allclose(place.centre, [0, 0, 1.5 + 3])
    np.testing.assert_allclose(place.spot_origin, [0, 4, 12])


def test_a_larger_object_covers_more_of_the_image():
    pytest.importorskip("mitsuba")
    yellow = latents(hue_object=0.6, hue_background=-1, hue_spotlight=-1)
    images = [Renderer(shape(0), 24, 4, object_size=size).render(yellow, 0).astype(int) for size in (2.0, 4.0)]
    small, large = (np.sum(image[1] > image[2] + 20) for image in images)
    assert large > 2 * small > 0


def test_euler_angles_turn_about_x_then_y_then_z():
    quarter = np.pi / 2
    np.testing.assert_allclose(euler_xyz(quarter, 0, 0) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(euler_xyz(0, quarter, 0) @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(euler_xyz(0, 0, quarter) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(euler_xyz(quarter, quarter, 0) @ [0, 1, 0], [1, 0, 0], atol=1e-12)


def test_srgb_of_known_values():
    linear = np.array([[[0.0, 0.0031308, 0.2158605]], [[1.0, 3.0, -1.0]]])
    np.testing.assert_array_equal(to_srgb(linear)[:, :, 0].T, [[0, 10, 128], [255, 255, 0]])


def test_pixels_depend_on_latents_and_seed_alone(renderer):
    first = renderer.render(latents(), 7)
    renderer.render(latents(x=1, hue_object=1, spotlight=-1, psi=0.5), 3)
    assert first.shape == (3, 24, 24)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(renderer.render(latents(), 7), first)
    assert (renderer.render(latents(), 8) != first).any()


def test_every_latent_shows_in_the_image(renderer):
    def mean_image(vector, first=0):
        return np.mean([renderer.render(vector, seed).astype(float) for seed in range(first, first + 8)], axis=0)

    rest = mean_image(latents())
    grain = np.linalg.norm(mean_image(latents(), first=8) - rest)
    for name in COLUMNS:
        for value in (-0.6, 0.6):
            assert np.linalg.norm(mean_image(latents(**{name: value})) - rest) > 2 * grain, name


@pytest.mark.parametrize("position", [{"y": 0.8}, {"y": -0.8}, {"x": -0.8}, {"z": 0.8}, {}])
def test_the_object_appears_where_a_pinhole_camera_puts_it(renderer, position):
    # yellow object, blue-violet ground: the object is where red and green outweigh blue
    image = renderer.render(latents(hue_object=0.6, hue_background=-1, hue_spotlight=-1, **position), 0).astype(float)
    lit = np.argwhere(image[1] > image[2] + 20)
    down, across = (lit.mean(axis=0) + 0.5) / 12 - 1
    expected = on_screen(placement(latents(**position)).centre)
    np.testing.assert_allclose((across, down), expected, atol=0.12)


def test_hue_sets_the_colour_of_the_object(renderer):
    yellow = renderer.render(latents(hue_object=0.6), 0).astype(int)
    violet = renderer.render(latents(hue_object=-0.8), 0).astype(int)
    place = (yellow[1] - violet[1]) > 60
    assert place.sum() >= 8
    assert (violet[2] - yellow[2])[place].mean() > 60


def test_without_mitsuba_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(UserError, match="pip install mitsuba"):
        renderer_module.load_mitsuba()


def test_a_gpu_that_is_not_there_is_asked_for_in_vain():
    # conftest.py hides every GPU from the tests
    pytest.importorskip("mitsuba")
    with pytest.raises(UserError, match="no CUDA device with its driver was found; use render_device: cpu"):
        Renderer(shape(0), 8, 1, device="cuda")


class Modules:
    """Stand-ins for mitsuba and drjit on a machine with a GPU, or with a build that has no CUDA variant."""

    LogLevel = JitBackend = types.SimpleNamespace(Error=1, CUDA=2, LLVM=3)

    def __init__(self, variants, llvm):
        self._variants, self.chosen = variants, []
        self._backends = {self.JitBackend.CUDA} | ({self.JitBackend.LLVM} if llvm else set())
        self.detail = types.SimpleNamespace(llvm_version=lambda: (llvm, 1, 7))
        self.set_variant = self.chosen.append

    def variants(self):
        return self._variants

    def has_backend(self, backend):
        return backend in self._backends

    def set_thread_count(self, count): ...

    def set_log_level(self, level): ...


@pytest.fixture
def stand_in(monkeypatch):
    def make(*variants, llvm=19):
        modules = Modules(variants, llvm)
        monkeypatch.setitem(sys.modules, "mitsuba", modules)
        monkeypatch.setitem(sys.modules, "drjit", modules)
        return modules

    return make


def test_each_device_has_its_variant(stand_in):
    modules = stand_in("scalar_rgb", "llvm_ad_rgb", "cuda_ad_rgb")
    for device in ("cuda", "llvm", "cpu"):
        renderer_module.load_mitsuba(device)
    assert modules.chosen == ["cuda_ad_rgb", "llvm_ad_rgb", "scalar_rgb"]


@pytest.mark.parametrize(("llvm", "reason"), [(None, "no libLLVM that is new enough"), (15, "libLLVM 15 is too old")])
def test_an_llvm_that_would_not_do_is_refused(stand_in, llvm, reason):
    modules = stand_in("scalar_rgb", "llvm_ad_rgb", llvm=llvm)
    with pytest.raises(UserError, match=f"{reason}.*; install libLLVM 19 or newer"):
        renderer_module.load_mitsuba("llvm")
    assert modules.chosen == []


#: Mean absolute difference, in bytes, of pictures of random scenes, each device drawing each with every lamp.
IN_BOTH = """
import numpy as np
from harness.data.causal3dident.renderer import Renderer
from harness.data.causal3dident.shapes import shape
scenes = np.random.default_rng(0).uniform(-1, 1, (4, 10))
drawn = [
    np.stack([renderer.render(scene, 3).astype(float) for scene in scenes])
    for renderer in (Renderer(shape(0), 32, 16, device=device) for device in ("llvm", "cpu"))
]
print(*np.abs(drawn[0] - drawn[1]).mean((1, 2, 3)))
"""


def test_the_vectorised_variant_draws_the_same_picture():
    """Run in a process of its own: Mitsuba has one variant at a time, and tests beside this one use the other."""
    pytest.importorskip("mitsuba")
    done = subprocess.run([sys.executable, "-c", IN_BOTH], capture_output=True, text=True, check=False)
    if "libLLVM" in done.stderr:
        pytest.skip("no libLLVM 19 or newer")
    apart = [float(number) for number in done.stdout.split()]
    assert apart, done.stderr
    # both draw their paths at random, and a silhouette's pixels have grain
    assert max(apart) < 2.0


def test_a_build_without_cuda_says_so(stand_in):
    modules = stand_in("scalar_rgb")
    with pytest.raises(UserError, match="this build of mitsuba has no CUDA variant"):
        renderer_module.load_mitsuba("cuda")
    assert modules.chosen == []


def test_a_rendering_process_does_not_import_torch_nor_does_the_fingerprint_import_mitsuba():
    code = (
        "import sys; import harness.data.causal3dident.worker, harness.data.causal3dident.variant; "
        "print('torch' in sys.modules, 'mitsuba' in sys.modules)"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.split() == ["False", "False"]
