"""Latent programs: the Jacobian against reverse mode, effects against predictions, the tables and the drawing."""

import copy
import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from harness import cli, write_programs
from harness.data.fingerprint import fingerprint
from harness.data_spec import PerturbseqData, SimulationData
from harness.errors import UserError
from harness.evaluation.graph import in_sds
from harness.model_spec import BetaVAESpec, DiscrepancyVAESpec, PerturbedVAESpec, SupervisedSpec
from harness.programs import decode, mean_jacobian, programs_of
from harness.programs_tables import tables_of
from harness.study import programs_figure
from harness.study.programs_figure import acting_on, draw_programs, shown_edges, shown_latents
from harness.trial import run_trial
from harness.trial_model import load_fitted
from harness.trial_spec import EvaluateSpec, TrainSpec, TrialSpec

PROCESS = {"responsive": 2, "invariant": 2}
CELLS = PerturbseqData(
    environments=3, doubles=2, cells=200, test_cells=100, double_cells=20, genes=15, process=PROCESS, min_cells=5
)
VECTORS = SimulationData(preset="tiny")
TRIALS = {
    "perturbed_vae": (PerturbedVAESpec(latent_dim=4, responsive_dim=2, hidden=8), CELLS),
    "discrepancy_vae": (DiscrepancyVAESpec(latent_dim=3, hidden=8), CELLS),
    "beta_vae": (BetaVAESpec(latent_dim=3, hidden=8), VECTORS),
    "supervised": (SupervisedSpec(hidden=8), VECTORS),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with one study, one finished trial of each model."""
    root = tmp_path_factory.mktemp("programs")
    for model, data in TRIALS.values():
        spec = TrialSpec(
            model=model,
            data=data,
            train=TrainSpec(epochs=1, second_stage={"restarts": 0}),
            evaluate=EvaluateSpec(identifiability=False, ood=False, conditions=False),
            data_fingerprint=fingerprint(data),
        )
        result = run_trial(spec, root / "study" / "trials" / spec.trial_id, cache_dir=root / "cache", device="cpu")
        assert result.state == "finished", result.failure
    return root


@pytest.fixture(scope="module")
def trials(root):
    found = [load_fitted(folder, root / "cache") for folder in (root / "study" / "trials").iterdir()]
    return {fitted.spec.model.kind: fitted for fitted in found}


@pytest.fixture(scope="module")
def programs(trials):
    return programs_of(trials["perturbed_vae"])


@pytest.mark.parametrize("kind", ["perturbed_vae", "discrepancy_vae", "beta_vae"])
def test_the_jacobian_is_that_of_reverse_mode(trials, kind, monkeypatch):
    model = trials[kind].model
    size = 4 if kind == "perturbed_vae" else 3
    random = torch.Generator().manual_seed(0)
    latents, scale = torch.randn(7, size, generator=random), torch.linspace(0.5, 2.0, size)
    each = [torch.autograd.functional.jacobian(lambda z: decode(model, z[None])[0], row) for row in latents]
    expected = torch.stack(each).mean(0).T * scale[:, None]
    np.testing.assert_allclose(mean_jacobian(model, latents, scale), expected, atol=1e-6)
    monkeypatch.setattr("harness.programs.HELD", 3 * size * expected.shape[1])  # chunks of three cells, the last of one
    np.testing.assert_allclose(mean_jacobian(model, latents, scale), expected, atol=1e-6)


def test_effects_are_what_perturbations_do_to_latents(trials, programs):
    fitted = copy.deepcopy(trials["perturbed_vae"])
    mechanisms = fitted.model.mechanisms
    with torch.no_grad():
        mechanisms.mean_change.fill_(5.0)
        mechanisms.graph.zero_()
        mechanisms.graph_invariant.zero_()
        mechanisms.raw_variance_change.zero_()
    found = programs_of(fitted)
    targets = mechanisms.target_scores().numpy()
    assert targets.sum() == len(fitted.data.perturbations)
    # without edges a perturbation moves its target by the change of its mean, and nothing else
    np.testing.assert_allclose(found.shifts * found.spread[:2], 5.0 * targets, atol=1e-4)
    np.testing.assert_array_equal(found.targets, targets)
    assert (found.perturbations, found.latents[1:3]) == (fitted.data.perturbations, ("responsive_2", "invariant_1"))


def test_the_graph_is_in_sds_of_test_latents_as_graph_f1_reads_it(root, trials, programs):
    fitted = trials["perturbed_vae"]
    kept = np.load(root / "study" / "trials" / fitted.spec.trial_id / "latents.npz")
    np.testing.assert_array_equal(kept["graph"], fitted.model.learned_graph())
    np.testing.assert_array_equal(kept["targets"], fitted.model.mechanisms.target_scores())
    assert tuple(kept["perturbations"]) == fitted.data.perturbations
    np.testing.assert_allclose(programs.graph, in_sds(kept["graph"], kept["responsive"].std(0, ddof=1)), rtol=1e-4)


def test_models_have_what_they_know(trials):
    discrepancy = programs_of(trials["discrepancy_vae"])
    assert discrepancy.latents == ("responsive_1", "responsive_2", "responsive_3")
    assert discrepancy.shifts.shape == discrepancy.targets.shape == (3, 3)
    shifted = trials["discrepancy_vae"].model.shifts(torch.eye(3)).detach()
    moved = trials["discrepancy_vae"].model.solve(shifted).detach().numpy()
    np.testing.assert_allclose(discrepancy.shifts * discrepancy.spread, moved, atol=1e-4)
    beta = programs_of(trials["beta_vae"])
    assert (beta.shifts, beta.targets, beta.graph) == (None, None, None)
    assert beta.genes[:2] == ("x1", "x2")
    assert set(tables_of(beta, trials["beta_vae"].spec, top=3)) == {
        "top_genes.csv",
        "loadings_control.csv",
        "loadings_perturbed.csv",
        "about.json",
    }
    with pytest.raises(UserError, match="no decoder"):
        programs_of(trials["supervised"])


def test_the_command_writes_what_pandas_reads(root, trials, programs, tmp_path, capsys):
    trial, out = trials["perturbed_vae"].spec.trial_id, tmp_path / "programs"
    command = ["programs", trial, "--root", str(root), "--out", str(out), "--top", "3", "--edge", "0.001"]
    assert cli.main(command) == 0
    assert "top_genes.csv" in capsys.readouterr().out
    loadings = pd.read_csv(out / "loadings_perturbed.csv", index_col="gene")
    assert (tuple(loadings.index), tuple(loadings.columns)) == (programs.genes, programs.latents)
    np.testing.assert_allclose(loadings.to_numpy().T, programs.perturbed, rtol=1e-4, atol=1e-6)
    top = pd.read_csv(out / "top_genes.csv")
    for (latent, cells, direction), genes in top.groupby(["latent", "cells", "direction"]):
        column = pd.read_csv(out / f"loadings_{cells}.csv", index_col="gene")[latent]
        largest = column.nlargest(3) if direction == "up" else column.nsmallest(3)
        assert list(genes["gene"]) == list(largest.index[largest != 0][: len(genes)])
        assert (np.sign(genes["change_per_sd"]) == (1 if direction == "up" else -1)).all()
    effects = pd.read_csv(out / "effects.csv").pivot(index="perturbation", columns="latent", values="shift_sd")
    np.testing.assert_allclose(effects.loc[list(programs.perturbations)], programs.shifts, rtol=1e-4, atol=1e-6)
    graph = pd.read_csv(out / "graph.csv")
    assert list(graph.columns) == ["from", "to", "weight", "threshold"]
    assert len(graph) == int((np.abs(programs.graph) >= 0.001).sum())
    about = json.loads((out / "about.json").read_text())
    assert (about["trial_id"], about["units"], about["edge_threshold"]) == (trial, "log(1 + counts per 10,000)", 0.001)
    with Image.open(out / "graph.png") as picture:
        assert picture.width > 1000
    assert ElementTree.parse(out / "graph.svg").getroot().tag.endswith("svg")
    assert cli.main(command) == 2
    assert "is there already" in capsys.readouterr().err


def test_images_have_no_genes(trials):
    class Data:
        frame_shape = (3, 8, 8)

    class Fitted:
        model, data, spec = trials["beta_vae"].model, Data(), trials["beta_vae"].spec

    with pytest.raises(UserError, match="pixels are no genes"):
        programs_of(Fitted())


def test_a_folder_that_is_there_is_kept(root, trials, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="is there already"):
        write_programs(trials["beta_vae"].spec.trial_id, tmp_path / "mine", root=root)


def test_an_interruption_leaves_no_half_written_folder(root, trials, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(programs_figure, "draw_programs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_programs(trials["beta_vae"].spec.trial_id, tmp_path / "mine", root=root)
    assert list(tmp_path.iterdir()) == []
    files = write_programs(trials["beta_vae"].spec.trial_id, tmp_path / "mine", root=root)
    assert sorted(files) == sorted((tmp_path / "mine").iterdir())


def structured(programs, **changes):
    return type(programs)(**{**programs.__dict__, **changes})


def test_the_drawing_shows_what_acts_and_the_strongest_first(programs, tmp_path, monkeypatch):
    targets = np.array([[1.0, 0.0], [0.9, 0.2], [0.0, 0.6]])
    shifts = np.array([[0.5, 3.0], [-2.0, 0.0], [0.1, -1.0]])
    graph = np.array([[0.0, 0.0], [-0.4, 0.0]])
    mine = structured(programs, targets=targets, shifts=shifts, graph=graph)
    first, second, third = programs.perturbations
    assert acting_on(mine, 0) == [f"{second} −", f"{first} +"]
    assert acting_on(mine, 1) == [f"{third} −"]
    assert acting_on(structured(mine, targets=None), 1) == [f"{first} +", f"{third} −"]
    assert list(shown_edges(mine, [0, 1], 0.25)) == [(0, 1, -0.4)]
    assert list(shown_edges(mine, [0, 1], 0.5)) == []
    draw_programs(mine, tmp_path, title="a $title$")
    text = (tmp_path / "graph.svg").read_text()
    assert first in text
    assert "a $title$" in text
    assert str(programs.genes[int(np.argmax(programs.control[0]))]) in text
    monkeypatch.setattr(programs_figure, "MOST_LATENTS", 1)
    assert shown_latents(structured(mine, graph=None)) == [0]


def test_a_drawing_without_edges_says_so(programs, tmp_path):
    for graph, said, unsaid in (
        ([[0.0, 0.0], [-0.4, 0.0]], "Arcs: edges of at least 0.25 sd per sd, blue", "No arcs"),
        (
            [[0.0, 0.0], [-0.1, 0.0]],
            "No arcs: between these latents no edge of at least 0.25 sd per sd was learned; the strongest has 0.1.",
            "blue",
        ),
        ([[0.0, 0.0], [0.0, 0.0]], "No arcs: between these latents no edge of at least 0.25 sd per sd was le", "blue"),
        (None, "No arcs: this model has no graph.", "blue"),
    ):
        draw_programs(structured(programs, graph=None if graph is None else np.array(graph)), tmp_path)
        text = (tmp_path / "graph.svg").read_text()
        assert said in text
        assert unsaid not in text
