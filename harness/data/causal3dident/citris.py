"""Dynamics of Temporal Causal3DIdent: every factor moves halfway to a goal that its parents set, plus noise.

Source: Lippe et al. 2022 (CITRIS, Zenodo 6637749). A step from time t to t + 1 is

    z' = z + (goal − z)/2 + e,    e of sd 0.1 for positions and 0.15 for angles,

with goals taken from time t; angles take the short way round and wrap, positions are drawn again while |z'| > 2, the
shape is redrawn with probability 0.05. Interventions are perfect: the variable is drawn uniformly from its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident import scene
from harness.data_spec import TemporalCausal3DIdentData
from harness.process_spec import MOVING, CitrisSpec, citris_variables

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

#: Columns of a raw latent vector, as in the release, whose table calls a rotation's angles alpha, beta and gamma.
COLUMNS = (*scene.COLUMNS, "shape", "material")
SHAPE = COLUMNS.index("shape")
POSITIONS = ("x", "y", "z")
#: Latents that close on themselves, in radians.
ANGLES = ("phi", "theta", "psi", "spotlight", "hue_object", "hue_spotlight", "hue_background")
_POSITION_COLUMNS = [COLUMNS.index(name) for name in POSITIONS]
_ANGLE_COLUMNS = [COLUMNS.index(name) for name in ANGLES]
#: Positions lie in [-REACH, REACH].
REACH = 2.0
POSITION_SD, ANGLE_SD = 0.1, 0.15
SHAPE_REDRAWN = 0.05
TURN = 2 * np.pi
#: Steps from a uniform start that are thrown away; a factor is intervened on, and so forgets, every tenth step or so.
BURN_IN = 50
#: Shape ids of the release to classes of ours (teapot, armadillo, hare, cow, dragon, head, horse), and back.
CLASS_OF_SHAPE: Ints = np.array([0, 4, 1, 3, 2, 6, 5])
SHAPE_OF_CLASS: Ints = np.argsort(CLASS_OF_SHAPE)
#: Goal of the object's hue by shape id; hare and dragon follow the other hues instead.
_HUE_GOAL = TURN / 5 * np.array([0.0, 1.0, np.nan, 2.0, np.nan, 3.0, 4.0])
_HARE, _DRAGON = 2, 4


@dataclass(frozen=True)
class Dynamics:
    """Which factors move, and which are intervened on together.

    Attributes
    ----------
    moving : names among ``process_spec.MOVING``.
    held : names of latents drawn once a sequence, and constant along it. All others rest at 0.
    shapes : shape ids (of the release) drawn; one alone stays.
    grouped : whether position and rotation are intervened on as wholes.
    """

    moving: tuple[str, ...] = MOVING
    held: tuple[str, ...] = ()
    shapes: tuple[int, ...] = (0,)
    grouped: bool = False

    @property
    def variables(self) -> dict[str, tuple[int, ...]]:
        """What is intervened on, by name: the columns that each sets."""
        named = citris_variables(self.moving, grouped=self.grouped, shapes=len(self.shapes))
        return {name: tuple(COLUMNS.index(part) for part in parts or (name,)) for name, parts in named.items()}


@dataclass(frozen=True)
class Trajectories:
    """Sequences of frames, and what was intervened on between them.

    Attributes
    ----------
    latents : (n, T, 12) raw, columns `COLUMNS`: positions in [-2, 2], angles in [0, 2π), shape id, material 0.
    interventions : (n, T - 1, 12) bool by column; ``[:, t]`` acts between t and t + 1.
    """

    latents: Floats
    interventions: Bools


def simulate(
    dynamics: Dynamics, sequences: int, frames: int, random: np.random.Generator, *, burn_in: int = BURN_IN
) -> Trajectories:
    """Draw sequences, each independent of the others.

    Parameters
    ----------
    dynamics
        What moves.
    sequences, frames
        n sequences of T frames each.
    random
        Source of every draw.
    burn_in
        Steps between the uniform start and the first frame kept.
    """
    state = uniform(dynamics, sequences, random)
    states, hits = [], []
    for _ in range(burn_in + frames - 1):
        states.append(state)
        hits.append(draw_interventions(dynamics, sequences, random))
        state = step(dynamics, state, hits[-1], random)
    states.append(state)
    kept = np.zeros((sequences, 0, len(COLUMNS)), dtype=bool)
    if frames > 1:
        kept = np.stack(hits[burn_in:], axis=1)
    return Trajectories(np.stack(states[burn_in:], axis=1), kept)


def uniform(dynamics: Dynamics, count: int, random: np.random.Generator) -> Floats:
    """Factors drawn independently and uniformly from their ranges, (count, 12); those that rest are 0."""
    latents = np.zeros((count, len(COLUMNS)))
    latents[:, _POSITION_COLUMNS] = random.uniform(-REACH, REACH, (count, len(POSITIONS)))
    latents[:, _ANGLE_COLUMNS] = random.uniform(0.0, TURN, (count, len(ANGLES)))
    resting = [name not in dynamics.moving + dynamics.held for name in COLUMNS]
    latents[:, resting] = 0.0
    latents[:, SHAPE] = _draw_shapes(dynamics.shapes, count, random)
    return latents


def draw_interventions(dynamics: Dynamics, count: int, random: np.random.Generator) -> Bools:
    """Columns intervened on, (count, 12): each of k variables with probability 1/(k + 1), independently."""
    variables = list(dynamics.variables.values())
    drawn = random.random((count, len(variables))) < 1.0 / (len(variables) + 1)
    hit = np.zeros((count, len(COLUMNS)), dtype=bool)
    for which, columns in enumerate(variables):
        hit[:, list(columns)] = drawn[:, which, None]
    return hit


def step(dynamics: Dynamics, before: Floats, interventions: Bools, random: np.random.Generator) -> Floats:
    """The next frame's factors.

    Parameters
    ----------
    dynamics
        What moves.
    before : (n, 12) raw latents at time t.
    interventions : (n, 12) columns set anew, uniformly.
    random
        Source of every draw.

    Returns
    -------
    (n, 12) raw latents at time t + 1.
    """
    n = len(before)
    drift = halfway(before, goals(before, single_shape=len(dynamics.shapes) == 1))
    moved = before.copy()
    moved[:, _POSITION_COLUMNS] = _within_reach(drift[:, _POSITION_COLUMNS], random)
    noise = ANGLE_SD * random.standard_normal((n, len(ANGLES)))
    moved[:, _ANGLE_COLUMNS] = wrap(drift[:, _ANGLE_COLUMNS] + noise)
    redrawn = random.random(n) < SHAPE_REDRAWN
    moved[:, SHAPE] = np.where(redrawn, _draw_shapes(dynamics.shapes, n, random), before[:, SHAPE])
    free = np.array([name in dynamics.moving or name == "shape" for name in COLUMNS])
    after = np.where(free, moved, before)
    return np.where(interventions, uniform(dynamics, n, random), after)


def goals(latents: Floats, *, single_shape: bool) -> Floats:
    """What each factor moves towards, (n, 12), given all factors (n, 12) of the same time.

    A factor without parents is its own goal, and so are shape and material, which do not move by steps. So is the
    object's hue where there is a ``single_shape``. Angles are in [0, 2π).
    """
    here = {name: latents[:, column] for column, name in enumerate(COLUMNS)}
    goal = latents.copy()

    def set_goal(name: str, value: Floats) -> None:
        goal[:, COLUMNS.index(name)] = wrap(value) if name in ANGLES else value

    set_goal("x", 1.5 * np.sin(here["theta"]))
    set_goal("y", 1.5 * np.sin(here["phi"]))
    set_goal("z", 1.5 * np.cos(here["phi"]))
    set_goal("phi", here["hue_background"])
    set_goal("theta", here["hue_object"])
    set_goal("spotlight", np.arctan2(here["x"], here["y"]))
    set_goal("hue_spotlight", TURN - here["hue_background"])
    if not single_shape:
        shape = here["shape"].astype(np.int64)
        between = circular_mean(here["hue_spotlight"], here["hue_background"])
        follows = [shape == _HARE, shape == _DRAGON]
        set_goal("hue_object", np.select(follows, [between, between + np.pi], _HUE_GOAL[shape]))
    return goal


def halfway(latents: Floats, goal: Floats) -> Floats:
    """Halfway from factors (n, 12) to their goals, angles the short way round and not wrapped yet."""
    away = goal - latents
    angles = away[:, _ANGLE_COLUMNS]
    away[:, _ANGLE_COLUMNS] = angles - TURN * np.round(angles / TURN)
    return latents + away / 2


def wrap(angles: Floats) -> Floats:
    """Angles in [0, 2π)."""
    turned = np.mod(angles, TURN)
    return np.where(turned < TURN, turned, 0.0)  # just below 0, the remainder rounds to 2π itself


def circular_mean(first: Floats, second: Floats) -> Floats:
    """Direction of the mean of two unit vectors, in (−π, π]."""
    return np.arctan2(np.sin(first) + np.sin(second), np.cos(first) + np.cos(second))


def to_scene(latents: Floats) -> Floats:
    """Our renderer's latents (..., 10) of raw ones (..., 12): positions fill its range, angles go all the way round.

    The renderer reads an angle in units of π/2, so that the full circle is [0, 4) and the static images' [-1, 1] half
    of it. The original scene places objects at raw positions, in metres; here they are spread as in the static images,
    1.5 times as far.
    """
    drawn = latents[..., : len(scene.COLUMNS)].copy()
    drawn[..., _POSITION_COLUMNS] /= REACH
    drawn[..., _ANGLE_COLUMNS] /= np.pi / 2
    return drawn


def classes_of(latents: Floats) -> Ints:
    """Class (ours) of each raw latent vector (..., 12)."""
    return CLASS_OF_SHAPE[latents[..., SHAPE].astype(np.int64)]


def dynamics_of(spec: TemporalCausal3DIdentData) -> Dynamics:
    """The dynamics a study file describes."""
    shapes = sorted({int(SHAPE_OF_CLASS[which]) for which in spec.classes})
    assert isinstance(spec.process, CitrisSpec)
    return Dynamics(spec.responsive, spec.invariant, tuple(shapes), spec.process.grouped)


def _within_reach(mean: Floats, random: np.random.Generator) -> Floats:
    """Normal(mean, 0.1), drawn again where outside [-2, 2]; no mean lies further out than 1.75."""
    drawn = mean + POSITION_SD * random.standard_normal(mean.shape)
    while (outside := np.abs(drawn) > REACH).any():
        drawn[outside] = mean[outside] + POSITION_SD * random.standard_normal(int(outside.sum()))
    return drawn


def _draw_shapes(shapes: Sequence[int], count: int, random: np.random.Generator) -> Floats:
    return np.asarray(shapes, dtype=np.float64)[random.integers(len(shapes), size=count)]
