"""The latent graph of Causal3DIdent, with environments as soft interventions on responsive mechanisms.

Source: von Kügelgen et al. 2021, the conditional means of its object latents (the parentheses in the hue means are
our reading of a garbled table). Class, spotlight and the two scene hues are roots; every object latent is normal about
its conditional mean, sd 0.5, truncated to [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from harness.data.causal3dident.scene import COLUMNS
from harness.data.latent_process import Design
from harness.data.seeding import derive
from harness.data_spec import OBJECT_LATENTS, SCENE_LATENTS, Causal3DIdentData
from harness.errors import UserError
from harness.process_spec import NativeSpec

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]

OBJECT_SD = 0.5
#: sd of U(-1, 1), the mechanism of a root.
ROOT_SD = 3**-0.5
#: Conditional means of φ, θ, ψ, by class.
ROTATION_MEANS = 0.35 * np.array(
    [[-1, 1, 1], [1, -1, 1], [1, 1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [-1, -1, -1]]
)
#: Sign of the spotlight's effect on the conditional means of x and y, by class.
POSITION_SIGN = np.array([0, -1, -1, 1, 1, -1, 1])
#: Effect of the mean of the two scene hues on the object's hue, by class, and the constant.
HUE_WEIGHT = np.array([0, 1, -1, 0, 0, 0, 0])
HUE_CONSTANT = np.array([0, 0, 0, -0.35, 0.7, -0.7, 0.35])


class Draw(NamedTuple):
    """Scenes of every row and time.

    Attributes
    ----------
    scenes : (n, T, 10) in [-1, 1], columns as ``scene.COLUMNS``; time 0 is the control twin.
    classes : (n,) class of the object, shared by a row's frames.
    """

    scenes: Floats
    classes: Classes


@dataclass(frozen=True)
class SoftInterventions:
    """What each of p perturbations does to each latent's mechanism.

    Attributes
    ----------
    shift : (p, 10) added to the conditional mean; 0 where a latent is no target.
    scale : (p, 10) factor on the conditional sd; 1 where a latent is no target.
    """

    shift: Floats
    scale: Floats


def truncated_normal(mean: Floats, sd: Floats, random: np.random.Generator) -> Floats:
    """Draws of Normal(mean, sd) truncated to [-1, 1], by the inverse of its distribution function."""
    # upper tails lose digits in ndtr, lower tails do not: draw the mirror image where the mean is below 0
    sign = np.where(mean < 0, -1.0, 1.0)
    low, high = (-1 - sign * mean) / sd, (1 - sign * mean) / sd
    bottom, top = ndtr(low), ndtr(high)
    draws = sign * mean + sd * ndtri(bottom + random.random(mean.shape) * (top - bottom))
    draws = np.where(top > bottom, draws, 1.0)  # all mass at the end nearest the mean, beyond what a double resolves
    return np.asarray(np.clip(sign * draws, -1.0, 1.0), dtype=np.float64)


def conditional_means(classes: Classes, scenes: Floats) -> Floats:
    """Means of x, y, z, φ, θ, ψ and object hue given class and roots, before any intervention.

    Parameters
    ----------
    classes : (n,)
    scenes : (n, 10), of which spotlight and the two scene hues are read.

    Returns
    -------
    (n, 7), in the order of ``trial_spec.OBJECT_LATENTS``.
    """
    angle = _column(scenes, "spotlight") * np.pi / 2
    hues = (_column(scenes, "hue_background") + _column(scenes, "hue_spotlight")) / 2
    sign = POSITION_SIGN[classes]
    position = np.stack([sign * np.sin(angle), sign * np.cos(angle), np.zeros(len(classes))], axis=1)
    hue = HUE_WEIGHT[classes] * hues + HUE_CONSTANT[classes]
    return np.concatenate([position, ROTATION_MEANS[classes], hue[:, None]], axis=1)


def draw_interventions(process: NativeSpec, targets: NDArray[np.bool_], seed: int) -> SoftInterventions:
    """Draw what each perturbation does.

    Parameters
    ----------
    process
        Ranges of shift and scale.
    targets : (p, 10) bool, columns as ``scene.COLUMNS``.
    seed
        The data seed.
    """
    random = np.random.default_rng(derive(seed, "native interventions"))
    sign = random.choice([-1.0, 1.0], size=targets.shape)
    shift = sign * random.uniform(*process.shift, size=targets.shape)
    scale = np.exp(random.uniform(np.log(process.scale[0]), np.log(process.scale[1]), size=targets.shape))
    return SoftInterventions(np.where(targets, shift, 0.0), np.where(targets, scale, 1.0))


def sample_native(spec: Causal3DIdentData, design: Design, seed: int) -> Draw:
    """Draw every row's scene under u and its control twin, which shares class and invariant latents.

    Latents named neither responsive nor invariant are held at 0. A root named responsive is uniform under control;
    an intervention makes it normal about its shift, sd its scale times that of the uniform, truncated to [-1, 1].

    Parameters
    ----------
    spec
        Names, classes and the native process.
    design
        Perturbations and rows.
    seed
        The data seed.

    Raises
    ------
    UserError
        If an invariant latent has a responsive parent, or a range of the process is impossible.
    """
    assert isinstance(spec.process, NativeSpec)
    _check(spec, spec.process)
    random = np.random.default_rng(derive(seed, "native latents"))
    n = len(design.environment)
    classes = np.asarray(spec.classes, dtype=np.int64)[random.integers(len(spec.classes), size=n)]
    acts = interventions_of(spec, design, seed)
    scenes = np.zeros((n, 2, len(COLUMNS)))
    for name in SCENE_LATENTS + OBJECT_LATENTS:  # parents first
        column = COLUMNS.index(name)
        if name in spec.invariant:
            none = np.zeros(n), np.ones(n)
            scenes[:, :, column] = _mechanism(name, classes, scenes[:, 0], *none, random)[:, None]
        elif name in spec.responsive:
            for time in (0, 1):
                shift, scale = (acts.shift[:, column], acts.scale[:, column]) if time else (np.zeros(n), np.ones(n))
                scenes[:, time, column] = _mechanism(name, classes, scenes[:, time], shift, scale, random)
    return Draw(scenes, classes)


def interventions_of(spec: Causal3DIdentData, design: Design, seed: int) -> SoftInterventions:
    """The change of each row's mechanisms, (n, 10): shifts of a double's members add, their scales multiply."""
    assert isinstance(spec.process, NativeSpec)
    targets = np.zeros((len(design.perturbations), len(COLUMNS)), dtype=bool)
    targets[:, [COLUMNS.index(name) for name in spec.responsive]] = design.targets.numpy()
    single = draw_interventions(spec.process, targets, seed)
    member = np.zeros((len(design.members), len(design.perturbations)))
    for condition, members in enumerate(design.members):
        member[condition, list(members)] = 1.0
    rows = member[design.environment.numpy()]
    return SoftInterventions(rows @ single.shift, np.exp(rows @ np.log(single.scale)))


def _mechanism(
    name: str, classes: Classes, parents: Floats, shift: Floats, scale: Floats, random: np.random.Generator
) -> Floats:
    if name in OBJECT_LATENTS:
        mean = conditional_means(classes, parents)[:, OBJECT_LATENTS.index(name)]
        return truncated_normal(mean + shift, OBJECT_SD * scale, random)
    control = random.uniform(-1.0, 1.0, size=len(classes))
    moved = truncated_normal(shift, ROOT_SD * scale, random)
    return np.where((shift == 0) & (scale == 1), control, moved)


def _check(spec: Causal3DIdentData, process: NativeSpec) -> None:
    for name in ("shift", "scale"):
        low, high = getattr(process, name)
        if not 0 <= low <= high or (name == "scale" and low == 0):
            raise UserError(
                f"data.process.{name}: is [{low:g}, {high:g}], must rise from {'above ' * (name == 'scale')}0"
            )
    if high > 10 or process.shift[1] > 2:
        raise UserError("data.process: shift goes up to 2 (latents lie in [-1, 1]) and scale up to 10")
    moved = {name: [parent for parent in parents if parent in spec.responsive] for name, parents in _parents(spec)}
    for name, parents in moved.items():
        if name in spec.invariant and parents:
            raise UserError(
                f"data.invariant: {name} is caused by {' and '.join(parents)}, named in data.responsive, so it is not "
                "invariant; name it in data.responsive, or its cause in data.invariant"
            )


def _parents(spec: Causal3DIdentData) -> list[tuple[str, tuple[str, ...]]]:
    """Parents of the latents that have any, for the classes drawn."""
    drawn = list(spec.classes)
    found: list[tuple[str, tuple[str, ...]]] = []
    if POSITION_SIGN[drawn].any():
        found += [("x", ("spotlight",)), ("y", ("spotlight",))]
    if HUE_WEIGHT[drawn].any():
        found.append(("hue_object", ("hue_background", "hue_spotlight")))
    return found


def _column(scenes: Floats, name: str) -> Floats:
    return scenes[:, COLUMNS.index(name)]
