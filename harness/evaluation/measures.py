"""What each metric computes of one prediction against one truth, on one set of genes.

Names, directions and best values are in `harness.evaluation.registry`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from harness.evaluation.clouds import PairMeans
from harness.evaluation.scores import Array, Index, Mask

#: A value, and why it had to be settled by convention ("" where it is simply defined).
Result = tuple[float, str]


@dataclass(frozen=True)
class Profile:
    """Of each gene, (genes,): what the metrics of means and of paired cells need.

    Attributes
    ----------
    predicted, true : means.
    predicted_change, true_change : differences of the means from control cells, each side from cells of its own.
    paired_error, paired_size : means over randomly paired cells of (predicted - true)^2 and of true^2.
    mean_error, size : means over true cells of (predicted mean - true)^2 and of true^2.
    changed : whether the gene is truly differentially expressed; None where that is not asked.
    """

    predicted: Array
    true: Array
    predicted_change: Array
    true_change: Array
    paired_error: Array
    paired_size: Array
    mean_error: Array
    size: Array
    changed: Mask | None = None

    def on(self, genes: Index) -> Profile:
        """The same of some genes."""
        return Profile(
            self.predicted[genes],
            self.true[genes],
            self.predicted_change[genes],
            self.true_change[genes],
            self.paired_error[genes],
            self.paired_size[genes],
            self.mean_error[genes],
            self.size[genes],
            None if self.changed is None else self.changed[genes],
        )


@dataclass(frozen=True)
class View:
    """One prediction and one truth on one set of genes.

    Attributes
    ----------
    profile : of those genes.
    scale : size of a control mean over all genes, which rounding noise is judged by.
    within_predicted, between, within_true : means over pairs of cells.
    carried : squared distances of some predicted to some true cells, as many of either where there are.
    """

    profile: Profile
    scale: float
    within_predicted: PairMeans
    between: PairMeans
    within_true: PairMeans
    carried: Array


def _rmse_relative(view: View) -> Result:
    return _relative(view.profile.paired_error, view.profile.paired_size)


def _rmse_relative_mean(view: View) -> Result:
    return _relative(view.profile.mean_error, view.profile.size)


def _relative(squared_error: Array, size: Array) -> Result:
    """Root of the ratio of means over genes; if all true values are 0, it is not divided."""
    error, whole = float(squared_error.mean()), float(size.mean())
    if whole == 0.0:
        return float(np.sqrt(error)), "all true values are 0, so that it is not divided by them"
    return float(np.sqrt(error / whole)), ""


def _rmse(view: View) -> Result:
    return float(np.sqrt(np.mean((view.profile.predicted - view.profile.true) ** 2))), ""


def _l2(view: View) -> Result:
    return float(np.linalg.norm(view.profile.predicted - view.profile.true)), ""


def _r2(view: View) -> Result:
    return _determination(view.profile.true, view.profile.predicted, "true")


def _r2_published(view: View) -> Result:
    value, why = _determination(view.profile.predicted, view.profile.true, "predicted")
    return max(0.0, value), why


def _determination(truth: Array, predicted: Array, side: str) -> Result:
    if is_flat(truth, float(np.abs(truth).max(initial=0.0))):
        return 0.0, f"the {side} mean is the same in every feature"
    return 1.0 - float(((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()), ""


def _pearson_delta(view: View) -> Result:
    """0, with a warning, where one of the changes is constant: predicting no change earns no correlation."""
    predicted, true = view.profile.predicted_change, view.profile.true_change
    for change, side in ((predicted, "predicted"), (true, "true")):
        if is_flat(change, view.scale):
            return 0.0, f"the {side} change is the same in every feature"
    return float(np.corrcoef(predicted, true)[0, 1]), ""


def is_flat(vector: Array, scale: float) -> bool:
    """Whether the spread over features is rounding noise of numbers as large as ``scale``."""
    return float(vector.std()) <= 1e-9 * max(scale, float(np.abs(vector).max(initial=0.0)))


def _mmd(view: View) -> Result:
    """Kernels exp(-d^2 / (2 s)), s = 2^k times the median squared distance between *true* cells, k = -2 ... 2.

    The same kernels serve every prediction of a condition.
    """
    return view.within_predicted.kernel + view.within_true.kernel - 2.0 * view.between.kernel, ""


def _energy_distance(view: View) -> Result:
    """Its square root, with biased means, is what ``scipy.stats.energy_distance`` gives."""
    return 2.0 * view.between.distance - view.within_predicted.distance - view.within_true.distance, ""


def has_transport() -> bool:
    """Whether POT (the package ``ot``), which ``wasserstein`` needs, is installed."""
    return importlib.util.find_spec("ot") is not None


def _wasserstein(view: View) -> Result:
    """The least mean distance over which the predicted cells can be carried to the true ones, all of equal weight."""
    import ot

    cost = np.sqrt(view.carried)
    n, m = cost.shape
    found = ot.emd2(np.full(n, 1.0 / n), np.full(m, 1.0 / m), cost, numItermax=1_000_000)
    return float(found), ""


def _de_auroc(view: View) -> Result:
    """Mann-Whitney: the share of pairs of a changed and an unchanged gene that are in order, ties counting half."""
    profile = view.profile
    assert profile.changed is not None
    ranks = rankdata(np.abs(profile.predicted_change))
    positive = int(profile.changed.sum())
    negative = len(ranks) - positive
    above = float(ranks[profile.changed].sum()) - positive * (positive + 1) / 2
    return above / (positive * negative), ""


def _direction_accuracy(view: View) -> Result:
    profile = view.profile
    assert profile.changed is not None
    right = np.sign(profile.predicted_change) == np.sign(profile.true_change)
    return float(right[profile.changed].mean()), ""


def undefined_by_truth(metric: str, changed: Mask) -> str:
    """Why a metric says nothing of a condition, whatever is predicted; empty where it does.

    Parameters
    ----------
    metric
        Its name.
    changed
        (genes,) which genes of the set are differentially expressed.
    """
    if metric in ("de_auroc", "direction_accuracy") and not changed.any():
        return "no gene is differentially expressed"
    if metric == "de_auroc" and changed.all():
        return "every gene is differentially expressed"
    return ""


#: The metrics of one condition by name; those of several conditions are in `harness.evaluation.discrimination`.
MEASURES: dict[str, Callable[[View], Result]] = {
    "rmse_relative": _rmse_relative,
    "rmse_relative_mean": _rmse_relative_mean,
    "rmse": _rmse,
    "l2": _l2,
    "r2": _r2,
    "r2_published": _r2_published,
    "pearson_delta": _pearson_delta,
    "mmd": _mmd,
    "energy_distance": _energy_distance,
    "wasserstein": _wasserstein,
    "de_auroc": _de_auroc,
    "direction_accuracy": _direction_accuracy,
}
#: Those that need to know which genes truly change, hence features that are genes.
OF_GENES = ("de_auroc", "direction_accuracy")
