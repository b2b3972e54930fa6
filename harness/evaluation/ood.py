"""How well a predicted condition agrees with the cells measured under it: the out-of-distribution metrics.

Every metric compares (n, features) predicted cells with (m, features) true cells of one condition; a model, a
baseline and the floor (one half of the true cells as the prediction of the other) pass through the same code, on all
features and, where they are genes, on the gene sets of `harness.evaluation.registry`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.evaluation.clouds import Cloud, PairMeans, distances_on, median_distance
from harness.evaluation.differential import Differential, Moments, welch
from harness.evaluation.measures import MEASURES, OF_GENES, Profile, View, has_transport, undefined_by_truth
from harness.evaluation.registry import METRICS, TOP_DE, TOP_EXPRESSED, on_set, split_half_name
from harness.evaluation.regression import squared_distances
from harness.evaluation.scores import Array, Index, Scores, as_matrix

#: Random halvings of the true cells behind a floor.
HALVINGS = 5
#: Fewest true cells that can be halved: two a half, for the distances within it.
FEWEST_TO_HALVE = 4
#: Most cells of either side that ``wasserstein`` is taken over.
MOST_CARRIED = 250


def measures_of(*, genes: bool) -> tuple[str, ...]:
    """Metrics of one condition that can be taken here: some need genes, ``wasserstein`` needs POT."""
    missing = set() if genes else set(OF_GENES)
    return tuple(name for name in MEASURES if name not in missing and (name != "wasserstein" or has_transport()))


def score_condition(
    predicted: ArrayLike, true: ArrayLike, control: ArrayLike, *, seed: int, genes: bool = False
) -> Scores:
    """Every metric of one condition.

    Parameters
    ----------
    predicted
        (n, features) predicted cells; one row is a point mass, a prediction without variance.
    true
        (m, features) cells measured under the condition.
    control
        (k, features) control cells; changes are taken from their mean.
    seed
        Governs the random pairing of ``rmse_relative``.
    genes
        Whether features are genes: with the metrics of differential expression, and on gene sets.

    Returns
    -------
    Scores named as in ``registry.METRICS``, on a gene set ``<metric>_<set>``, always finite. Where one is undefined (a
    correlation with a constant change) it is 0 and a warning names it. One that the *truth* leaves undefined (no gene
    is differentially expressed) is absent, whatever is predicted, and a warning says so.

    Raises
    ------
    NonFiniteError
        NaN or infinity in an array, which it names.
    ValueError
        An empty array, or numbers of features that disagree.
    """
    reference = Reference(true, Control(control), seed=seed, genes=genes)
    found = reference.score(predicted)
    return Scores(found.values, (*found.warnings, *reference.undefined))


class Control:
    """Control cells (k, features), which changes are taken from, and what is known of each feature among them."""

    def __init__(self, cells: ArrayLike) -> None:
        self.cloud = Cloud(_cells(cells, "control cells"))
        self.moments = Moments.of(self.cloud.cells)
        self.scale = float(np.abs(self.cloud.mean).max(initial=0.0))

    @property
    def expressed(self) -> Index:
        """Features by their mean among control cells, highest first."""
        order: Index = np.argsort(-self.cloud.mean, kind="stable")
        return order


@dataclass(frozen=True)
class _Truth:
    """True cells of a condition, or half of them, and the gene sets that follow from them.

    ``sets`` maps each set's name to its genes, None for all; ``medians`` to the median squared distance over them.
    ``carried`` is the number of cells of either side that ``wasserstein`` is taken over: half of the true ones, as for
    the floor, because how far above 0 it lies by chance depends on their number.
    """

    cloud: Cloud
    control: Control
    test: Differential | None
    sets: dict[str, Index | None]
    medians: dict[str, float]
    carried: int

    @classmethod
    def of(cls, cloud: Cloud, control: Control, *, genes: bool, whole: _Truth | None = None) -> _Truth:
        """The truth of ``cloud``, which may be half of a whole."""
        test = welch(Moments.of(cloud.cells), control.moments) if genes else None
        sets = _gene_sets(test, control)
        if whole is None:
            median = median_distance(cloud.squares, cloud.cells, control.cloud.cells)
            carried = min(MOST_CARRIED, max(1, len(cloud) // 2))
        else:
            median, carried = whole.medians[""], whole.carried
        medians = {"": median}
        for name, columns in sets.items():
            if columns is None:
                medians[name] = median
                continue
            true, other = cloud.cells[:, columns], control.cloud.cells[:, columns]
            medians[name] = median_distance(squared_distances(true, true), true, other)
        return cls(cloud, control, test, sets, medians, carried)

    def undefined(self, metric: str, genes: Index | None) -> str:
        """Why the truth leaves a metric undefined; empty where it does not."""
        if self.test is None:
            return ""
        return undefined_by_truth(metric, self.test.changed if genes is None else self.test.changed[genes])


def _gene_sets(test: Differential | None, control: Control) -> dict[str, Index | None]:
    sets: dict[str, Index | None] = {"": None}
    if test is None:
        return sets
    all_genes = len(test.score)
    chosen = {name: test.top(most) for name, most in TOP_DE.items()}
    chosen |= {name: np.sort(control.expressed[:most]) for name, most in TOP_EXPRESSED.items()}
    return sets | {name: None if len(genes) == all_genes else genes for name, genes in chosen.items()}


class Reference:
    """The true cells of one condition, ready to score several predictions against.

    Parameters
    ----------
    true, seed, genes
        As in ``score_condition``.
    control
        Control cells; what is known of them is shared where several references are given the same `Control`.
    metrics
        Names of the metrics wanted; None: all that can be taken.

    Attributes
    ----------
    undefined : one sentence for each metric that the truth leaves undefined.
    """

    def __init__(
        self,
        true: ArrayLike,
        control: ArrayLike | Control,
        *,
        seed: int,
        genes: bool = False,
        metrics: Collection[str] | None = None,
    ) -> None:
        self.true = _cells(true, "true cells")
        self.control = control if isinstance(control, Control) else Control(control)
        _same_features(self.true, self.control.cloud.cells, "control cells")
        self.seed, self.genes = seed, genes
        self.metrics = [name for name in measures_of(genes=genes) if metrics is None or name in metrics]
        self._truth = _Truth.of(Cloud(self.true), self.control, genes=genes)
        whole = {name: self._truth.undefined(name, None) for name in self.metrics}
        self.undefined = tuple(f"{name} is left out: {why}" for name, why in whole.items() if why)

    def score(self, predicted: ArrayLike | Cloud) -> Scores:
        """Every metric for one prediction, (n, features); see ``score_condition``."""
        cloud = predicted if isinstance(predicted, Cloud) else Cloud(_cells(predicted, "predicted cells"))
        _same_features(self.true, cloud.cells, "predicted cells")
        return _score(cloud, self._truth, self.metrics, self.seed)

    def floor(self) -> Scores:
        """What a perfect model would score: one random half of the true cells as prediction of the other.

        Returns
        -------
        The mean over ``HALVINGS`` random halvings, named with ``_floor`` or ``_ceiling``; empty, with a warning, below
        four cells. Halves are smaller than the whole, so that noise of the mean makes the floor slightly pessimistic.
        Which genes are differentially expressed is taken from the half that is the truth.
        """
        if len(self.true) < FEWEST_TO_HALVE:
            return Scores({}, (f"{len(self.true)} true cells cannot be halved: no floor",))
        found: dict[str, list[float]] = {}
        for a, b in self.halves():
            for name, value in self._halved(a, b).values.items():
                found.setdefault(name, []).append(value)
        return Scores({split_half_name(name): float(np.mean(values)) for name, values in found.items()})

    def halves(self) -> Iterator[tuple[Index, Index]]:
        """The random halvings: cells of either half; none below four cells."""
        rng = np.random.default_rng([self.seed, 1])
        for _ in range(HALVINGS if len(self.true) >= FEWEST_TO_HALVE else 0):
            order: Index = rng.permutation(len(self.true))
            yield order[: len(order) // 2], order[len(order) // 2 :]

    def _halved(self, a: Index, b: Index) -> Scores:
        squares = self._truth.cloud.squares
        first, second = (Cloud(self.true[half], squares[np.ix_(half, half)]) for half in (a, b))
        truth = _Truth.of(second, self.control, genes=self.genes, whole=self._truth)
        return _score(first, truth, self.metrics, self.seed, between=squares[np.ix_(a, b)])


def _score(
    predicted: Cloud, truth: _Truth, metrics: Collection[str], seed: int, *, between: Array | None = None
) -> Scores:
    profile = _profile(predicted, truth, seed)
    values: dict[str, float] = {}
    warnings: dict[str, str] = {}
    for genes, columns in truth.sets.items():
        wanted = [name for name in metrics if not genes or genes in METRICS[name].sets]
        if genes and columns is None:  # the set is all genes
            values |= {on_set(name, genes): values[name] for name in wanted if name in values}
            continue
        view = _view(profile, predicted, truth, genes, seed, between if columns is None else None)
        for name in wanted:
            if truth.undefined(name, columns):
                continue
            value, why = MEASURES[name](view)
            values[on_set(name, genes)] = value
            if why:
                warnings.setdefault(name, f"{on_set(name, genes)} is {value:.4g} by convention: {why}")
    return Scores(values, tuple(warnings.values()))


def _view(profile: Profile, predicted: Cloud, truth: _Truth, genes: str, seed: int, squares: Array | None) -> View:
    columns, median = truth.sets[genes], truth.medians[genes]
    if squares is None:
        squares = distances_on(predicted.cells, truth.cloud.cells, columns)
    return View(
        profile if columns is None else profile.on(columns),
        truth.control.scale,
        within_predicted=predicted.within(columns, median),
        between=PairMeans.between(squares, median),
        within_true=truth.cloud.within(columns, median),
        carried=_some(squares, truth.carried, seed),
    )


def _some(squares: Array, most: int, seed: int) -> Array:
    """The rows and columns of at most ``most`` cells of either side, drawn at random."""
    rng = np.random.default_rng([seed, 3])
    return squares[np.ix_(*(rng.permutation(count)[:most] for count in squares.shape))]


def _profile(predicted: Cloud, truth: _Truth, seed: int) -> Profile:
    """Cells of both sides are paired at random, min(n, m) pairs."""
    true = truth.cloud
    rng = np.random.default_rng([seed, 0])
    pairs = min(len(predicted), len(true))
    first = predicted.cells[rng.permutation(len(predicted))[:pairs]]
    second = true.cells[rng.permutation(len(true))[:pairs]]
    first -= second
    return Profile(
        predicted=predicted.mean,
        true=true.mean,
        control=truth.control.cloud.mean,
        paired_error=_mean_square(first),
        paired_size=_mean_square(second),
        mean_error=(predicted.mean - true.mean) ** 2 + true.cells.var(axis=0),
        size=_mean_square(true.cells),
        changed=None if truth.test is None else truth.test.changed,
    )


def _mean_square(cells: Array) -> Array:
    """Mean of the squares over cells (n, genes), without a copy of their size."""
    mean: Array = np.einsum("ng,ng->g", cells, cells) / len(cells)
    return mean


def _cells(values: ArrayLike, name: str) -> Array:
    cells = as_matrix(values, name)
    if cells.size == 0:
        raise ValueError(f"{name} are empty: shape {cells.shape}")
    return cells


def _same_features(true: Array, other: Array, name: str) -> None:
    if other.shape[1] != true.shape[1]:
        raise ValueError(f"{name} have {other.shape[1]} features, true cells {true.shape[1]}")
