"""From a latent vector to the numbers of the scene, after the Blender scene of Causal3DIdent.

Source: von Kügelgen et al. 2021 (Zenodo 4784282), its scene rebuilt for Mitsuba 3. Pure arithmetic: nothing here
needs a renderer.
"""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Columns of a scene's latent vector, as in the release's ``raw_latents_{c}.npy``.
COLUMNS = ("x", "y", "z", "phi", "theta", "psi", "spotlight", "hue_object", "hue_spotlight", "hue_background")

#: Largest side of an object in the scene (the release's objects: about 4 to 4.5).
OBJECT_SIZE = 4.2
FIELD_OF_VIEW = 71.08
CAMERA = (8.0, 0.0, 8.0)
CAMERA_UP = (-0.7071, 0.0, 0.7071)
SPOT_INTENSITY = 240.0
SPOT_CUTOFF, SPOT_BEAM = 17.5, 15.0
LAMP_HEIGHT = 7.0
#: Radiance of the 1 m² lamp; as a point it radiates this many W/sr straight down.
LAMP_RADIANCE = 12.0
SUN_IRRADIANCE = 0.5
SATURATION_OBJECT, SATURATION_SPOT, SATURATION_GROUND = 1.0, 0.8, 0.6


class Placement(NamedTuple):
    """What one latent vector changes in the scene (metres, linear RGB)."""

    rotation: Floats
    centre: Floats
    spot_origin: Floats
    colour_object: Floats
    colour_spot: Floats
    colour_ground: Floats


def placement(latents: Floats, object_size: float = OBJECT_SIZE) -> Placement:
    """Scene of one latent vector.

    Parameters
    ----------
    latents : (10,) in [-1, 1], columns as `COLUMNS`; angles, in units of π/2, may go on to the full circle, 4.
    object_size
        Largest side of the object, D of the published scene: spotlight and object rise with it.
    """
    x, y, z, phi, theta, psi, spot, hue_object, hue_spot, hue_ground = (float(value) for value in latents)
    angle = spot * np.pi / 2
    return Placement(
        rotation=euler_xyz(*(np.pi / 2 * np.array([phi, theta, psi]))),
        centre=np.array([3 * x, 3 * y, 3 * z + object_size / 2]),
        spot_origin=np.array([4 * np.sin(angle), 4 * np.cos(angle), 6 + object_size]),
        colour_object=_colour(hue_object, SATURATION_OBJECT),
        colour_spot=_colour(hue_spot, SATURATION_SPOT),
        colour_ground=_colour(hue_ground, SATURATION_GROUND),
    )


def euler_xyz(a: float, b: float, c: float) -> Floats:
    """Rotation about x by ``a``, then y by ``b``, then z by ``c`` (fixed axes, radians), (3, 3)."""
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _colour(latent: float, saturation: float) -> Floats:
    """Linear RGB of a hue latent: angle = latent · π/2, hue = angle / 2π mod 1, value 1."""
    return np.array(colorsys.hsv_to_rgb((latent / 4) % 1.0, saturation, 1.0))
