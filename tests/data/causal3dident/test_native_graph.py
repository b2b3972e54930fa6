"""The native latent graph against closed forms of the truncated normal and the published table."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, truncnorm

from harness.data.causal3dident.native import (
    conditional_means,
    interventions_of,
    sample_native,
    truncated_normal,
)
from harness.data.causal3dident.scene import COLUMNS
from harness.data.latent_process import make_design
from harness.data_spec import Causal3DIdentData
from harness.errors import UserError
from harness.process_spec import NativeSpec

COLUMN = {name: k for k, name in enumerate(COLUMNS)}


def make_spec(**changes):
    fields = {"cells": 6000, "test_cells": 50, "double_cells": 400, "doubles": 3, "environments": 7, **changes}
    return Causal3DIdentData(**fields)


def drawn(spec):
    design = make_design(spec, spec.responsive)
    return design, *sample_native(spec, design, spec.seed)


def within(values, mean, sd):
    """Whether draws have a truncated normal's distribution."""
    law = truncnorm((-1 - mean) / sd, (1 - mean) / sd, loc=mean, scale=sd)
    return kstest(values, law.cdf).pvalue > 1e-4


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.5), (-1.7, 0.2), (1.7, 0.2), (0.7, 0.5), (0.0, 5.0), (3.0, 0.6)])
def test_truncated_normal_has_the_distribution_scipy_gives(mean, sd):
    draws = truncated_normal(np.full(20_000, mean), np.full(20_000, sd), np.random.default_rng(1))
    assert np.abs(draws).max() <= 1
    assert within(draws, mean, sd)


def test_all_mass_beyond_what_a_double_resolves_lies_at_the_near_end():
    draws = truncated_normal(np.array([2.0, -2.0]), np.full(2, 0.01), np.random.default_rng(0))
    np.testing.assert_allclose(draws, [1, -1])


def test_conditional_means_are_those_of_the_table():
    scenes = np.zeros((7, 10))
    scenes[:, COLUMN["spotlight"]] = 1 / 3  # 30 degrees
    scenes[:, COLUMN["hue_background"]], scenes[:, COLUMN["hue_spotlight"]] = 0.6, 0.2
    s, c = 0.5, 3**0.5 / 2
    expected = [
        [0, 0, 0, -0.35, 0.35, 0.35, 0],
        [-s, -c, 0, 0.35, -0.35, 0.35, 0.4],
        [-s, -c, 0, 0.35, 0.35, -0.35, -0.4],
        [s, c, 0, 0.35, -0.35, -0.35, -0.35],
        [s, c, 0, -0.35, 0.35, -0.35, 0.7],
        [-s, -c, 0, -0.35, -0.35, 0.35, -0.7],
        [s, c, 0, -0.35, -0.35, -0.35, 0.35],
    ]
    np.testing.assert_allclose(conditional_means(np.arange(7), scenes), expected, atol=1e-12)


def test_control_latents_have_their_conditional_distribution():
    spec = make_spec(classes=(3,), environments=1, doubles=0)
    _, scenes, classes = drawn(spec)
    assert set(classes.tolist()) == {3}
    twin = scenes[:, 0]
    for name in ("spotlight", "hue_spotlight", "hue_background"):
        assert kstest(twin[:, COLUMN[name]], "uniform", args=(-1, 2)).pvalue > 1e-4
    for name, mean in {"z": 0.0, "phi": 0.35, "theta": -0.35, "hue_object": -0.35}.items():
        assert within(twin[:, COLUMN[name]], mean, 0.5)
    angle = twin[:, COLUMN["spotlight"]] * np.pi / 2
    mean = np.sin(angle)
    law = truncnorm((-1 - mean) / 0.5, (1 - mean) / 0.5, loc=mean, scale=0.5)
    assert kstest(law.cdf(twin[:, COLUMN["x"]]), "uniform").pvalue > 1e-4


def test_each_environment_moves_its_target_and_nothing_else():
    spec = make_spec()
    design, scenes, _ = drawn(spec)
    acts = interventions_of(spec, design, spec.seed)
    which = design.environment.numpy()
    control_means = conditional_means(np.zeros(1, int), np.zeros((1, 10)))[0]
    for condition, members in enumerate(design.members):
        rows = which == condition
        for k, name in enumerate(spec.responsive):
            shift, scale = acts.shift[rows][0, COLUMN[name]], acts.scale[rows][0, COLUMN[name]]
            if k in members:
                assert 0.3 <= abs(shift) <= 0.7
                assert 0.4 <= scale <= 1.2
            else:
                assert (shift, scale) == (0, 1)
            assert within(scenes[rows, 1, COLUMN[name]], control_means[k] + shift, 0.5 * scale)


def test_a_double_combines_its_members():
    spec = make_spec()
    design = make_design(spec, spec.responsive)
    acts = interventions_of(spec, design, spec.seed)
    which = design.environment.numpy()
    double = len(design.perturbations) + 1
    a, b = design.members[double]
    shifts = [acts.shift[which == condition][0] for condition in (double, a + 1, b + 1)]
    np.testing.assert_allclose(shifts[0], shifts[1] + shifts[2])


def test_twins_share_class_and_invariant_latents_and_redraw_the_responsive():
    _, scenes, _ = drawn(make_spec(classes=(0, 1, 2)))
    invariant = [COLUMN[name] for name in ("spotlight", "hue_spotlight", "hue_background")]
    np.testing.assert_array_equal(scenes[:, 0][:, invariant], scenes[:, 1][:, invariant])
    responsive = [k for k in range(10) if k not in invariant]
    assert (scenes[:, 0][:, responsive] != scenes[:, 1][:, responsive]).all()


def test_latents_that_are_not_named_are_held_at_zero():
    _, scenes, _ = drawn(make_spec(responsive=("x", "psi"), invariant=("spotlight",), environments=2, doubles=1))
    held = [k for name, k in COLUMN.items() if name not in ("x", "psi", "spotlight")]
    assert (scenes[:, :, held] == 0).all()


def test_a_root_may_be_responsive():
    spec = make_spec(responsive=("hue_background",), invariant=("z",), environments=1, doubles=0)
    design, scenes, _ = drawn(spec)
    hit = design.environment == torch.tensor(1)
    control = scenes[~hit.numpy(), 1, COLUMN["hue_background"]]
    assert kstest(control, "uniform", args=(-1, 2)).pvalue > 1e-4
    assert kstest(scenes[hit.numpy(), 1, COLUMN["hue_background"]], "uniform", args=(-1, 2)).pvalue < 1e-4


def test_an_invariant_latent_with_a_responsive_cause_is_refused():
    spec = make_spec(classes=(1,), responsive=("spotlight",), invariant=("x",), environments=1, doubles=0)
    with pytest.raises(UserError, match="x is caused by spotlight"):
        drawn(spec)
    teapot = spec.model_copy(update={"classes": (0,)})  # whose position has no cause
    drawn(teapot)


@pytest.mark.parametrize("process", [NativeSpec(shift=(0.7, 0.3)), NativeSpec(scale=(0.0, 1.0))])
def test_an_impossible_range_is_refused(process):
    with pytest.raises(UserError, match=r"data\.process"):
        drawn(make_spec(process=process))


def test_the_same_seed_gives_the_same_latents():
    _, first, _ = drawn(make_spec(cells=60))
    _, again, _ = drawn(make_spec(cells=60))
    _, other, _ = drawn(make_spec(cells=60, seed=1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
