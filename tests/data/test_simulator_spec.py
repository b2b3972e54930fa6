import pytest
from pydantic import ValidationError

from harness.data.fingerprint import fingerprint
from harness.data_spec import PerturbseqData
from harness.simulator_spec import PERTURBSEQ_PRESETS, SimulatorSpec


def test_a_preset_sets_counts_and_their_knobs():
    spec = PerturbseqData(preset="realistic")
    preset = PERTURBSEQ_PRESETS["realistic"]
    assert spec.library_size == preset["library_size"]
    assert spec.simulator == SimulatorSpec(**preset["simulator"])
    assert spec.cells == PerturbseqData().cells


def test_other_keys_override_a_preset():
    spec = PerturbseqData(preset="realistic", library_size=900.0, simulator={"library_sd": 0.1})
    assert spec.library_size == 900
    assert spec.simulator.library_sd == 0.1
    assert spec.simulator.baseline == "spread"
    assert PerturbseqData.model_validate_json(spec.model_dump_json()) == spec


def test_an_unknown_preset_is_refused_with_its_field():
    with pytest.raises(ValidationError, match="preset"):
        PerturbseqData(preset="real")


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("loading_density", 0.5),
        ("loading_sd", 0.2),
        ("baseline", "spread"),
        ("baseline_sd", 2.0),
        ("library_sd", 0.1),
        ("dispersion_sd", 0.5),
        ("dispersion_trend", 0.5),
        ("cells_sd", 0.5),
        ("batches", 2),
    ],
)
def test_every_knob_makes_other_data(knob, value):
    assert fingerprint(PerturbseqData(simulator={knob: value})) != fingerprint(PerturbseqData())


def test_a_preset_is_the_fields_it_stands_for():
    assert fingerprint(PerturbseqData(preset="realistic")) == fingerprint(
        PerturbseqData(**PERTURBSEQ_PRESETS["realistic"])
    )


@pytest.mark.parametrize("options", [{"preset": "realistic"}, {"simulator": {"batches": 2}}], ids=["preset", "knob"])
def test_a_file_of_cells_takes_no_knobs_of_the_simulator(options):
    with pytest.raises(ValidationError, match=r"says how counts are simulated.*data\.path names a file"):
        PerturbseqData(path="cells.h5ad", **options)


@pytest.mark.parametrize(
    "knobs", [{"loading_density": 1.5}, {"loading_sd": 0.0}, {"library_sd": -0.1}, {"batches": 0}, {"baseline": "flat"}]
)
def test_impossible_values_are_refused(knobs):
    with pytest.raises(ValidationError, match=next(iter(knobs))):
        SimulatorSpec(**knobs)
