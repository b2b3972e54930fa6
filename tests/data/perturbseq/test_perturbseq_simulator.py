import hashlib

import numpy as np
import pytest
import torch

from harness.data import load
from harness.data.fingerprint import fingerprint
from harness.data.perturbseq.labels import members_of
from harness.data.perturbseq.simulator import design_of, simulate
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.process_spec import LinearGaussianSpec


def small(**options):
    process = {"responsive": 2, "invariant": 3, **options.pop("process", {})}
    sizes = {"environments": 4, "doubles": 2, "cells": 600, "test_cells": 200, "double_cells": 50, "genes": 80}
    return PerturbseqData(**{**sizes, **options}, process=LinearGaussianSpec(**process))


def test_simulated_cells_look_like_a_file():
    adata = simulate(small())
    assert adata.shape == (2 * (600 + 200 + 2 * 50), 80)
    assert adata.X.dtype == np.int32
    assert set(adata.obs["condition"].unique()) == {"control", *design_of(small()).conditions}
    assert adata.obs.loc[adata.obs["time"] == 0, "condition"].eq("control").all()
    assert adata.obsm["responsive"].shape == (1800, 2)
    assert adata.obsm["invariant"].shape == (1800, 3)
    depth = np.asarray(adata.X.sum(1)).ravel()
    assert depth.mean() == pytest.approx(5000, rel=0.05)


def test_simulated_data_carry_their_truth(tmp_path):
    spec = small(pairs=True)
    data = load(spec, tmp_path)
    design = design_of(spec)
    assert data.pairs == "true"
    assert data.ood == ("double_seen2",)
    assert sorted(data.conditions) == sorted(design.conditions)
    assert data.index.shape == (900, 2)
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 540,
        "validation": 60,
        "test": 200,
        "double_seen2": 100,
    }
    # a pair shares its invariant latents
    assert torch.equal(data.truth.invariant[data.index[:, 0]], data.truth.invariant[data.index[:, 1]])
    assert data.excluded == {}
    for name, target in zip(data.perturbations, data.targets, strict=True):
        assert torch.equal(target, design.targets[design.perturbations.index(name)])


def test_by_default_the_control_beside_a_simulated_cell_is_not_its_twin(tmp_path):
    data = load(small(), tmp_path)
    assert data.pairs == "random"
    control, cell = data.truth.invariant[data.index[:, 0]], data.truth.invariant[data.index[:, 1]]
    assert not (control == cell).all(1).any()


def test_mechanisms_belong_to_their_perturbations(tmp_path):
    data = load(small(cells=40_000, environments=3, doubles=0, genes=2, library_size=10.0), tmp_path)
    last = data.index[:, 1]
    mechanisms = data.truth.mechanisms.select(range(1, len(data.conditions)))
    for k, name in enumerate(data.perturbations):
        rows = data.condition == data.conditions.index(name)
        z, z_i = data.truth.responsive[last[rows]], data.truth.invariant[last[rows]]
        noise = z - z @ mechanisms.graph[k].T - z_i @ mechanisms.graph_invariant[k].T
        error = 5 * (mechanisms.variance[k] / rows.sum()).sqrt()
        assert torch.all((noise.mean(0) - mechanisms.mean[k]).abs() < error), name
        torch.testing.assert_close(noise.var(0), mechanisms.variance[k], rtol=0.1, atol=0)


def test_no_frame_of_test_or_ood_is_trained_on(tmp_path):
    data = load(small(), tmp_path)
    trained = set(data.index[data.splits["train"]].flatten().tolist())
    for name in ("validation", "test", *data.ood):
        assert not trained & set(data.index[data.splits[name]].flatten().tolist())


def test_expression_tells_the_latents(tmp_path):
    """With many counts and no dispersion the latents can be read off linearly: the counts carry them."""
    data = load(small(library_size=50_000.0, dispersion=0.0), tmp_path)
    truth = torch.cat([data.truth.responsive, data.truth.invariant], 1).numpy()
    x = np.column_stack([data.frames.numpy(), np.ones(len(data.frames))])
    half = len(x) // 2
    fitted = x[half:] @ np.linalg.lstsq(x[:half], truth[:half], rcond=None)[0]
    r2 = 1 - ((fitted - truth[half:]) ** 2).sum(0) / ((truth[half:] - truth[half:].mean(0)) ** 2).sum(0)
    assert np.all(r2 > 0.85)


def test_time_steps_make_longer_rows(tmp_path):
    data = load(small(process={"steps": 3, "lagged": "diagonal"}), tmp_path)
    assert data.pairs == "true"  # a cell's own past, and no control in its place
    assert data.index.shape == (900, 4)
    assert len(data.frames) == 3600
    assert data.truth.mechanisms.lagged.any()


def test_times_and_trajectories_are_named():
    adata = simulate(small(process={"steps": 3, "lagged": "diagonal"}))
    times = adata.obs.groupby("trajectory", observed=True)["time"].agg(tuple)
    assert set(times) == {(0, 1, 2, 3)}
    invariant = adata.obsm["invariant"].reshape(900, 4, 3)
    assert np.all(invariant == invariant[:, :1])
    # the past acts: with a diagonal lag a responsive latent is correlated with itself a step earlier
    control = (adata.obs["condition"] == "control").to_numpy().reshape(900, 4).all(1)
    first = adata.obsm["responsive"].reshape(900, 4, 2)[control, :, 0]
    assert np.corrcoef(first[:, 1], first[:, 2])[0, 1] > 0.3


def test_the_default_counts_are_what_they_were():
    """Turning no knob must not change data that studies were run on."""
    counts = simulate(small()).X
    text = hashlib.sha256(counts.data.tobytes() + counts.indices.astype(np.int32).tobytes()).hexdigest()
    assert text[:16] == "52d553689561eeb7"


@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_conditions_have_uneven_numbers_of_cells(sd):
    sizes = {"environments": 80, "process": {"responsive": 8}, "cells": 30_000, "test_cells": 10_000}
    spec = small(**sizes, doubles=40, genes=2, min_cells=2, simulator={"cells_sd": sd})
    design = design_of(spec)
    cells = torch.bincount(design.environment, minlength=121).numpy()
    assert cells[:81].sum() == 40_000
    assert cells[81:].sum() == 40 * 50
    assert np.log(cells[:81]).std() == pytest.approx(sd, rel=0.25)
    assert np.log(cells[81:]).std() == pytest.approx(sd, rel=0.4)
    even = design_of(small(**sizes, doubles=40, genes=2))
    assert design.conditions == even.conditions
    assert torch.bincount(even.environment)[:81].float().std() < 2


def test_no_condition_is_left_with_too_few_cells_to_be_read(tmp_path):
    data = load(small(cells=300, test_cells=200, simulator={"cells_sd": 3.0}), tmp_path)
    assert torch.bincount(data.condition).min() >= 20
    assert data.excluded == {}


def test_batches_are_shared_by_conditions_and_by_a_cell_and_its_twin():
    adata = simulate(small(simulator={"batches": 3}))
    assert "batch" not in simulate(small()).obs
    assert adata.obs.groupby("trajectory", observed=True)["batch"].nunique().eq(1).all()
    shares = adata.obs.groupby("condition", observed=True)["batch"].value_counts(normalize=True)
    assert len(shares) == 7 * 3
    assert shares.between(0.1, 0.6).all()


@pytest.mark.parametrize("each", [1, 3])
def test_a_perturbation_moves_as_many_latents_as_asked(each):
    """Sparse effects: without edges, latents beyond the targets stay as in control."""
    process = {"responsive": 5, "targets_per_perturbation": each, "edge_density": 0.0, "changes": "mean"}
    adata = simulate(small(process=process, environments=5, cells=6000, doubles=0, genes=2))
    spec = small(process=process, environments=5, cells=6000, doubles=0, genes=2)
    design = design_of(spec)
    last = adata.obs["time"].to_numpy() == 1
    for k, name in enumerate(design.perturbations):
        of_cell = last & (adata.obs["condition"] == name).to_numpy()
        moved = np.abs(adata.obsm["responsive"][of_cell].mean(0)) > 0.5
        np.testing.assert_array_equal(moved, design.targets[k].numpy())
        assert moved.sum() == each


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_doubles_interact_in_latent_space_as_strongly_as_asked(strength):
    """Without edges a double's mean latents are the sum of its members', plus the interaction on its targets."""
    process = {"responsive": 4, "edge_density": 0.0, "interaction": strength, "mean_shift": (1.0, 1.0)}
    adata = simulate(small(process=process, environments=4, doubles=6, cells=8000, double_cells=1500, genes=2))
    last = adata[adata.obs["time"] == 1]
    mean = {
        name: last.obsm["responsive"][(last.obs["condition"] == name).to_numpy()].mean(0)
        for name in last.obs["condition"].unique()
    }
    doubles = [name for name in mean if "+" in name]
    assert len(doubles) == 6
    for name in doubles:
        extra = mean[name] - sum(mean[gene] - mean["control"] for gene in members_of(name)) - mean["control"]
        expected = np.array([strength if f"v{k + 1}" in members_of(name) else 0.0 for k in range(4)])
        np.testing.assert_allclose(np.abs(extra), expected, atol=0.35)


def test_the_files_own_genes_are_told():
    adata = simulate(small())
    assert adata.varm["loadings"].shape == (80, 5)
    assert adata.var["dispersion"].eq(0.1).all()
    # the busiest genes are those of the highest baseline
    assert np.corrcoef(np.log(np.asarray(adata.X.mean(0)).ravel() + 0.1), adata.var["baseline"])[0, 1] > 0.9


def test_built_once_and_the_same_again(tmp_path):
    spec = small()
    first = load(spec, tmp_path)
    (folder,) = tmp_path.glob("perturbseq-*")
    assert folder.name.endswith(fingerprint(spec))
    again, elsewhere = load(spec, tmp_path), load(spec, tmp_path / "other")
    other = load(small(seed=1), tmp_path)
    for data in (again, elsewhere):
        assert torch.equal(first.frames, data.frames)
        assert all(torch.equal(rows, data.splits[name]) for name, rows in first.splits.items())
    assert not torch.equal(first.frames, other.frames)


def test_the_users_labels_are_written_and_read(tmp_path):
    plain, named = load(small(), tmp_path), load(small(column="guide", control="NT"), tmp_path)
    assert named.conditions == plain.conditions
    assert torch.equal(named.frames, plain.frames)
    assert simulate(small(column="guide", control="NT")).obs["guide"].iloc[0] == "NT"


def test_refusals(tmp_path):
    with pytest.raises(UserError, match=r"data\.values is lognorm, but simulated data are counts"):
        load(small(values="lognorm"), tmp_path)
    with pytest.raises(UserError, match=r"simulated counts .* conditions have fewer than 20 cells"):
        load(small(cells=50, test_cells=50, environments=8), tmp_path)
