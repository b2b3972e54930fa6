import pytest

from harness.data import load
from harness.data_spec import Causal3DIdentData, PerturbseqData
from harness.data_spec import SimulationData as Simulation
from harness.model_spec import BetaVAESpec, CiteVAESpec, PerturbedVAESpec, SupervisedSpec
from harness.models import build_model
from harness.study.load import load_study
from harness.study.matching import mismatch
from harness.study.plan import check
from harness.training.pairing import Pairing
from harness.trial_spec import EvaluateSpec

STEPS = {"kind": "linear_gaussian", "responsive": 2, "invariant": 2, "steps": 2, "lagged": "diagonal"}
REFUSED = [
    ({"network": "conv"}, {}, "network"),
    ({"input_pca": 21}, {}, "input_pca"),
    ({"mechanisms": "targeted", "responsive_dim": 1}, {}, "responsive_dim"),
    ({"pairing": "random"}, {"process": STEPS}, "pairing"),
    ({"pairing": "ot"}, {"process": STEPS}, "pairing"),
    ({"pairing": "true"}, {"pairs": "random"}, "pairing"),
    ({"pairing": "true"}, {"pairs": "none"}, "pairing"),
]
ALLOWED = [
    ({"network": "mlp", "input_pca": 20}, {}),
    ({"mechanisms": "targeted", "responsive_dim": 2}, {}),
    ({"mechanisms": "free", "responsive_dim": 1}, {}),
    ({"targets": "learned", "responsive_dim": 1}, {}),
    ({"pairing": "random"}, {}),
    ({"pairing": "auto"}, {"process": STEPS}),
    ({"pairing": "auto"}, {"pairs": "none"}),
    ({"pairing": "random"}, {"pairs": "none"}),
]


def made(model, data, tmp_path):
    """What a trial does first: it fails exactly where a mismatch is to be found."""
    cells = load(data, tmp_path)
    fields = model.model_dump() | {"responsive_dim": model.d_v}
    build_model(fields, shape=cells.frame_shape, perturbations=len(cells.perturbations), targets=cells.targets)
    Pairing(cells, model.pairing, 0)


@pytest.mark.parametrize(("model", "data", "field"), REFUSED)
def test_what_a_trial_would_refuse_is_seen_before(model, data, field, tmp_path):
    model = PerturbedVAESpec(latent_dim=4, **{"responsive_dim": 2, **model})
    data = Simulation(preset="tiny", **data)
    found = mismatch(model, data)
    assert (found.part, found.field) == ("model", field)
    with pytest.raises(Exception, match=r"network|input_pca|targets|pairing"):
        made(model, data, tmp_path)


@pytest.mark.parametrize(("model", "data"), ALLOWED)
def test_what_a_trial_takes_is_let_through(model, data, tmp_path):
    model = PerturbedVAESpec(latent_dim=4, **{"responsive_dim": 2, **model})
    data = Simulation(preset="tiny", **data)
    assert mismatch(model, data) is None
    made(model, data, tmp_path)


def test_a_file_of_cells_knows_neither_targets_nor_pairs():
    file, simulated = PerturbseqData(path="cells.h5ad"), PerturbseqData(pairs="true")
    for wrong in ({"targets": "known"}, {"targets": "known_unordered"}, {"pairing": "true"}):
        model = PerturbedVAESpec(**wrong)
        assert mismatch(model, file).field == next(iter(wrong))
        assert mismatch(model, simulated) is None
    for right in ("auto", "learned"):
        assert mismatch(PerturbedVAESpec(targets=right), file) is None
    assert mismatch(PerturbedVAESpec(input_pca=100_000), file) is None  # only the file knows
    assert mismatch(PerturbedVAESpec(input_pca=501), simulated).field == "input_pca"


def test_images_take_convolutions_and_have_colours():
    images = Causal3DIdentData(image_size=8)
    for network in ("conv", "glimpse", "resnet18"):
        assert mismatch(BetaVAESpec(network=network), images) is None
        assert mismatch(BetaVAESpec(network=network), PerturbseqData()).says.startswith(f"is {network}, but perturbseq")
    assert mismatch(BetaVAESpec(input_pca=192), images) is None
    assert mismatch(BetaVAESpec(input_pca=193), images).field == "input_pca"
    assert mismatch(PerturbedVAESpec(mechanisms="targeted", responsive_dim=4), images).field == "responsive_dim"
    assert mismatch(PerturbedVAESpec(mechanisms="targeted", responsive_dim=7), images) is None


def test_a_trajectory_starts_from_a_control():
    without = Simulation(preset="tiny", pairs="none")
    found = mismatch(CiteVAESpec(), without)
    assert (found.part, found.field) == ("model", "pairing")
    assert "data.pairs: none" in found.says
    assert mismatch(CiteVAESpec(pairing="random"), without) is None
    assert mismatch(CiteVAESpec(), Simulation(preset="tiny", pairs="random")) is None


def test_simulated_counts_are_counts():
    found = mismatch(BetaVAESpec(), PerturbseqData(values="lognorm"))
    assert (found.part, found.field) == ("data", "values")


def test_only_data_with_a_truth_can_be_learned_from_it():
    assert mismatch(SupervisedSpec(), PerturbseqData()) is None
    found = mismatch(SupervisedSpec(), PerturbseqData(path="cells.h5ad"))
    assert (found.part, found.field) == ("model", "kind")
    assert "no true latents to learn from" in found.says


def test_published_sizes_need_their_cells():
    wanted = EvaluateSpec(published_r2=True)
    found = mismatch(BetaVAESpec(), Simulation(test_cells=12_287), wanted)
    assert (found.part, found.field) == ("data", "test_cells")
    assert "is 12,287, but evaluate.published_r2 needs 12,288 or more" in found.says
    assert mismatch(BetaVAESpec(), Simulation(test_cells=12_288), wanted) is None
    assert mismatch(BetaVAESpec(), Simulation(), EvaluateSpec()) is None
    assert mismatch(BetaVAESpec(), PerturbseqData(path="cells.h5ad"), wanted) is None  # only the file knows


def study_file(tmp_path, more):
    path = tmp_path / "s.yaml"
    path.write_text(
        "models:\n  - kind: perturbed_vae\n    latent_dim: 4\n    responsive_dim: 2\n"
        "data: {kind: simulation, preset: tiny}\n" + more
    )
    return path


def test_a_study_names_the_key_or_the_cell(tmp_path):
    with pytest.raises(Exception, match=r"^--set models.0.network=conv: models.0.network is conv, but .*; use mlp$"):
        load_study(study_file(tmp_path, ""), ["models.0.network=conv"])
    with pytest.raises(Exception, match=r"line 2: models.0.input_pca is 30, .*\(in the cell .*input_pca=30\)$"):
        load_study(study_file(tmp_path, "grid: {input_pca: [10, 30]}\n"))


def test_a_grid_may_put_a_mismatch_right(tmp_path):
    study = load_study(study_file(tmp_path, "grid: {network: [mlp]}\n"), ["models.0.network=conv"])
    check(study)


def test_a_search_meets_only_what_it_proposes(tmp_path):
    space = "search: {sampler: random, trials: 2, space: {input_pca: {low: 10, high: 30}}}\n"
    check(load_study(study_file(tmp_path, space)))
