"""Every out-of-distribution metric by name: which way is better, what a perfect prediction scores, and on which genes.

Tables, figures, objectives and MLflow's page read directions here. What a metric computes is in
`harness.evaluation.measures` and, for ranks among conditions, in `harness.evaluation.discrimination`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["minimize", "maximize"]

#: Sets of genes beside all of them, as suffixes of names: the 20 and 50 genes that change most surely under the
#: condition, and the 1,000 most expressed in control cells; each all genes where there are fewer.
TOP_DE: dict[str, int] = {"top20de": 20, "top50de": 50}
TOP_EXPRESSED: dict[str, int] = {"top1000": 1000}
GENE_SETS: tuple[str, ...] = (*TOP_DE, *TOP_EXPRESSED)
#: Scores of latents have this before the metric's name.
LATENT = "latent_"


@dataclass(frozen=True)
class Metric:
    """A metric of the registry.

    Attributes
    ----------
    name : as in ``ood/<split>/<name>``.
    direction : which way is better.
    best : the value of a perfect prediction.
    compares : what is compared. ``cells``: predicted cells with true cells, so that a prediction's variance counts;
        ``mean to cells``: the predicted mean with each true cell; ``means``: the two means; ``conditions``: the
        predicted mean with the true means of all conditions of a split.
    doc : definition, conventions and source.
    sets : gene sets it is taken on beside all genes.
    """

    name: str
    direction: Direction
    best: float
    compares: Literal["cells", "mean to cells", "means", "conditions"]
    doc: str
    sets: tuple[str, ...] = GENE_SETS

    @property
    def floor_name(self) -> str:
        """Name of its split-half score: ``_floor`` where less is better, ``_ceiling`` where more is."""
        return floor_of(self.name, self.direction)


_TABLE = (
    Metric(
        "rmse_relative",
        "minimize",
        0.0,
        "cells",
        "sqrt(mean((predicted - true)^2) / mean(true^2)), cells paired at random: the published RMSE, which rewards a "
        "prediction without variance",
    ),
    Metric(
        "rmse_relative_mean",
        "minimize",
        0.0,
        "mean to cells",
        "rmse_relative with the mean of the predicted cells in place of each",
    ),
    Metric("rmse", "minimize", 0.0, "means", "root mean squared difference of the two means, in units of the data"),
    Metric("l2", "minimize", 0.0, "means", "Euclidean distance of the two means"),
    Metric("r2", "maximize", 1.0, "means", "1 - SSE / SST of the predicted mean for the true mean, not clipped"),
    Metric(
        "r2_published",
        "maximize",
        1.0,
        "means",
        "max(0, R^2) with the prediction as truth, as in the reference code of the published tables",
    ),
    Metric("pearson_delta", "maximize", 1.0, "means", "correlation of predicted and true mean change from control"),
    Metric(
        "mmd",
        "minimize",
        0.0,
        "cells",
        "squared maximum mean discrepancy, unbiased (can be slightly negative), mean of five Gaussian kernels",
    ),
    Metric(
        "energy_distance",
        "minimize",
        0.0,
        "cells",
        "2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased (can be slightly negative), no root taken (Szekely & Rizzo 2013)",
    ),
    Metric(
        "wasserstein",
        "minimize",
        0.0,
        "cells",
        "exact 1-Wasserstein distance, Euclidean, by POT, over as many cells of either side as the floor has, at most "
        "250; on all genes only, for its cost. Far above 0 for few cells in many genes whatever is predicted: read it "
        "beside its floor",
        sets=(),
    ),
    Metric(
        "de_auroc",
        "maximize",
        1.0,
        "means",
        "area under the ROC curve of finding the truly differentially expressed genes by the size of the predicted "
        "change (0.5: chance); of a condition whose genes all change, or none does, there is none",
        sets=tuple(TOP_EXPRESSED),
    ),
    Metric(
        "direction_accuracy",
        "maximize",
        1.0,
        "means",
        "share of truly differentially expressed genes whose predicted change has the true sign; predicting no change "
        "at all is wrong",
    ),
    Metric(
        "perturbation_rank",
        "maximize",
        1.0,
        "conditions",
        "how often the nearest true condition is the right one",
        sets=(),
    ),
    Metric(
        "perturbation_rank_normalised",
        "maximize",
        1.0,
        "conditions",
        "1 - (number of wrong conditions nearer than the right one) / (number of conditions), as cell-eval's "
        "discrimination score: 0.5 + 0.5 / (number of conditions) on average by chance",
        sets=(),
    ),
)
#: Every metric by name, in the order of a table.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
#: Metrics with an interval over conditions, and with scores on gene sets, among those that are logged: one of cells,
#: one of the mean against cells, one of change, one of distributions. The trial's ``ood.csv`` holds all.
MAIN: tuple[str, ...] = ("rmse_relative", "rmse_relative_mean", "pearson_delta", "energy_distance")


def on_set(metric: str, genes: str) -> str:
    """Name of a metric on a gene set; ``""`` stands for all genes."""
    return f"{metric}_{genes}" if genes else metric


def floor_of(name: str, direction: Direction) -> str:
    """Name of the split-half score of ``name``, which may be one on a gene set."""
    return f"{name}_{'floor' if direction == 'minimize' else 'ceiling'}"


def split_half_name(name: str) -> str:
    """Name of the split-half score of a metric, which may be on a gene set."""
    found = metric_and_set(name)
    if found is None:
        raise ValueError(f"{name!r} is no metric of the registry")
    return floor_of(name, found[0].direction)


def metric_and_set(name: str) -> tuple[Metric, str] | None:
    """The metric and the gene set (``""``: all genes) that a name stands for; None where it is no metric's.

    Parameters
    ----------
    name
        As in ``ood/<split>/<name>``, also of latents.
    """
    metric, genes = name.removeprefix(LATENT), ""
    for suffix in GENE_SETS:
        if metric.endswith(f"_{suffix}"):
            metric, genes = metric.removesuffix(f"_{suffix}"), suffix
    return (METRICS[metric], genes) if metric in METRICS else None


def direction_of(flat: str) -> Direction | None:
    """Which way is better of a score by its MLflow name, e.g. ``ood/double/r2``; None where the registry lacks it."""
    found = metric_and_set(flat.rsplit("/", 1)[-1]) if "ood/" in flat else None
    return None if found is None else found[0].direction


def is_logged(name: str) -> bool:
    """Whether a score stands among a trial's metrics: on all genes every metric does, on gene sets the main ones."""
    found = metric_and_set(name)
    return found is not None and (found[1] == "" or found[0].name in MAIN)
