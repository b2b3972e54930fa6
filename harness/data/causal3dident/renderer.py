"""Draws scenes with Mitsuba 3: pixels depend on latents and seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident import scene as layout
from harness.data.causal3dident.shapes import Mesh
from harness.errors import UserError

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


#: Mitsuba's variant that draws on each device.
VARIANTS = {"cpu": "scalar_rgb", "llvm": "llvm_ad_rgb", "cuda": "cuda_ad_rgb"}
#: LLVM 14 is refused by Mitsuba, 15 was seen to abort the whole process, 19 to work.
OLDEST_LLVM = 19


def load_mitsuba(device: str = "cpu") -> Any:
    """Mitsuba with the variant of a device set, for this whole process.

    Parameters
    ----------
    device
        ``cpu``; ``llvm``, the CPU's vector instructions through libLLVM, in less than half of the time; or ``cuda``, a
        CUDA device, through OptiX. What ``cuda`` gives has been neither timed nor compared with the CPU's pixels by the
        authors; its code path is that of ``llvm``, which tests compare with ``cpu``.

    Raises
    ------
    UserError
        If the package is not installed, or there is no such device.
    """
    try:
        import drjit
        import mitsuba
    except ImportError as error:
        raise UserError("rendering needs the package mitsuba, which is not installed: pip install mitsuba") from error
    missing = _missing(device, mitsuba, drjit)
    if missing:
        raise UserError(f"data.render_device: {device} is not possible on this machine, where {missing}")
    mitsuba.set_variant(VARIANTS[device])
    drjit.set_thread_count(1)  # an image is one block: idle threads only spin, and double the time
    mitsuba.set_log_level(mitsuba.LogLevel.Error)  # the sampler announces each rounded number of samples
    return mitsuba


def _missing(device: str, mitsuba: Any, drjit: Any) -> str | None:
    """What a device lacks here, with the remedy."""
    if device == "cpu":
        return None
    if VARIANTS[device] not in mitsuba.variants():
        return f"this build of mitsuba has no {device.upper()} variant; use render_device: cpu"
    if device == "cuda" and not drjit.has_backend(drjit.JitBackend.CUDA):
        remedy = "use render_device: cpu, or build the data on a machine with a GPU"
        return f"no CUDA device with its driver was found; {remedy}"
    if device == "llvm":
        found = drjit.detail.llvm_version()[0] if drjit.has_backend(drjit.JitBackend.LLVM) else 0
        if found < OLDEST_LLVM:
            remedy = f"install libLLVM {OLDEST_LLVM} or newer (Debian: libllvm{OLDEST_LLVM}), or use render_device: cpu"
            return f"{f'libLLVM {found} is too old' if found else 'no libLLVM that is new enough was found'}; {remedy}"
    return None


def to_srgb(linear: NDArray[np.floating[Any]]) -> Pixels:
    """Linear RGB (height, width, 3) as sRGB bytes (3, height, width); values beyond 1 are clipped (IEC 61966-2-1)."""
    light = np.clip(linear.astype(np.float64), 0.0, 1.0)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.ascontiguousarray((255 * coded + 0.5).astype(np.uint8).transpose(2, 0, 1))


class Renderer:
    """One object in the scene of Causal3DIdent, redrawn for each latent vector.

    The scene is built once and changed in place. One image is one block, so that neither the number of threads nor
    the number of processes changes a pixel.

    Parameters
    ----------
    mesh
        The object, centred, its largest side 1.
    image_size
        Pixels along each side.
    samples
        Light paths a pixel, over all lamps; each lamp has one at least.
    object_size
        Largest side of the object in the scene.
    device
        What draws; see `load_mitsuba`.

    Raises
    ------
    UserError
        If Mitsuba or the device is not there.
    """

    def __init__(
        self, mesh: Mesh, image_size: int, samples: int, object_size: float = layout.OBJECT_SIZE, device: str = "cpu"
    ) -> None:
        self._mitsuba = load_mitsuba(device)
        self._size = object_size
        self._vertices = mesh.vertices * object_size
        # half of the paths for the spotlight, whose edge is the sharpest
        self._paths = {"sun": max(1, samples // 4), "lamp": max(1, samples // 4), "spot": max(1, samples // 2)}
        self._scene = self._mitsuba.load_dict(self._description(mesh, image_size))
        self._parameters = self._mitsuba.traverse(self._scene)

    def render(self, latents: Floats, seed: int) -> Pixels:
        """One image.

        Parameters
        ----------
        latents : (10,) in [-1, 1], columns as ``scene.COLUMNS``.
        seed
            Of the light paths, 32 bits.

        Returns
        -------
        (3, size, size) uint8, sRGB.
        """
        place = layout.placement(latents, self._size)
        self._set("object.vertex_positions", self._vertices @ place.rotation.T + place.centre)
        self._set("object.bsdf.reflectance.value", place.colour_object)
        self._set("ground.bsdf.reflectance.value", place.colour_ground)
        self._set("spot.intensity.value", layout.SPOT_INTENSITY * place.colour_spot)
        self._parameters["spot.to_world"] = self._aimed(place.spot_origin, place.centre)
        return to_srgb(np.sum([self._lit_by(lamp, seed) for lamp in self._paths], axis=0))

    def _lit_by(self, lamp: str, seed: int) -> NDArray[np.float32]:
        """The image in the light of one lamp, linear RGB (height, width, 3).

        Paths that choose among lamps differ in brightness by chance wherever the lamps' shadows and edges lie; lamps
        drawn apart and added up have half that grain at the same number of paths. All of them are points, so that
        what grain remains is that of edges cut by a finite number of paths.
        """
        for other in self._paths:
            self._parameters[f"{other}.sampling_weight"] = float(other == lamp)
        self._parameters.update()
        return np.asarray(self._mitsuba.render(self._scene, seed=seed, spp=self._paths[lamp]))

    def _set(self, name: str, values: Floats) -> None:
        """Set a parameter to numbers, in the type that the variant keeps it in."""
        kind = type(self._parameters[name])
        flat = values.astype(np.float32).ravel()
        # a colour of one array would be three times the same colour in the vectorised variants
        self._parameters[name] = kind(*flat.tolist()) if len(flat) == 3 else kind(flat)

    def _description(self, mesh: Mesh, image_size: int) -> dict[str, Any]:
        transform = self._mitsuba.ScalarTransform4f
        white = {"type": "rgb", "value": [0.5, 0.6, 0.7]}  # not grey: a grey would become a one-channel spectrum
        diffuse = {"type": "diffuse", "reflectance": white}
        block = 1 << (image_size - 1).bit_length()
        # a path counts for the pixels around it too: half the grain of a box at edges
        film = {"type": "hdrfilm", "width": image_size, "height": image_size, "rfilter": {"type": "gaussian"}}
        camera = transform().look_at(origin=layout.CAMERA, target=[0, 0, 0], up=layout.CAMERA_UP)
        return {
            "type": "scene",
            # light straight from the lamps only, as a path tracer of depth 2 gives; all lamps are points, so no light
            # is found by following the material, and this takes a quarter less time
            "integrator": {"type": "direct", "emitter_samples": 1, "bsdf_samples": 0, "block_size": block},
            "sensor": {
                "type": "perspective",
                "fov": layout.FIELD_OF_VIEW,
                "to_world": camera,
                "film": {**film, "pixel_format": "rgb"},
                "sampler": {"type": "multijitter"},
            },
            "sun": {"type": "directional", "direction": [0, 0, -1], "irradiance": layout.SUN_IRRADIANCE},
            # A point, where the original has a 1 m square lamp: Blender's lamps cast no shadow, a square of Mitsuba's
            # would, on the ground and between spotlight and object. It also has no grain.
            "lamp": {"type": "point", "position": [0, 0, layout.LAMP_HEIGHT], "intensity": layout.LAMP_RADIANCE},
            "spot": {
                "type": "spot",
                "cutoff_angle": layout.SPOT_CUTOFF,
                "beam_width": layout.SPOT_BEAM,
                "intensity": white,
                "to_world": self._aimed(np.array([4.0, 0.0, 10.0]), np.zeros(3)),
            },
            "ground": {
                "type": "rectangle",
                "to_world": transform().translate([0, 0, -self._size]).scale(200),
                "bsdf": diffuse,
            },
            "object": self._object(mesh, diffuse),
        }

    def _object(self, mesh: Mesh, material: dict[str, Any]) -> Any:
        properties = self._mitsuba.Properties()
        properties["bsdf"] = self._mitsuba.load_dict(material)
        vertices, faces = mesh
        thing = self._mitsuba.Mesh("object", len(vertices), len(faces), has_vertex_normals=True, props=properties)
        values = self._mitsuba.traverse(thing)
        for name, array in (("vertex_positions", vertices.astype(np.float32)), ("faces", faces.astype(np.uint32))):
            values[name] = type(values[name])(array.ravel())
        values.update()  # also computes smooth normals
        return thing

    def _aimed(self, origin: Floats, target: Floats) -> Any:
        return self._mitsuba.ScalarTransform4f().look_at(origin=origin, target=target, up=[0, 0, 1])
