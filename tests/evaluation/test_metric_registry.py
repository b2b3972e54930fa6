import pytest

from harness.evaluation.discrimination import NORMALISED, RANK
from harness.evaluation.measures import MEASURES
from harness.evaluation.registry import GENE_SETS, METRICS, direction_of, is_logged, metric_and_set, on_set


def test_registry_states_direction_best_and_definition_of_whatever_is_computed():
    assert set(METRICS) == {*MEASURES, RANK, NORMALISED}
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.best == (0.0 if metric.direction == "minimize" else 1.0)
        assert len(metric.doc) > 20


def test_every_name_is_read_as_the_metric_and_set_it_was_made_of():
    for metric in METRICS:
        for genes in ("", *GENE_SETS):
            found = metric_and_set(on_set(metric, genes))
            assert (found[0].name, found[1]) == (metric, genes)
    assert metric_and_set("mcc") is None
    assert metric_and_set("top20de") is None


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("ood/double/rmse_relative", "minimize"),
        ("ood/double/pearson_delta_top20de", "maximize"),
        ("baseline/additive/ood/double/wasserstein", "minimize"),
        ("ood/double/latent_pearson_delta", "maximize"),
        ("ood/double/rmse_relative_floor", None),
        ("validation/r2", None),
    ],
)
def test_directions_of_flat_names(name, direction):
    assert direction_of(name) == direction


def test_gene_sets_of_the_main_metrics_alone_are_logged():
    assert is_logged("r2")
    assert is_logged("energy_distance_top50de")
    assert not is_logged("r2_top50de")
