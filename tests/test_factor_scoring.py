"""Scores of named latents under their names: of images always, beside the untrained encoder's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.batch import PerturbationData, Truth
from harness.data.fingerprint import fingerprint
from harness.data.simulation import build
from harness.data_spec import SimulationData
from harness.errors import UserError
from harness.factor_scoring import ceiling_scores, check_published_r2, published_scores, whole_scores
from harness.model_spec import SupervisedSpec
from harness.models import Latents
from harness.models.supervised import Supervised
from harness.scoring import score_identifiability, score_ood
from harness.training.supervision import regression_targets
from harness.trial import run_trial
from harness.trial_spec import EvaluateSpec, TrainSpec, TrialSpec

NAMES_V, NAMES_I = ("x", "alpha"), ("hue",)


def images(cells=400, classes=2, size=8):
    """Images that hold no latents (scores read the latents alone): x, an angle, and a hue that is an angle too."""
    random = torch.Generator().manual_seed(0)
    m = 2 * cells
    position = torch.rand(m, 1, generator=random) * 2 - 1
    angles = torch.rand(m, 2, generator=random) * 2 * torch.pi
    index = torch.arange(m).reshape(cells, 2)
    rows = torch.arange(cells)
    some = cells // 4
    kind = torch.randint(classes, (cells,), generator=random).repeat_interleave(2)
    return PerturbationData(
        frames=torch.randint(256, (m, 3, size, size), generator=random).to(torch.uint8),
        index=index,
        u=torch.zeros(cells, 1),
        condition=torch.zeros(cells, dtype=torch.int64),
        conditions=("control", "x"),
        perturbations=("x",),
        splits={"train": rows[:some], "validation": rows[some : some + 10], "test": rows[some + 10 :]},
        ood=(),
        pairs="true",
        fingerprint="images",
        truth=Truth(
            torch.cat([position, angles[:, :1]], 1), angles[:, 1:], NAMES_V, NAMES_I, ("alpha", "hue"), classes=kind
        ),
    )


def said(data, *, noise=0.0):
    """What a perfect regressor says of the test frames, disturbed or not."""
    frames = data.index[data.splits["test"]][:, -1]
    random = torch.Generator().manual_seed(1)
    parts = (part[frames] for part in regression_targets(data.truth))
    return Latents(*(part + noise * torch.randn(part.shape, generator=random) for part in parts))


@pytest.fixture(scope="module")
def data():
    return images()


def test_angles_are_learned_as_points_of_the_circle(data):
    responsive, invariant = regression_targets(data.truth)
    torch.testing.assert_close(
        responsive, torch.stack([data.truth.responsive[:, 0], *_circle(data.truth.responsive[:, 1])], dim=1)
    )
    torch.testing.assert_close(invariant, torch.stack(_circle(data.truth.invariant[:, 0]), dim=1))


def _circle(angle):
    return [angle.cos(), angle.sin()]


def test_every_latent_of_an_image_has_its_scores_beside_the_untrained_ones(data):
    found = score_identifiability(data, said(data), said(data, noise=2.0), None, 0).metrics
    for name in (*NAMES_V, *NAMES_I):
        for score in ("r2", "r2_linear", "pearson", "spearman"):
            trained, before = (found[f"identifiability/factor/{name}/{score}{end}"] for end in ("", "_untrained"))
            assert trained > 0.85
            assert before < 0.75
            assert before < trained
        assert found[f"identifiability/factor/{name}/leakage"] < 0.2
    of_block = [found[f"identifiability/factor/{name}/r2"] for name in NAMES_V]
    assert np.mean(of_block) == pytest.approx(found["identifiability/r2_responsive"])
    matched = [found[f"identifiability/factor/{name}/pearson"] for name in NAMES_V]
    assert np.mean(matched) == pytest.approx(found["identifiability/mcc"])
    assert found["identifiability/factor/hue/r2_linear"] == pytest.approx(found["identifiability/r2_invariant_linear"])


def test_all_latents_together_have_their_scores_beside_the_untrained_ones(data):
    found = whole_scores(data, said(data), said(data, noise=2.0), 0)
    for name, better in (
        ("citris/r2_diagonal", 1),
        ("citris/spearman_diagonal", 1),
        ("dci/disentanglement", 1),
        ("dci/informativeness", 1),
    ):
        assert better * (found[f"identifiability/{name}"] - found[f"identifiability/{name}_untrained"]) > 0.1
    assert found["identifiability/citris/r2_diagonal"] > 0.95
    assert {f"{name}_untrained" for name in found if not name.endswith(("_untrained", "_majority"))} <= set(found)


def test_the_class_is_read_from_both_blocks(data):
    frames = data.index[data.splits["test"]][:, -1]
    latents = said(data)
    sign = 2.0 * data.truth.classes[frames, None] - 1.0
    telling = Latents(latents.responsive, torch.cat([latents.invariant, sign], dim=1))
    found = whole_scores(data, telling, latents, 0)
    assert found["identifiability/class_accuracy"] == 1.0
    assert found["identifiability/class_accuracy_untrained"] < 0.65
    assert 0.4 < found["identifiability/class_accuracy_majority"] < 0.6
    one = replace(data, truth=replace(data.truth, classes=torch.zeros_like(data.truth.classes)))
    assert not any("class" in name for name in whole_scores(one, latents, latents, 0))


def test_a_model_without_blocks_counts_its_latents_once(data):
    both = torch.cat(said(data), dim=1)
    found = whole_scores(data, Latents(both, both), said(data), 0)
    assert found["identifiability/dci/completeness"] == found["identifiability/dci/completeness_untrained"]


def test_the_ceiling_is_what_is_said_itself(data):
    latents = said(data, noise=0.3)
    found = ceiling_scores(data, latents, said(data, noise=3.0))
    frames = data.index[data.splits["test"]][:, -1]
    position = data.truth.responsive[frames, 0]
    for rows, end in ((slice(None), ""), *((data.truth.classes[frames] == c, f"_class_{c}") for c in (0, 1))):
        true, guess = position[rows], latents.responsive[rows, 0]
        expected = 1 - (true - guess).square().sum() / (true - true.mean()).square().sum()
        assert found[f"identifiability/ceiling/x/r2{end}"] == pytest.approx(expected.item(), abs=1e-6)
    # cosine and sine, of variance 1/2 each, with noise of variance 0.09 on both
    assert found["identifiability/ceiling/hue/r2"] == pytest.approx(1 - 0.09 / 0.5, abs=0.05)
    each = [found[f"identifiability/ceiling/{name}/r2"] for name in (*NAMES_V, *NAMES_I)]
    assert found["identifiability/ceiling/r2_worst"] == min(each)
    assert found["identifiability/ceiling/r2_mean"] == pytest.approx(np.mean(each))
    # a regressor fitted on top would mend a wrong scale: the ceiling does not
    doubled = ceiling_scores(data, Latents(2 * latents.responsive, latents.invariant), latents)
    assert doubled["identifiability/ceiling/x/r2"] < 0.1
    assert found["identifiability/ceiling/x/r2_untrained"] < 0


def test_data_may_have_no_invariant_latent(data):
    m = len(data.frames)
    blind = replace(
        data, truth=Truth(data.truth.responsive, torch.zeros(m, 0), NAMES_V, (), ("alpha",), classes=data.truth.classes)
    )
    assert regression_targets(blind.truth)[1].shape == (m, 0)
    found = ceiling_scores(blind, said(blind), said(blind, noise=3.0))
    assert found["identifiability/ceiling/r2_worst"] == pytest.approx(1.0)
    assert "identifiability/ceiling/hue/r2" not in found


def test_simulated_latents_are_scored_by_block_alone():
    spec = SimulationData(preset="tiny")
    data = build(spec, fingerprint(spec), Path())
    found = score_identifiability(data, said(data), said(data, noise=1.0), None, 0).metrics
    assert not any(name.split("/")[1] in ("factor", "citris", "dci") for name in found)
    assert found["identifiability/r2_linear"] > found["identifiability/r2_linear_untrained"]


def test_published_scores_have_their_names(data, monkeypatch):
    sizes = []

    def few(learned, factors, *, seed):
        sizes.append((learned.shape[1], [factor.shape[1] for factor in factors]))
        return [(0.5, 0.25 * k) for k in range(len(factors))]

    from harness import factor_scoring
    from harness.evaluation.published_r2 import PublishedR2

    monkeypatch.setattr(
        factor_scoring, "published_r2", lambda *given, seed: [PublishedR2(*pair) for pair in few(*given, seed=seed)]
    )
    found = published_scores(data, said(data), said(data), 0)
    assert sizes == [(3, [1, 2]), (2, [2])] * 2
    assert found["identifiability/factor/alpha/r2_linear_published"] == 0.25
    assert found["identifiability/r2_linear_responsive_published"] == 0.125
    assert found["identifiability/r2_invariant_published_untrained"] == 0.5


def test_published_sizes_need_their_rows(data, tmp_path):
    with pytest.raises(UserError, match=r"needs 12,288 test cells, and these data have 290; give more"):
        check_published_r2(data)
    with pytest.raises(UserError, match="no true latents"):
        check_published_r2(replace(data, truth=None))
    with pytest.raises(ValueError, match="set identifiability: true"):
        EvaluateSpec(published_r2=True, identifiability=False)
    spec = SimulationData(preset="tiny")
    trial = TrialSpec(
        model=SupervisedSpec(hidden=8),
        data=spec,
        evaluate=EvaluateSpec(published_r2=True),
        data_fingerprint=fingerprint(spec),
    )
    result = run_trial(trial, tmp_path / "t")
    assert result.state == "failed"
    assert result.epochs == 0  # refused before it trains
    assert "needs 12,288 test cells" in result.failure["reason"]


def test_a_supervised_trial_ends_with_a_ceiling_and_says_why_it_predicts_nothing(tmp_path):
    spec = SimulationData(preset="tiny")
    trial = TrialSpec(
        model=SupervisedSpec(hidden=16), data=spec, train=TrainSpec(epochs=20), data_fingerprint=fingerprint(spec)
    )
    result = run_trial(trial, tmp_path / "t")
    assert result.state == "finished", result.failure
    for name in ("v1", "v2", "i1", "i2"):
        assert result.metrics[f"identifiability/ceiling/{name}/r2"] > 0.5
        assert result.metrics[f"identifiability/ceiling/{name}/r2_untrained"] < 0.1
    # its loss is an error in units of variance: what validation cells leave, and test cells too, more or less
    assert 1 - result.metrics["validation/loss"] == pytest.approx(
        result.metrics["identifiability/ceiling/r2_mean"], abs=0.1
    )
    assert not any(name.startswith("ood/") for name in result.metrics)
    assert not result.baselines
    assert set(result.data["excluded"]) == {name for name in result.data["excluded"] if "+" in name} != set()
    assert set(result.data["excluded"].values()) == {"a supervised model has no decoder and predicts no cells"}


def test_a_killed_supervised_trial_resumes_to_the_same_numbers(tmp_path):
    class Killed(BaseException):
        pass

    def die(epoch):
        if epoch == 2:
            raise Killed

    spec = SimulationData(preset="tiny")
    trial = TrialSpec(
        model=SupervisedSpec(hidden=8),
        data=spec,
        train=TrainSpec(epochs=3, checkpoint_seconds=0),
        data_fingerprint=fingerprint(spec),
    )
    with pytest.raises(Killed):
        run_trial(trial, tmp_path / "torn", on_epoch=die)
    whole, torn = (run_trial(trial, tmp_path / name).metrics for name in ("whole", "torn"))
    assert {k: v for k, v in whole.items() if k[:5] != "time/"} == {k: v for k, v in torn.items() if k[:5] != "time/"}


def test_times_held_out_of_training_are_excluded_by_condition_too():
    spec = SimulationData(preset="tiny", process={"lagged": "diagonal", "steps": 3, "held_out_steps": 1})
    data = build(spec, fingerprint(spec), Path())
    model = Supervised((20,), _networks(), columns=(2, 2))
    found = score_ood(model, data, said(data), 40, 0)
    assert not found.metrics
    assert "control" not in found.excluded
    assert {"v1", "v1+v2"} <= set(found.excluded)


def _networks():
    from harness.models import Networks

    return Networks(hidden=8, layers=1, network="mlp", input_pca=None, input_whiten=True, likelihood_variance=1.0)
