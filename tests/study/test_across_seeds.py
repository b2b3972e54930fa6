"""Agreement between the seeds of a cell: known limits, what has none, and where it is shown."""

import csv
import io

import numpy as np
import pytest
from report_samples import fill, latents, planned, study, write_result
from scipy.optimize import linear_sum_assignment

from harness.evaluation.identifiability import mcc
from harness.study.across_seeds import agreement, agreements
from harness.study.columns import GRAPH_STABILITY, MCC_ACROSS_SEEDS, TARGET_STABILITY
from harness.study.report import write_report


def kept(responsive, **other):
    return {"responsive": responsive, "condition": np.arange(len(responsive)) % 3, **other}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_same_latents_in_another_order_sign_and_scale_agree_entirely(rng):
    first = rng.standard_normal((100, 4))
    second = first[:, [2, 0, 3, 1]] * [-1, 2, 0.1, -5] + 3
    assert agreement([kept(first), kept(second)]) == pytest.approx(1)


def test_noise_lowers_agreement_to_the_correlation(rng):
    shared = rng.standard_normal((20000, 2))
    noisy = [shared + 0.5 * rng.standard_normal(shared.shape) for _ in range(3)]
    # corr(s + e, s + e') = 1 / (1 + 0.25)
    assert agreement([kept(one) for one in noisy]) == pytest.approx(0.8, abs=0.01)


def test_it_is_the_mean_over_pairs_of_both_directions(rng):
    blocks = [rng.standard_normal((60, 3)) for _ in range(3)]
    ordered = [mcc(a, b, seed=0) for a in blocks for b in blocks if a is not b]
    assert agreement([kept(one) for one in blocks]) == pytest.approx(np.mean(ordered))


@pytest.mark.parametrize(
    "second",
    [
        lambda block: kept(block[:50]),
        lambda block: kept(block) | {"condition": np.zeros(len(block))},
        lambda block: kept(block, responsive_true=block),
        lambda block: kept(np.where(block == block[0, 0], np.nan, block)),
        lambda block: {"condition": np.arange(len(block)) % 3},
    ],
    ids=["rows", "conditions", "truth", "nan", "nothing"],
)
def test_what_cannot_be_compared_has_no_agreement(rng, second):
    block = rng.standard_normal((60, 3))
    assert agreement([kept(block), second(block)]) is None


def test_one_seed_few_rows_or_no_latent_have_none(rng):
    assert agreement([kept(rng.standard_normal((60, 3)))]) is None
    assert agreement([kept(rng.standard_normal((5, 3)))] * 2) is None
    assert agreement([kept(np.zeros((60, 0)))] * 2) is None


def with_latents(folder, plan, **changes):
    for trial in plan.trials:
        latents(folder.trial(trial.trial_id).latents, **changes)


def table(folder):
    rows = csv.DictReader(io.StringIO((folder.report / "table.csv").read_text()))
    return [row for row in rows if row["metric"] == MCC_ACROSS_SEEDS]


def test_only_finished_and_readable_trials_are_compared(folder):
    plan = planned(study())
    first, second, third = (folder.trial(trial.trial_id) for trial in plan.points[0].trials)
    for trial, ended in ((first, 10.0), (second, 30.0), (third, 20.0)):
        latents(trial.latents)
        write_result(folder, trial.trial_id, ended=ended)
    (found,) = agreements(folder, plan.points)
    assert (found.cell, found.trial_id) == (plan.points[0].cell, first.trial_id)
    assert (found.value, found.trials, found.time) == (pytest.approx(1), 3, 30.0)
    second.latents.write_bytes(third.latents.read_bytes()[:900])
    (found,) = agreements(folder, plan.points)
    assert (found.trials, found.time) == (2, 20.0)
    write_result(folder, third.trial_id, state="failed")
    assert agreements(folder, plan.points) == []


def test_it_stands_in_the_tables_the_page_and_the_csv(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points)
    with_latents(folder, plan)
    report = write_report(folder, spec, plan, width=200)
    assert len(report.agreements) == len(plan.points)
    values = {one.cell: (one.value, "", "1", "3") for one in report.agreements}
    assert {row["cell"]: (float(row["mean"]), row["low"], row["n"], row["finished"]) for row in table(folder)} == values
    assert "MCC between seeds: how far" in report.text
    page = (folder.report / "index.html").read_text()
    assert '<th scope="col">MCC between seeds</th>' in page


def test_a_narrow_terminal_does_without_it(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points)
    with_latents(folder, plan)
    wide = write_report(folder, spec, plan, width=200).text
    heads = wide.split("PerturbedVAE")[0]
    assert "between" in heads
    text = write_report(folder, spec, plan, width=75).text
    assert "between" not in text.split("PerturbedVAE")[0]
    assert "1.00" not in text


def test_data_of_its_own_for_each_seed_leaves_nothing_to_compare(folder):
    spec = study(data={"kind": "simulation", "seed": "per_trial"})
    plan = planned(spec)
    fill(folder, plan.points)
    with_latents(folder, plan)
    assert write_report(folder, spec, plan).agreements == ()


def test_real_data_without_truth_have_it_too(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points, truth=False)
    for trial in plan.trials:
        block = np.random.default_rng(trial.seed).standard_normal((50, 3))
        np.savez(folder.trial(trial.trial_id).latents, **kept(block))
    report = write_report(folder, spec, plan, width=200)
    assert {one.trials for one in report.agreements} == {3}
    assert "MCC between seeds" in (folder.report / "table.md").read_text()


def test_latents_are_matched_on_other_cells_than_they_are_scored_on(rng):
    # with as many latents as here, a match scored on its own cells finds correlations that are not there
    blocks = [rng.standard_normal((60, 20)) for _ in range(2)]
    on_half = np.abs(np.corrcoef(blocks[0][:30], blocks[1][:30], rowvar=False)[:20, 20:])
    rows, columns = linear_sum_assignment(-on_half)
    found = agreement([kept(one) for one in blocks])
    # of independent normals the mean of |r| over 30 cells is about √(2 / (29 π)) = 0.15
    assert on_half[rows, columns].mean() > 0.3
    assert found == pytest.approx(0.15, abs=0.04)


def structured(folder, plan, **changes):
    """Latents of each trial as the first one's in another order, and its graph and targets with them."""
    rng = np.random.default_rng(0)
    block, graph = rng.standard_normal((60, 3)), np.array([[0, 0, 0], [0.9, 0, 0], [0, 0.9, 0]])
    targets = np.array([[1.0, 0, 0], [0, 0, 1.0]])
    for point in plan.points:
        for trial, order in zip(point.trials, ([0, 1, 2], [2, 0, 1], [1, 2, 0]), strict=True):
            arrays = kept(block[:, order], graph=graph[np.ix_(order, order)], targets=targets[:, order])
            arrays |= {"perturbations": np.array(["KLF1", "SET"])} | changes
            np.savez(folder.trial(trial.trial_id).latents, **arrays)


def rows_of(folder, name):
    return list(csv.DictReader(io.StringIO((folder.report / name).read_text())))


def test_the_graph_and_targets_of_the_seeds_are_compared_and_listed(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points)
    structured(folder, plan)
    report = write_report(folder, spec, plan, width=300)
    for one in report.agreements:
        assert one.structure == {
            GRAPH_STABILITY: 1.0,
            f"{GRAPH_STABILITY}_chance": pytest.approx(2 / 6),
            TARGET_STABILITY: 1.0,
            f"{TARGET_STABILITY}_chance": pytest.approx(1 / 3),
        }
        assert one.scores == {MCC_ACROSS_SEEDS: one.value, **one.structure}
    cell = plan.points[0].cell
    edges = [row for row in rows_of(folder, "edges_across_seeds.csv") if row["cell"] == cell]
    found = {(row["from"], row["to"]): (row["frequency"], row["same_sign"], row["trials"]) for row in edges}
    first = plan.points[0].trials[0].trial_id
    assert {row["named_by"] for row in edges} == {first}
    assert found == {
        ("responsive_1", "responsive_2"): ("1.0", "1.0", "3"),
        ("responsive_2", "responsive_3"): ("1.0", "1.0", "3"),
    }
    targets = [row for row in rows_of(folder, "targets_across_seeds.csv") if row["cell"] == cell]
    assert {(row["perturbation"], row["latent"], row["frequency"]) for row in targets} == {
        ("KLF1", "responsive_1", "1.0"),
        ("SET", "responsive_3", "1.0"),
    }
    assert {folder.report / "edges_across_seeds.csv", folder.report / "targets_across_seeds.csv"} <= set(report.files)
    assert "Graph and targets between seeds: F1" in (folder.report / "table.md").read_text()
    assert {row["mean"] for row in metric_rows(folder, GRAPH_STABILITY)} == {"1.0"}


def metric_rows(folder, metric):
    return [row for row in rows_of(folder, "table.csv") if row["metric"] == metric]


def test_structure_that_not_all_seeds_kept_alike_is_not_compared(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points)
    structured(folder, plan)
    for point in plan.points:
        path = folder.trial(point.trials[1].trial_id).latents
        arrays = dict(np.load(path))
        np.savez(path, **{name: value for name, value in arrays.items() if name != "graph"})
    report = write_report(folder, spec, plan)
    assert {tuple(one.structure) for one in report.agreements} == {()}
    assert len(report.agreements) == len(plan.points)
    assert not (folder.report / "edges_across_seeds.csv").exists()
