"""CITRIS dynamics against closed forms: goals, stationary laws, interventions, wrapping."""

import numpy as np
import pytest
from scipy.stats import kstest

from harness.data.causal3dident.citris import (
    ANGLE_SD,
    ANGLES,
    CLASS_OF_SHAPE,
    COLUMNS,
    POSITION_SD,
    SHAPE,
    SHAPE_OF_CLASS,
    TURN,
    Dynamics,
    circular_mean,
    classes_of,
    draw_interventions,
    goals,
    halfway,
    simulate,
    step,
    to_scene,
    uniform,
    wrap,
)
from harness.data.causal3dident.scene import placement
from harness.data.causal3dident.shapes import CLASS_NAMES

AT = {name: column for column, name in enumerate(COLUMNS)}
ALL_SHAPES = Dynamics(shapes=tuple(range(7)))


def latents(count=1, **values):
    raw = np.zeros((count, len(COLUMNS)))
    for name, value in values.items():
        raw[:, AT[name]] = value
    return raw


def apart(first, second):
    """Smallest angle between two directions."""
    return np.abs((first - second + np.pi) % TURN - np.pi)


# ------------------------------------------------------------------------------------------- goals


def test_goals_are_those_of_the_parents_now():
    raw = uniform(Dynamics(), 200, np.random.default_rng(0))
    goal = goals(raw, single_shape=True)
    alpha, beta = raw[:, 3], raw[:, 4]
    np.testing.assert_allclose(goal[:, 0], 1.5 * np.sin(beta))
    np.testing.assert_allclose(goal[:, 1], 1.5 * np.sin(alpha))
    np.testing.assert_allclose(goal[:, 2], 1.5 * np.cos(alpha))
    np.testing.assert_allclose(goal[:, 3], raw[:, 9])
    np.testing.assert_allclose(goal[:, 4], raw[:, 7])
    np.testing.assert_allclose(np.tan(goal[:, 6]), raw[:, 0] / raw[:, 1])
    np.testing.assert_allclose(goal[:, 7], raw[:, 7])
    np.testing.assert_allclose(goal[:, 8] + raw[:, 9], TURN)
    np.testing.assert_allclose(goal[:, 9], raw[:, 9])
    assert ((goal[:, 3:10] >= 0) & (goal[:, 3:10] < TURN)).all()


@pytest.mark.parametrize(
    ("name", "shape", "goal"),
    [
        ("teapot", 0, 0.0),
        ("armadillo", 1, 2 * np.pi / 5),
        ("hare", 2, 0.5),
        ("cow", 3, 4 * np.pi / 5),
        ("dragon", 4, 0.5 + np.pi),
        ("head", 5, 6 * np.pi / 5),
        ("horse", 6, 8 * np.pi / 5),
    ],
)
def test_the_goal_of_the_hue_follows_the_shape(name, shape, goal):
    raw = latents(hue_spotlight=TURN - 0.2, hue_background=1.2, hue_object=2.0, shape=shape)
    assert goals(raw, single_shape=False)[0, AT["hue_object"]] == pytest.approx(goal)
    assert CLASS_NAMES[classes_of(raw)[0]] == name
    assert SHAPE_OF_CLASS[CLASS_OF_SHAPE[shape]] == shape


def test_the_mean_of_directions_goes_the_short_way_round():
    assert circular_mean(np.array([0.1]), np.array([TURN - 0.3]))[0] == pytest.approx(-0.1)


# ------------------------------------------------------------------------------------------- steps


def test_a_step_goes_halfway_and_angles_the_short_way_round():
    here = latents(phi=0.2, theta=6.0, x=1.0)
    there = latents(phi=6.2, theta=0.1, x=-1.0)
    half = halfway(here, there)
    assert half[0, AT["x"]] == 0.0
    assert half[0, AT["phi"]] == pytest.approx(0.2 - (0.2 + TURN - 6.2) / 2)
    assert half[0, AT["theta"]] == pytest.approx(6.0 + (0.1 + TURN - 6.0) / 2)
    assert ((wrap(half[:, 3:10]) >= 0) & (wrap(half[:, 3:10]) < TURN)).all()


def test_wrapped_angles_never_reach_a_full_turn():
    angles = np.array([-1e-17, -1e-300, TURN, np.nextafter(TURN, 0), 3 * TURN + 1, -0.5])
    wrapped = wrap(angles)
    assert ((wrapped >= 0) & (wrapped < TURN)).all()
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angles), atol=1e-12)


def test_a_position_settles_about_its_constant_goal():
    """z' = z + (g − z)/2 + e has mean g and variance σ²/(1 − 1/4)."""
    dynamics = Dynamics(moving=("y",), held=("phi",))
    drawn = simulate_without_interventions(dynamics, 20_000, phi=0.3)
    settled = drawn[:, AT["y"]]
    sd = POSITION_SD / np.sqrt(0.75)
    assert settled.mean() == pytest.approx(1.5 * np.sin(0.3), abs=4 * sd / np.sqrt(20_000))
    assert settled.std() == pytest.approx(sd, rel=0.03)
    assert kstest((settled - 1.5 * np.sin(0.3)) / sd, "norm").pvalue > 1e-3


def test_an_angle_settles_about_a_goal_beside_the_seam():
    dynamics = Dynamics(moving=("phi",), held=("hue_background",))
    drawn = simulate_without_interventions(dynamics, 20_000, hue_background=0.05)
    turned = (drawn[:, AT["phi"]] + np.pi) % TURN - np.pi
    sd = ANGLE_SD / np.sqrt(0.75)
    assert turned.mean() == pytest.approx(0.05, abs=4 * sd / np.sqrt(20_000))
    assert turned.std() == pytest.approx(sd, rel=0.03)


def simulate_without_interventions(dynamics, count, steps=30, **held):
    random = np.random.default_rng(1)
    state = uniform(dynamics, count, random)
    for name, value in held.items():
        state[:, AT[name]] = value
    for _ in range(steps):
        state = step(dynamics, state, np.zeros(state.shape, dtype=bool), random)
    for name, value in held.items():
        assert (state[:, AT[name]] == value).all()
    return state


def test_a_factor_without_parents_walks_at_random():
    start = latents(50_000, hue_background=3.0)
    after = step(Dynamics(), start, np.zeros(start.shape, dtype=bool), np.random.default_rng(2))
    assert kstest((after[:, AT["hue_background"]] - 3.0) / ANGLE_SD, "norm").pvalue > 1e-3


def test_positions_stay_within_reach_by_being_drawn_again():
    """At the edge the law is the normal one truncated, not clipped: nothing piles up at 2."""
    start = latents(100_000, x=2.0, theta=np.pi / 2)
    drawn = step(Dynamics(), start, np.zeros(start.shape, dtype=bool), np.random.default_rng(3))[:, AT["x"]]
    assert (np.abs(drawn) <= 2).all()
    assert len(np.unique(drawn)) == len(drawn)
    from scipy.stats import truncnorm

    law = truncnorm((-2 - 1.75) / POSITION_SD, (2 - 1.75) / POSITION_SD, loc=1.75, scale=POSITION_SD)
    assert kstest(drawn, law.cdf).pvalue > 1e-3


def test_the_shape_is_redrawn_once_in_twenty_steps():
    start = latents(70_000, shape=2)
    after = step(ALL_SHAPES, start, np.zeros(start.shape, dtype=bool), np.random.default_rng(4))
    changed = (after[:, SHAPE] != 2).mean()
    assert changed == pytest.approx(0.05 * 6 / 7, abs=4 * np.sqrt(0.05 / 70_000))
    counts = np.bincount(after[:, SHAPE].astype(int), minlength=7)
    others = np.delete(counts, 2)
    assert others.min() > 0.8 * others.max()
    alone = step(Dynamics(shapes=(2,)), start, np.zeros(start.shape, dtype=bool), np.random.default_rng(4))
    assert (alone[:, SHAPE] == 2).all()


# ----------------------------------------------------------------------------------- interventions


@pytest.mark.parametrize("dynamics", [Dynamics(), ALL_SHAPES, Dynamics(shapes=tuple(range(7)), grouped=True)])
def test_each_variable_is_intervened_on_once_in_their_number_and_one_steps(dynamics):
    variables = dynamics.variables
    assert len(variables) == {0: 9, 1: 10}[len(dynamics.shapes) > 1] - (3 if dynamics.grouped else 0)
    hit = draw_interventions(dynamics, 100_000, np.random.default_rng(5))
    p = 1 / (len(variables) + 1)
    for columns in variables.values():
        assert (hit[:, list(columns)] == hit[:, [columns[0]]]).all()
    each = hit[:, [columns[0] for columns in variables.values()]]
    assert np.abs(each.mean(axis=0) - p).max() < 5 * np.sqrt(p / 100_000)
    assert (each.sum(axis=1) == 2).mean() == pytest.approx(
        len(variables) * (len(variables) - 1) / 2 * p**2 * (1 - p) ** (len(variables) - 2), abs=0.01
    )
    outside = np.setdiff1d(np.arange(12), [c for columns in variables.values() for c in columns])
    assert not hit[:, outside].any()


def test_an_intervention_is_perfect_and_uniform():
    drawn = simulate(ALL_SHAPES, 3000, 8, np.random.default_rng(6))
    after, before = drawn.latents[:, 1:], drawn.latents[:, :-1]
    for name, columns in ALL_SHAPES.variables.items():
        (column,) = columns
        hit = drawn.interventions[:, :, column]
        values = after[:, :, column][hit]
        assert len(values) > 1000
        if name == "shape":
            assert np.bincount(values.astype(int), minlength=7).min() > 0.8 * len(values) / 7
            continue
        low, width = (0.0, TURN) if name in ANGLES else (-2.0, 4.0)
        assert kstest(values, "uniform", args=(low, width)).pvalue > 1e-3
        past = before[:, :, column][hit]
        assert abs(np.corrcoef(past, values)[0, 1]) < 4 / np.sqrt(len(values))
        spared = halfway(before.reshape(-1, 12), goals(before.reshape(-1, 12), single_shape=False))[:, column]
        free = ~hit.ravel()
        moved = after.reshape(-1, 12)[free, column] - spared[free]
        size = apart(moved, 0) if name in ANGLES else np.abs(moved)
        assert size.max() < 6 * (ANGLE_SD if name in ANGLES else POSITION_SD)


# ------------------------------------------------------------------------------------- trajectories


def test_sequences_have_frames_and_interventions_between_them():
    drawn = simulate(Dynamics(moving=("x", "hue_object"), held=("phi",)), 40, 5, np.random.default_rng(7))
    assert drawn.latents.shape == (40, 5, 12)
    assert drawn.interventions.shape == (40, 4, 12)
    held = drawn.latents[:, :, AT["phi"]]
    assert (held == held[:, :1]).all()
    assert len(np.unique(held)) == 40
    resting = [AT[name] for name in COLUMNS if name not in ("x", "hue_object", "phi")]
    assert (drawn.latents[:, :, resting] == 0).all()
    assert simulate(Dynamics(), 2, 1, np.random.default_rng(0)).interventions.shape == (2, 0, 12)


def test_the_same_stream_gives_the_same_sequences():
    first, again = (simulate(Dynamics(), 5, 4, np.random.default_rng(8)) for _ in range(2))
    np.testing.assert_array_equal(first.latents, again.latents)
    np.testing.assert_array_equal(first.interventions, again.interventions)


def test_a_raw_vector_is_placed_over_the_whole_circle():
    raw = latents(x=2.0, z=-2.0, phi=3.0, theta=6.0, spotlight=4.0, hue_object=np.pi, hue_background=TURN * 0.75)
    place = placement(to_scene(raw)[0])
    np.testing.assert_allclose(place.spot_origin[:2], [4 * np.sin(4.0), 4 * np.cos(4.0)])
    np.testing.assert_allclose(place.colour_object, [0, 1, 1], atol=1e-12)  # half the hue circle from red: cyan
    np.testing.assert_allclose(place.centre[[0, 1]], [3.0, 0.0])
    np.testing.assert_allclose(place.rotation[2, 0], -np.sin(6.0))
    quarter = placement(to_scene(latents(hue_background=0.0))[0]).colour_ground
    assert np.abs(place.colour_ground - quarter).max() > 0.3
