"""Agreement between the seeds of a cell: known limits, what has none, and where it is shown."""

import csv
import io

import numpy as np
import pytest
from report_samples import fill, latents, planned, study, write_result

from harness.evaluation.identifiability import mcc
from harness.study.across_seeds import agreement, agreements
from harness.study.report import write_report
from harness.study.tables import MCC_ACROSS_SEEDS


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
