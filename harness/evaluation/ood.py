"""How well a predicted condition agrees with the cells measured under it: the out-of-distribution metrics.

Every metric compares (n, features) predicted cells with (m, features) true cells of one condition; a model, a
baseline and the floor (one half of the true cells as the prediction of the other) pass through the same code, on all
features and, where they are genes, on the gene sets of `harness.evaluation.registry`.

Changes are differences from control cells, and the two sides of a comparison have control cells of their own: the true
change is taken from cells that nothing else used, a predicted one from those that predictions start from. Were they the
same cells, their chance would be part of both changes, and agree with itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from harness.evaluation.clouds import Cloud, PairMeans, distances_on, median_distance
from harness.evaluation.differential import Differential, welch
from harness.evaluation.measured import Measured, Moments
from harness.evaluation.measures import MEASURES, OF_GENES, Profile, View, has_transport, is_flat, undefined_by_truth
from harness.evaluation.registry import METRICS, TOP_DE, TOP_EXPRESSED, on_set, split_half_name
from harness.evaluation.regression import squared_distances
from harness.evaluation.resampling import MeanNoise, correlation_samples
from harness.evaluation.scores import Array, Index, Scores, as_matrix

#: Random halvings of the true cells behind a floor.
HALVINGS = 5
#: Fewest true cells that can be halved: two a half, for the distances within it.
FEWEST_TO_HALVE = 4
#: Fewest cells of a mean whose noise is told by drawing them anew.
FEWEST_TO_DRAW = 2
#: Most cells of either side that ``wasserstein`` is taken over.
MOST_CARRIED = 250
#: The metric whose intervals know of the control cells.
CORRELATION = "pearson_delta"


def measures_of(*, genes: bool) -> tuple[str, ...]:
    """Metrics of one condition that can be taken here: some need genes, ``wasserstein`` needs POT."""
    missing = set() if genes else set(OF_GENES)
    return tuple(name for name in MEASURES if name not in missing and (name != "wasserstein" or has_transport()))


class Controls:
    """Control cells of both sides of a comparison.

    Parameters
    ----------
    held_out
        Those that nothing else used; true changes are taken from their mean.
    starts : (k, features)
        Those that every prediction starts from; predicted changes are taken from their mean.
    seed
        Governs how the held-out ones are resampled.

    Raises
    ------
    ValueError
        If the two have different features.
    """

    def __init__(self, held_out: Measured, starts: ArrayLike, *, seed: int) -> None:
        self.held_out, self._seed = held_out, seed
        self.starts = Cloud(_cells(starts, "control cells"))
        _same_features(held_out.cells, self.starts.cells, "control cells")
        self.scale = float(np.abs(held_out.moments.mean).max(initial=0.0))

    @property
    def expressed(self) -> Index:
        """Features by their mean among held-out control cells, highest first."""
        order: Index = np.argsort(-self.held_out.moments.mean, kind="stable")
        return order

    @cached_property
    def noise(self) -> MeanNoise:
        """What the mean of the held-out control cells would have differed by, had others been measured."""
        return MeanNoise(self.held_out, [self._seed, 4])


@dataclass(frozen=True)
class _Truth:
    """True cells of a condition, or half of them, and the gene sets that follow from them.

    ``moments`` are of all cells, ``cloud`` holds those drawn. ``sets`` maps each set's name to its genes, None for all;
    ``medians`` to the median squared distance over them. ``carried`` is the number of cells of either side that
    ``wasserstein`` is taken over: half of the true ones, as for the floor, because how far above 0 it lies by chance
    depends on their number.
    """

    cloud: Cloud
    moments: Moments
    controls: Controls
    test: Differential | None
    sets: dict[str, Index | None]
    medians: dict[str, float]
    carried: int

    @classmethod
    def of(
        cls, cloud: Cloud, moments: Moments, controls: Controls, *, genes: bool, whole: _Truth | None = None
    ) -> _Truth:
        """The truth of ``cloud``, which may be half of a whole."""
        test = welch(moments, controls.held_out.moments) if genes else None
        sets = _gene_sets(test, controls)
        others = controls.held_out.cells
        if whole is None:
            median = median_distance(cloud.squares, cloud.cells, others)
            carried = min(MOST_CARRIED, max(1, len(cloud) // 2))
        else:
            median, carried = whole.medians[""], whole.carried
        medians = {"": median}
        for name, columns in sets.items():
            if columns is None:
                medians[name] = median
                continue
            true = cloud.cells[:, columns]
            medians[name] = median_distance(squared_distances(true, true), true, others[:, columns])
        return cls(cloud, moments, controls, test, sets, medians, carried)

    @property
    def change(self) -> Array:
        """Mean change from the held-out control cells, (genes,)."""
        change: Array = self.moments.mean - self.controls.held_out.moments.mean
        return change

    def undefined(self, metric: str, genes: Index | None) -> str:
        """Why the truth leaves a metric undefined; empty where it does not."""
        if self.test is None:
            return ""
        return undefined_by_truth(metric, self.test.changed if genes is None else self.test.changed[genes])


def _gene_sets(test: Differential | None, controls: Controls) -> dict[str, Index | None]:
    sets: dict[str, Index | None] = {"": None}
    if test is None:
        return sets
    all_genes = len(test.score)
    chosen = {name: test.top(most) for name, most in TOP_DE.items()}
    chosen |= {name: np.sort(controls.expressed[:most]) for name, most in TOP_EXPRESSED.items()}
    return sets | {name: None if len(genes) == all_genes else genes for name, genes in chosen.items()}


class Reference:
    """The true cells of one condition, ready to score several predictions against.

    Parameters
    ----------
    true
        Cells (m, features) measured under the condition.
    controls
        Control cells of both sides; what is known of them is shared by all references that are given them.
    seed
        Governs the random pairing of ``rmse_relative``, the halves and the resampling.
    genes
        Whether features are genes: with the metrics of differential expression, and on gene sets.
    metrics
        Names of the metrics wanted; None: all that can be taken.

    Attributes
    ----------
    undefined : one sentence for each metric that the truth leaves undefined.
    """

    def __init__(
        self,
        true: Measured,
        controls: Controls,
        *,
        seed: int,
        genes: bool = False,
        metrics: Collection[str] | None = None,
    ) -> None:
        self.true, self.controls = true, controls
        _same_features(true.cells, controls.held_out.cells, "control cells")
        self.seed, self.genes = seed, genes
        self.metrics = [name for name in measures_of(genes=genes) if metrics is None or name in metrics]
        self._truth = _Truth.of(Cloud(true.cells), true.moments, controls, genes=genes)
        whole = {name: self._truth.undefined(name, None) for name in self.metrics}
        self.undefined = tuple(f"{name} is left out: {why}" for name, why in whole.items() if why)

    def score(self, predicted: ArrayLike | Cloud) -> Scores:
        """Every metric for one prediction, (n, features); one row is a point mass, without variance.

        Returns
        -------
        Scores named as in ``registry.METRICS``, on a gene set ``<metric>_<set>``, always finite. Where one is undefined
        (a correlation with a constant change) it is 0 and a warning names it. One that the *truth* leaves undefined (no
        gene is differentially expressed) is absent, whatever is predicted.

        Raises
        ------
        NonFiniteError
            NaN or infinity in the prediction.
        ValueError
            An empty prediction, or numbers of features that disagree.
        """
        cloud = predicted if isinstance(predicted, Cloud) else Cloud(_cells(predicted, "predicted cells"))
        _same_features(self.true.cells, cloud.cells, "predicted cells")
        return _score(cloud, self._truth, self.metrics, self.seed)

    def floor(self) -> Scores:
        """What a perfect model would score: one random half of the true cells as prediction of the other.

        Returns
        -------
        The mean over ``HALVINGS`` random halvings, named with ``_floor`` or ``_ceiling``; empty, with a warning, below
        four cells. Halves are smaller than the whole, so that noise of the mean makes the floor slightly pessimistic.
        The half that is the prediction takes its change from the control cells that predictions start from, the other
        from the held-out ones. Which genes are differentially expressed is taken from the half that is the truth.
        """
        if len(self.true.cells) < FEWEST_TO_HALVE:
            return Scores({}, (f"{len(self.true.cells)} true cells cannot be halved: no floor",))
        found: dict[str, list[float]] = {}
        for a, b in self.halves():
            for name, value in self._halved(a, b).values.items():
                found.setdefault(name, []).append(value)
        return Scores({split_half_name(name): float(np.mean(values)) for name, values in found.items()})

    def halves(self) -> Iterator[tuple[Index, Index]]:
        """The random halvings: cells of either half; none below four cells."""
        rng = np.random.default_rng([self.seed, 1])
        count = len(self.true.cells)
        for _ in range(HALVINGS if count >= FEWEST_TO_HALVE else 0):
            order: Index = rng.permutation(count)
            yield order[: count // 2], order[count // 2 :]

    def _halved(self, a: Index, b: Index) -> Scores:
        squares, cells = self._truth.cloud.squares, self.true.cells
        first, second = (Cloud(cells[half], squares[np.ix_(half, half)]) for half in (a, b))
        moments = Moments.of(second.cells)
        truth = _Truth.of(second, moments, self.controls, genes=self.genes, whole=self._truth)
        return _score(first, truth, self.metrics, self.seed, between=squares[np.ix_(a, b)])

    # ------------------------------------------------------------------------------------------- resampling

    def correlations(self, predicted: Cloud) -> dict[str, Array]:
        """``pearson_delta`` of a prediction in each bootstrap sample of the measured cells, by gene set.

        Empty where there are too few cells to draw from. Sets of genes that the same cells chose for their change are
        left out: on these genes the measured change is larger than the noise of others says, and no sample of them
        tells by how much.
        """
        return self._correlations(predicted.mean, self._truth.change, halved=False)

    def floor_correlations(self) -> dict[str, Array]:
        """The same of the split halves, the mean over halvings, by the names of their scores."""
        found: dict[str, list[Array]] = {}
        for a, b in self.halves():
            first, second = (self.true.cells[half].mean(axis=0) for half in (a, b))
            change = second - self.controls.held_out.moments.mean
            for name, values in self._correlations(first, change, halved=True).items():
                found.setdefault(split_half_name(name), []).append(values)
        return {name: np.mean(values, axis=0) for name, values in found.items()}

    def _correlations(self, predicted: Array, true: Array, *, halved: bool) -> dict[str, Array]:
        fewest = min(len(self.true.cells), len(self.controls.held_out.cells))
        if CORRELATION not in self.metrics or fewest < FEWEST_TO_DRAW:
            return {}
        change = predicted - self.controls.starts.mean
        if is_flat(change, self.controls.scale):  # rounding is no change
            change = np.zeros_like(change)
        own, control = (1.0, self._noise), (-1.0, self.controls.noise)
        # other cells would move both halves together; how they are halved is averaged over
        return {
            on_set(CORRELATION, name): correlation_samples(
                change, true, [own, control], columns, of_predicted=[own] if halved else []
            )
            for name, columns in self._truth.sets.items()
            if name not in TOP_DE
        }

    @cached_property
    def _noise(self) -> MeanNoise:
        return MeanNoise(self.true, [self.seed, 5])


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
        truth.controls.scale,
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
    true, moments = truth.cloud, truth.moments
    rng = np.random.default_rng([seed, 0])
    pairs = min(len(predicted), len(true))
    first = predicted.cells[rng.permutation(len(predicted))[:pairs]]
    second = true.cells[rng.permutation(len(true))[:pairs]]
    first -= second
    return Profile(
        predicted=predicted.mean,
        true=moments.mean,
        predicted_change=predicted.mean - truth.controls.starts.mean,
        true_change=truth.change,
        paired_error=_mean_square(first),
        paired_size=_mean_square(second),
        mean_error=(predicted.mean - moments.mean) ** 2 + moments.spread,
        size=moments.mean**2 + moments.spread,
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
