"""The helps of a trial, from its spec."""

import pytest

from harness.data_spec import Causal3DIdentData, PerturbseqData, SimulationData, TemporalCausal3DIdentData
from harness.helps import Help, footnotes, helps_of, tags, united, words
from harness.model_spec import BetaVAESpec, CiteVAESpec, DiscrepancyVAESpec, PerturbedVAESpec, SupervisedSpec
from harness.trial_spec import TrialSpec

PLAIN = SimulationData(pairs="random")  # 4 responsive and 7 invariant latents
TWINS = SimulationData()
TIMES = SimulationData(process={"steps": 2, "lagged": "diagonal"})
SEVERAL = SimulationData(pairs="random", process={"targets_per_perturbation": 2})
COUNTS, FILE = PerturbseqData(), PerturbseqData(path="cells.h5ad")
NATIVE = Causal3DIdentData(pairs="random")  # 7 responsive and 3 invariant latents
DRAWN = {"responsive": ("x", "y"), "invariant": ("z",), "pairs": "random"}
DRAWN |= {"process": {"kind": "linear_gaussian", "responsive": 2, "invariant": 1}}
CITRIS = TemporalCausal3DIdentData(invariant=("spotlight",), process={"kind": "citris", "grouped": True})
FREE = {"mechanisms": "free", "latent_dim": 20, "responsive_dim": 10}
TOLD = {"latent_dim": 20, "responsive_dim": 10}
LEARNED = {**TOLD, "targets": "learned"}


def found(model, data, *, selected=False):
    return helps_of(TrialSpec(model=model, data=data, data_fingerprint="0"), selected=selected)


def named(model, data):
    return {one.word: one.details for one in found(model, data)}


@pytest.mark.parametrize(
    ("model", "data", "told"),
    [
        (PerturbedVAESpec(**TOLD), PLAIN, True),
        (PerturbedVAESpec(**TOLD, targets="known"), PLAIN, True),
        (CiteVAESpec(**TOLD, targets="known_unordered"), PLAIN, True),
        (PerturbedVAESpec(**TOLD), COUNTS, True),
        (PerturbedVAESpec(**TOLD), NATIVE, True),
        (PerturbedVAESpec(**TOLD), FILE, False),
        (PerturbedVAESpec(**LEARNED), PLAIN, False),
        (PerturbedVAESpec(**FREE), PLAIN, False),
        (BetaVAESpec(latent_dim=20), PLAIN, False),
        (DiscrepancyVAESpec(latent_dim=20), PLAIN, False),
    ],
)
def test_a_model_may_be_told_the_targets(model, data, told):
    assert ("targets" in named(model, data)) == told


@pytest.mark.parametrize(
    ("model", "data", "kinds"),
    [
        (PerturbedVAESpec(**FREE), TWINS, ("twins",)),
        (PerturbedVAESpec(**FREE, pairing="true"), TWINS, ("twins",)),
        (DiscrepancyVAESpec(latent_dim=20), TWINS, ("twins",)),
        (CiteVAESpec(**FREE), PerturbseqData(pairs=True), ("twins",)),
        (CiteVAESpec(**FREE), Causal3DIdentData(), ("twins",)),
        (CiteVAESpec(**FREE), TIMES, ("over time",)),
        (PerturbedVAESpec(**FREE), CITRIS, ("over time",)),
        (PerturbedVAESpec(**FREE), PerturbseqData(process={"steps": 3, "lagged": "dense"}), ("over time",)),
        (PerturbedVAESpec(**FREE, pairing="random"), TWINS, None),
        (PerturbedVAESpec(**FREE, pairing="ot"), TWINS, None),
        (PerturbedVAESpec(**FREE, pairing="none"), TWINS, None),
        (PerturbedVAESpec(**FREE), PLAIN, None),
        (PerturbedVAESpec(**FREE), SimulationData(pairs="none"), None),
        (PerturbedVAESpec(**FREE), COUNTS, None),
        (PerturbedVAESpec(**FREE), FILE, None),
        (BetaVAESpec(latent_dim=20), TWINS, None),
        (BetaVAESpec(latent_dim=20), CITRIS, None),
        (SupervisedSpec(), TWINS, None),
    ],
)
def test_a_model_may_have_true_pairs(model, data, kinds):
    assert named(model, data).get("pairs") == kinds


@pytest.mark.parametrize(
    ("model", "data", "fields"),
    [
        (PerturbedVAESpec(latent_dim=11, responsive_dim=4), PLAIN, ("responsive_dim", "latent_dim")),
        (PerturbedVAESpec(latent_dim=16, responsive_dim=0.25), PLAIN, ("responsive_dim",)),
        (PerturbedVAESpec(latent_dim=12, responsive_dim=5, input_pca=11), PLAIN, ("input_pca",)),
        (BetaVAESpec(latent_dim=11), COUNTS, ("latent_dim",)),
        (DiscrepancyVAESpec(latent_dim=11), PLAIN, ("latent_dim",)),
        (SupervisedSpec(input_pca=11), PLAIN, ("input_pca",)),
        (PerturbedVAESpec(**LEARNED), PLAIN, ("targets_per_perturbation",)),
        (PerturbedVAESpec(**LEARNED), NATIVE, ("targets_per_perturbation",)),
        (PerturbedVAESpec(**LEARNED, targets_per_perturbation=2), SEVERAL, ("targets_per_perturbation",)),
        (PerturbedVAESpec(**LEARNED, targets_per_perturbation=3), CITRIS, ("targets_per_perturbation",)),
        (PerturbedVAESpec(**LEARNED), CITRIS, None),
        (PerturbedVAESpec(**LEARNED), SEVERAL, None),
        (PerturbedVAESpec(**TOLD), PLAIN, None),
        (PerturbedVAESpec(**LEARNED), FILE, None),
        (PerturbedVAESpec(latent_dim=11, responsive_dim=4, input_pca=11), FILE, None),
        (PerturbedVAESpec(latent_dim=10, responsive_dim=7), NATIVE, ("responsive_dim", "latent_dim")),
        (BetaVAESpec(latent_dim=9), CITRIS, ("latent_dim",)),
        (BetaVAESpec(latent_dim=11), NATIVE, None),
    ],
)
def test_a_model_may_have_the_true_sizes(model, data, fields):
    assert named(model, data).get("sizes") == fields


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (Causal3DIdentData(**DRAWN, squash=8), ("8",)),
        (Causal3DIdentData(**DRAWN, squash=2.5), ("2.5",)),
        (Causal3DIdentData(**DRAWN), None),
        (Causal3DIdentData(**DRAWN, squash=1), None),
        (Causal3DIdentData(pairs="random", squash=8), None),  # its own graph has no latents to squash
        (PLAIN, None),
    ],
)
def test_latents_may_move_the_picture_gently(data, value):
    for model in (BetaVAESpec(latent_dim=20), SupervisedSpec()):
        assert named(model, data).get("squash") == value


def test_a_supervised_model_is_told_the_latents_and_another_is_not():
    assert named(SupervisedSpec(), PLAIN) == {"latents": ()}
    assert named(BetaVAESpec(latent_dim=20), PLAIN) == {}


def test_a_study_that_selects_by_truth_helps_every_trial():
    for model, data in ((BetaVAESpec(latent_dim=20), PLAIN), (PerturbedVAESpec(**FREE), FILE)):
        assert words(found(model, data, selected=True)) == "selection"
        assert words(found(model, data, selected=False)) == "none"


def test_helps_are_tags_of_their_own_and_one_of_words():
    helps = found(PerturbedVAESpec(input_pca=11), Causal3DIdentData(**{**DRAWN, "pairs": "true"}, squash=8))
    helps += (Help("selection"),)
    assert tags(helps) == {
        "helps": "targets, pairs, squash, selection",
        "oracle_targets": "true",
        "oracle_pairs": "true",
        "oracle_squash": "8",
        "oracle_selection": "true",
    }
    assert tags([Help("sizes", ("latent_dim", "input_pca"))])["oracle_sizes"] == "latent_dim, input_pca"
    assert tags([]) == {"helps": "none"}


def test_helps_of_several_trials_are_each_named_once_with_all_they_say():
    first = [Help("selection"), Help("sizes", ("input_pca",)), Help("pairs", ("over time",)), Help("squash", ("10",))]
    second = [Help("sizes", ("responsive_dim", "input_pca")), Help("pairs", ("twins",)), Help("squash", ("8",))]
    assert united([*first, *second]) == (
        Help("pairs", ("twins", "over time")),
        Help("sizes", ("responsive_dim", "input_pca")),
        Help("squash", ("8", "10")),
        Help("selection"),
    )


def test_each_help_has_one_footnote_in_plain_words():
    every = [Help("targets"), Help("pairs", ("twins",)), Help("pairs", ("over time",)), Help("sizes", ("latent_dim",))]
    every += [Help("squash", ("8",)), Help("latents"), Help("selection"), Help("targets")]
    lines = footnotes(every)
    heads = [f"Help {word}:" for word in ("targets", "pairs", "sizes", "squash", "latents", "selection")]
    assert [next(head for head in heads if line.startswith(head)) for line in lines] == heads
    assert all("user with her own cells" in line for line in lines)
    assert "beside its twin" in lines[1]
    assert ". Elsewhere the model follows the same cell over time" in lines[1]
    assert "(latent_dim)" in lines[2]
    assert "squash 8 instead of 2" in lines[3]
