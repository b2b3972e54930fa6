"""Draws scenes with Mitsuba 3 (variant ``scalar_rgb``): pixels depend on latents and seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident import scene as layout
from harness.data.causal3dident.shapes import Mesh
from harness.errors import UserError

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


def load_mitsuba() -> Any:
    """Mitsuba with its scalar variant set.

    Raises
    ------
    UserError
        If the package is not installed.
    """
    try:
        import drjit
        import mitsuba
    except ImportError as error:
        raise UserError("rendering needs the package mitsuba, which is not installed: pip install mitsuba") from error
    mitsuba.set_variant("scalar_rgb")
    drjit.set_thread_count(1)  # an image is one block: idle threads only spin, and double the time
    mitsuba.set_log_level(mitsuba.LogLevel.Error)  # the sampler announces each rounded number of samples
    return mitsuba


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
        Light paths a pixel.
    """

    def __init__(self, mesh: Mesh, image_size: int, samples: int) -> None:
        self._mitsuba = load_mitsuba()
        self._vertices = mesh.vertices * layout.OBJECT_SIZE
        self._samples = samples
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
        place = layout.placement(latents)
        values = self._parameters
        vertices = self._vertices @ place.rotation.T + place.centre
        values["object.vertex_positions"] = vertices.astype(np.float32).ravel()
        values["object.bsdf.reflectance.value"] = self._rgb(place.colour_object)
        values["ground.bsdf.reflectance.value"] = self._rgb(place.colour_ground)
        values["spot.intensity.value"] = self._rgb(layout.SPOT_INTENSITY * place.colour_spot)
        values["spot.to_world"] = self._aimed(place.spot_origin, place.centre)
        values.update()
        image = self._mitsuba.render(self._scene, seed=seed, spp=self._samples)
        return to_srgb(np.asarray(image))

    def _description(self, mesh: Mesh, image_size: int) -> dict[str, Any]:
        transform = self._mitsuba.ScalarTransform4f
        white = {"type": "rgb", "value": [0.5, 0.6, 0.7]}  # not grey: a grey would become a one-channel spectrum
        diffuse = {"type": "diffuse", "reflectance": white}
        block = 1 << (image_size - 1).bit_length()
        film = {"type": "hdrfilm", "width": image_size, "height": image_size, "rfilter": {"type": "box"}}
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
                # half of all light samples: shares of 1/4, 1/2, 1/4 fall on the strata of the sampler, which halves
                # the grain at 4, 8 and 16 samples
                "sampling_weight": 2.0,
                "to_world": self._aimed(np.array([4.0, 0.0, 10.0]), np.zeros(3)),
            },
            "ground": {
                "type": "rectangle",
                "to_world": transform().translate([0, 0, -layout.OBJECT_SIZE]).scale(200),
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
        values["vertex_positions"] = vertices.astype(np.float32).ravel()
        values["faces"] = faces.astype(np.uint32).ravel()
        values.update()  # also computes smooth normals
        return thing

    def _aimed(self, origin: Floats, target: Floats) -> Any:
        return self._mitsuba.ScalarTransform4f().look_at(origin=origin, target=target, up=[0, 0, 1])

    def _rgb(self, colour: Floats) -> Any:
        return self._mitsuba.Color3f(colour)
