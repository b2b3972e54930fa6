"""What a study file may say about data, and what it is told where it may not."""

import pytest
from pydantic import ValidationError

from harness.data_spec import PerturbseqData, SimulationData
from harness.process_spec import PROCESS_PRESETS, LinearGaussianSpec


@pytest.mark.parametrize(
    ("preset", "knobs"),
    [
        ("targeted", {}),
        ("edge_free", {"edge_density": 0.0}),
        ("soft", {"intervention": "soft"}),
        ("uncut", {"intervention": "none"}),
        ("redrawn", {"background": "redrawn"}),
        ("untargeted_pair", {"untargeted": 2}),
        (None, {}),
    ],
)
def test_a_preset_sets_knobs(preset, knobs):
    found = LinearGaussianSpec(preset=preset).model_dump()
    assert found == {**LinearGaussianSpec(**knobs).model_dump(), "preset": preset}
    again = LinearGaussianSpec.model_validate_json(LinearGaussianSpec(preset=preset).model_dump_json())
    assert again.model_dump() == found


def test_every_preset_can_be_named():
    assert {LinearGaussianSpec(preset=name).preset for name in PROCESS_PRESETS} == set(PROCESS_PRESETS)


def test_explicit_knobs_win():
    assert LinearGaussianSpec(preset="soft", intervention="none").intervention == "none"
    assert LinearGaussianSpec(preset="soft", edge_density=0.5).edge_density == 0.5


def test_presets_of_sizes_and_process_go_together():
    spec = SimulationData.model_validate({"preset": "published_sizes", "process": {"preset": "untargeted_pair"}})
    assert (spec.features, spec.process.responsive, spec.process.invariant) == (500, 4, 7)
    assert spec.process.untargeted == 2
    alone = SimulationData.model_validate({"process": {"preset": "soft"}})
    assert alone.process.intervention == "soft"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"untargeted": 4}, "untargeted 4 leaves none of 4 responsive latents to act on"),
        ({"untargeted": 1, "targets_per_perturbation": 4}, "is more than the 3 responsive latents"),
        ({"targets_per_perturbation": 5}, "is more than the 4 responsive latents"),
        ({"steps": 2}, "steps > 1 needs lagged"),
        ({"held_out_steps": 1}, r"leaves no step to train on; give less than steps \(1\)"),
        ({"steps": 3, "lagged": "nonlinear", "held_out_steps": 3}, "leaves no step"),
        ({"preset": "sofd"}, "preset"),
        ({"preset": ["soft"]}, "preset"),
        ({"interaction": -1.0}, "interaction"),
        ({"mean_shift": (2.0, 1.0)}, "mean_shift is"),
    ],
)
def test_impossible_processes_are_refused(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        LinearGaussianSpec(**fields)


@pytest.mark.parametrize("kind", [SimulationData, PerturbseqData])
def test_pairs_are_words(kind):
    assert [kind(pairs=given).pairs for given in (True, "true", "random", "none", None)] == [
        "true",
        "true",
        "random",
        "none",
        "none",
    ]
    with pytest.raises(ValidationError, match="pairs"):
        kind(pairs="sometimes")


def test_only_simulated_cells_that_an_assay_would_destroy_have_no_twins_by_default():
    assert SimulationData().pairs == "true"
    assert PerturbseqData().pairs == "random"
    assert PerturbseqData(process={"responsive": 3, "steps": 1}).pairs == "random"
    assert PerturbseqData(pairs=True).pairs == "true"
    for process in ({"steps": 2, "lagged": "diagonal"}, LinearGaussianSpec(steps=2, lagged="diagonal")):
        spec = PerturbseqData(process=process)
        assert spec.pairs == "true"
        assert PerturbseqData.model_validate_json(spec.model_dump_json()) == spec


def test_a_file_of_cells_has_random_controls_whatever_the_process_says():
    assert PerturbseqData(path="cells.h5ad", process={"steps": 2, "lagged": "diagonal"}).pairs == "random"


@pytest.mark.parametrize("kind", [SimulationData, PerturbseqData])
@pytest.mark.parametrize("pairs", ["random", "none"])
def test_time_courses_keep_their_first_frame(kind, pairs):
    process = LinearGaussianSpec(steps=2, lagged="diagonal")
    assert kind(process=process).pairs == "true"
    with pytest.raises(ValidationError, match=f"pairs: {pairs} would replace the first frame of a time course"):
        kind(process=process, pairs=pairs)


def test_a_file_of_cells_has_no_true_pairs():
    spec = PerturbseqData(path="cells.h5ad")
    assert spec.pairs == "random"
    assert PerturbseqData.model_validate_json(spec.model_dump_json()) == spec
    assert PerturbseqData(path="cells.h5ad", pairs="none").pairs == "none"
    with pytest.raises(ValidationError, match="pairs: true is not possible with a file"):
        PerturbseqData(path="cells.h5ad", pairs=True)
