"""How well learned latents recover the true ones: MCC, R² and leakage.

Everything is fitted on one random half of the cells and scored on the other. A learned block may be larger or
smaller than the true one, constant, or collapsed: that gives numbers and a named warning, never NaN. NaN *in* the
latents is refused, because a diverged encoder has no score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from harness.evaluation.factors import Halves, cos_sin, factors_of, random_halves
from harness.evaluation.regression import kernel_r2, linear_r2
from harness.evaluation.scores import Array, Mask, Scores, as_matrix, is_constant

#: Most rows in the fitting and in the scoring half of a kernel regression: its cost grows with their cube.
KERNEL_ROWS = 512
#: Shufflings behind ``mcc_shuffled``.
SHUFFLES = 20
#: A learned latent is active if its sd exceeds this share of the largest sd in its block.
ACTIVE = 0.01
#: Scores of a single true latent.
FACTOR_SCORES = ("r2", "r2_linear", "leakage", "pearson", "spearman")
#: Fewest rows scored: each half must hold the three folds of the kernel search.
FEWEST_ROWS = 12

Regression = Callable[[Array, Sequence[Array], Array, Sequence[Array]], list[float]]


@dataclass(frozen=True)
class IdentifiabilityScores(Scores):
    """Scores, which learned responsive latent was matched to each true one, and the scores of each true latent.

    Attributes
    ----------
    assignment : for each true responsive latent the index of its learned one, −1 where there was none left.
    factors : name of a true latent -> its scores; empty where the latents have no names.
    """

    assignment: tuple[int, ...] = ()
    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def identifiability_scores(
    learned_responsive: ArrayLike,
    learned_invariant: ArrayLike,
    true_responsive: ArrayLike,
    true_invariant: ArrayLike,
    *,
    responsive_names: Sequence[str] = (),
    invariant_names: Sequence[str] = (),
    periodic: Sequence[str] = (),
    seed: int,
) -> IdentifiabilityScores:
    """All identifiability scores of one trial.

    Parameters
    ----------
    learned_responsive, learned_invariant
        (n, a) and (n, b) learned latents, n >= 12; a block may have no columns.
    true_responsive, true_invariant
        (n, d_v) and (n, d_i) true latents of the same cells, d_i possibly 0; periodic ones in radians.
    responsive_names, invariant_names
        Names of the true columns; needed where some are periodic, and for ``factors``.
    periodic
        Names of true latents that are angles; unknown names are refused.
    seed
        Governs the halves, the subset of the kernel regressions and the shuffles.

    Returns
    -------
    Scores with these values:

    mcc
        Mean correlation coefficient of the responsive block. |Pearson| between every true and every learned
        latent, Hungarian matching on the first half; the matched |correlations| of the second half, summed and
        divided by the number of *true* factors, so that an unmatched factor counts 0. For a periodic factor the
        correlation is the linear-circular one (Mardia): of the latent with its best linear combination of
        (cos, sin), fitted on the first half.
    mcc_spearman
        The same on ranks of the latents (for a periodic factor: rank of the learned latent against (cos, sin)).
    mcc_active
        The sum behind ``mcc`` divided by max(true, active learned latents). Active: sd above 1 % of the block's
        largest. It does not reward latents learned in excess.
    mcc_shuffled
        ``mcc`` when the learned rows are shuffled against the truth, mean of 20 shuffles: chance at these sizes
        for features that know nothing. Features that know *something* score far more by chance; an untrained
        encoder is the null for them.
    r2_responsive, r2_invariant
        R² of each true latent from the learned block of the same kind, averaged over factors: kernel ridge (RBF;
        3-fold search over α and γ, standardised), see ``regression.kernel_r2``; at most 512 rows to fit and 512
        to score (published: 5 × 2,048 and 10 × 2,048). A periodic factor is the pair (cos, sin) with one R².
        Not clipped: below 0 means worse than the mean.
    r2_linear, r2_invariant_linear
        R² of the true responsive (invariant) latents from the learned block of the same kind by least squares, all
        rows.
    leakage, leakage_invariant
        R² of the true responsive latents from the learned *invariant* block, and of the true invariant latents from
        the learned *responsive* block, by the same kernel ridge. Neither need be 0 in a perfect model: where the
        truth has edges from invariant to responsive latents, each true block predicts something of the other.

    Each true latent with a name has these in ``factors``:

    r2, r2_linear
        Its term in the means ``r2_responsive`` (or ``r2_invariant``) and ``r2_linear`` (or ``r2_invariant_linear``):
        R² from the learned block of its own kind.
    leakage
        Its term in ``leakage`` (or ``leakage_invariant``): R² from the other block.
    pearson, spearman
        |Correlation| with the learned latent of its own kind matched to it, as in ``mcc`` and ``mcc_spearman``; 0 where
        there was none left. Of invariant latents theory identifies the block alone: these say whether single ones
        were found all the same.

    Raises
    ------
    NonFiniteError
        NaN or infinity in an array, which it names.
    ValueError
        Rows that disagree or are too few, no true responsive factor, names that do not fit.

    Notes
    -----
    Data may have no true invariant latent; the values of that block, ``leakage_invariant`` among them, are then absent.

    Source: von Kügelgen et al. 2021 (R²), Hyvärinen & Morioka 2016 (MCC); the denominators are this project's.
    """
    learned_v, learned_i, true_v, true_i = _checked(
        learned_responsive, learned_invariant, true_responsive, true_invariant
    )
    circular_v, circular_i = _periodic_masks(periodic, responsive_names, invariant_names, true_v, true_i)
    warnings = [
        *_collapse_warnings(learned_v, "learned responsive latent"),
        *_collapse_warnings(learned_i, "learned invariant latent"),
        *_constant_warnings(true_v, responsive_names, "responsive"),
        *_constant_warnings(true_i, invariant_names, "invariant"),
    ]
    halves = random_halves(len(true_v), seed)
    blocks = (learned_v, true_v, circular_v), (learned_i, true_i, circular_i)
    matched, matched_i = (_Matching(*block, halves) for block in blocks)
    ranked, ranked_i = (_Matching(*block, halves, ranked=True) for block in blocks)
    factors_v, factors_i = factors_of(true_v, circular_v), factors_of(true_i, circular_i)
    some = halves[0][:KERNEL_ROWS], halves[1][:KERNEL_ROWS]
    (linear_v,) = _each_r2(linear_r2, learned_v, [factors_v], halves)
    (linear_i,) = _each_r2(linear_r2, learned_i, [factors_i], halves)
    # both kinds of factor at once: they share the kernel's factorisations
    kernel_v, across_i = _each_r2(kernel_r2, learned_v, [factors_v, factors_i], some)
    across_v, kernel_i = _each_r2(kernel_r2, learned_i, [factors_v, factors_i], some)
    values = {
        "mcc": matched.total / true_v.shape[1],
        "mcc_spearman": ranked.total / true_v.shape[1],
        "mcc_active": matched.total / max(true_v.shape[1], _active(learned_v)),
        "mcc_shuffled": _shuffled(learned_v, true_v, circular_v, halves),
        "r2_linear": float(np.mean(linear_v)),
        "r2_responsive": float(np.mean(kernel_v)),
        "leakage": float(np.mean(across_v)),
    }
    if factors_i:
        values["r2_invariant_linear"] = float(np.mean(linear_i))
        values["r2_invariant"] = float(np.mean(kernel_i))
        values["leakage_invariant"] = float(np.mean(across_i))
    factors = _by_name(responsive_names, kernel_v, linear_v, across_v, matched.each, ranked.each)
    factors |= _by_name(invariant_names, kernel_i, linear_i, across_i, matched_i.each, ranked_i.each)
    return IdentifiabilityScores(values, tuple(warnings), matched.assignment, factors)


def _by_name(names: Sequence[str], *scores: Sequence[float]) -> dict[str, dict[str, float]]:
    """Scores of each named latent, each given as one number a latent, in the order of `FACTOR_SCORES`."""
    each = zip(*scores, strict=True)
    return {
        name: {score: float(value) for score, value in zip(FACTOR_SCORES, its, strict=True)}
        for name, its in zip(names, each, strict=False)  # no names, no latents
    }


def mcc(learned: ArrayLike, true: ArrayLike, *, periodic: Sequence[bool] = (), seed: int) -> float:
    """``mcc`` of ``identifiability_scores`` alone; between two trials' latents it is their agreement.

    Parameters
    ----------
    learned, true
        (n, a) and (n, d) latents of the same cells, n >= 12.
    periodic
        d flags, true where a column of ``true`` is an angle in radians; empty for none.
    seed
        Governs the halves.

    Raises
    ------
    NonFiniteError, ValueError
        As ``identifiability_scores``.
    """
    ours, theirs = as_matrix(learned, "learned latents"), as_matrix(true, "true latents")
    _check_rows(ours, theirs)
    circular = np.asarray(periodic, dtype=bool) if len(periodic) else np.zeros(theirs.shape[1], dtype=bool)
    if len(circular) != theirs.shape[1]:
        raise ValueError(f"{len(circular)} periodic flags for {theirs.shape[1]} true latents")
    return float(_Matching(ours, theirs, circular, random_halves(len(theirs), seed)).total / theirs.shape[1])


def match_latents(learned: ArrayLike, true: ArrayLike, *, seed: int = 0) -> tuple[NDArray[np.int64], Array]:
    """Which learned latent stands for each true one, as `mcc` matches them on one half of the cells, and its sign.

    Parameters
    ----------
    learned, true, seed
        As in ``mcc``; none is an angle.

    Returns
    -------
    assignment : (d,) int64 learned latent of each true one, −1 for none.
    sign : (d,) sign of their correlation on that half; 1 where there is none.

    Raises
    ------
    NonFiniteError, ValueError
        As ``identifiability_scores``.
    """
    ours, theirs = as_matrix(learned, "learned latents"), as_matrix(true, "true latents")
    _check_rows(ours, theirs)
    halves = random_halves(len(theirs), seed)
    match = np.array(_Matching(ours, theirs, np.zeros(theirs.shape[1], dtype=bool), halves).assignment)
    together = (_unit(theirs[halves[0]]) * _unit(ours[halves[0]])[:, match]).sum(axis=0)
    return match, np.where((match >= 0) & (together < 0), -1.0, 1.0)


class _Matching:
    """Hungarian matching on one half, |correlations| on the other: of each true latent, and their sum."""

    def __init__(self, learned: Array, true: Array, circular: Mask, halves: Halves, *, ranked: bool = False) -> None:
        ours, theirs = [learned[half] for half in halves], [true[half] for half in halves]
        if ranked:
            ours = [_ranks(half, np.zeros(half.shape[1], dtype=bool)) for half in ours]
            theirs = [_ranks(half, circular) for half in theirs]
        fitted, scored = _correlations(ours[0], ours[1], theirs[0], theirs[1], circular)
        rows, columns = linear_sum_assignment(-fitted)
        assignment = np.full(true.shape[1], -1)
        assignment[rows] = columns
        self.assignment: tuple[int, ...] = tuple(int(a) for a in assignment)
        self.each = [0.0] * true.shape[1]
        for row, column in zip(rows, columns, strict=True):
            self.each[row] = float(scored[row, column])
        self.total = float(scored[rows, columns].sum())


def _correlations(
    learned_fit: Array, learned_score: Array, true_fit: Array, true_score: Array, circular: Mask
) -> tuple[Array, Array]:
    """|Correlation| of each true with each learned latent, (d, a), on the fitting and on the scoring half."""
    fitted = np.abs(_unit(true_fit).T @ _unit(learned_fit))
    scored = np.abs(_unit(true_score).T @ _unit(learned_score))
    for k in np.flatnonzero(circular):
        pair, held_out = cos_sin(true_fit[:, k]), cos_sin(true_score[:, k])
        centre = pair.mean(axis=0)
        weights = np.linalg.lstsq(pair - centre, learned_fit - learned_fit.mean(axis=0), rcond=None)[0]
        fitted[k] = np.abs((_unit((pair - centre) @ weights) * _unit(learned_fit)).sum(axis=0))
        scored[k] = np.abs((_unit((held_out - centre) @ weights) * _unit(learned_score)).sum(axis=0))
    return fitted, scored


def _unit(values: Array) -> Array:
    """Columns centred and of length one; constant columns become zero, so that they correlate with nothing."""
    centred = values - values.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    flat = is_constant(values)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, length))


def _ranks(values: Array, circular: Mask) -> Array:
    """Columns replaced by their ranks, except angles: an angle has no order."""
    if values.shape[1] == 0:
        return values
    return np.where(circular, values, rankdata(values, axis=0))


def _shuffled(learned: Array, true: Array, circular: Mask, halves: Halves) -> float:
    rng = np.random.default_rng(halves[0])  # a stream of its own, which follows from the seed
    totals = [_Matching(learned[rng.permutation(len(learned))], true, circular, halves).total for _ in range(SHUFFLES)]
    return float(np.mean(totals) / true.shape[1])


def _each_r2(
    regression: Regression, learned: Array, blocks: Sequence[list[Array]], halves: Halves
) -> list[list[float]]:
    """R² of each factor of each block; 0 where nothing was learned."""
    if learned.shape[1] == 0:
        return [[0.0] * len(block) for block in blocks]
    fit, score = halves
    factors = [factor for block in blocks for factor in block]
    found = iter(regression(learned[fit], [f[fit] for f in factors], learned[score], [f[score] for f in factors]))
    return [[next(found) for _ in block] for block in blocks]


def _active(learned: Array) -> int:
    """Learned latents that vary: sd above ``ACTIVE`` of the block's largest, and not constant."""
    if learned.shape[1] == 0:
        return 0
    spread = learned.std(axis=0)
    return int(np.count_nonzero((spread > ACTIVE * spread.max()) & ~is_constant(learned)))


def _checked(*arrays: ArrayLike) -> tuple[Array, Array, Array, Array]:
    names = ("learned responsive latents", "learned invariant latents", "true responsive latents")
    v, i, true_v, true_i = (as_matrix(a, n) for a, n in zip(arrays, (*names, "true invariant latents"), strict=True))
    _check_rows(v, true_v)
    for learned in (v, i):
        _check_rows(learned, true_i, may_be_empty=True)
    return v, i, true_v, true_i


def _check_rows(learned: Array, true: Array, *, may_be_empty: bool = False) -> None:
    if len(learned) != len(true):
        raise ValueError(f"learned and true latents have {len(learned)} and {len(true)} rows; they must be the same")
    if len(true) < FEWEST_ROWS:
        raise ValueError(f"{len(true)} cells are too few to fit and score; at least {FEWEST_ROWS} are needed")
    if true.shape[1] == 0 and not may_be_empty:
        raise ValueError("there is no true latent to recover")


def _periodic_masks(
    periodic: Sequence[str], names_v: Sequence[str], names_i: Sequence[str], true_v: Array, true_i: Array
) -> tuple[Mask, Mask]:
    masks = []
    for names, true in ((names_v, true_v), (names_i, true_i)):
        if len(names) not in (0, true.shape[1]):
            raise ValueError(f"{len(names)} names for {true.shape[1]} true latents")
        masks.append(np.array([n in periodic for n in names] or [False] * true.shape[1], dtype=bool))
    unknown = set(periodic) - set(names_v) - set(names_i)
    if unknown:
        raise ValueError(f"periodic names no true latent: {', '.join(sorted(unknown))}")
    return masks[0], masks[1]


def _collapse_warnings(learned: Array, what: str) -> list[str]:
    if learned.shape[1] == 0:
        return [f"there is no {what}; its scores count 0"]
    flat = is_constant(learned)
    spread = learned.std(axis=0)
    faint = (spread <= ACTIVE * spread.max()) & ~flat
    found = [f"{what} {j} is constant and correlates with nothing" for j in np.flatnonzero(flat)]
    found += [f"{what} {j} has collapsed to under 1 % of the block's largest sd" for j in np.flatnonzero(faint)]
    return found


def _constant_warnings(true: Array, names: Sequence[str], kind: str) -> list[str]:
    return [
        f"true {kind} latent {names[k] if names else k} is constant in these cells and counts 0"
        for k in map(int, np.flatnonzero(is_constant(true)))
    ]
