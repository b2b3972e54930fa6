"""From a trial's latents to the scores that the literature on images takes: latent by latent, and of the whole.

They are taken where frames are images, whose latents have meanings of their own (a position, a hue). Simulated latents
are as good as exchangeable: there the means over a block say all, and a study of thousands of trials is spared a
hundred numbers a trial.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.data.batch import PerturbationData, Truth
from harness.data.seeding import derive
from harness.errors import UserError
from harness.evaluation.citris_scores import citris_scores
from harness.evaluation.classes import class_accuracy, majority_accuracy
from harness.evaluation.dci import dci_scores
from harness.evaluation.factors import factors_of, joined
from harness.evaluation.identifiability import IdentifiabilityScores
from harness.evaluation.published_r2 import FEWEST_ROWS, published_r2
from harness.evaluation.regression import r2
from harness.models import Latents
from harness.training.supervision import regression_targets

Array = NDArray[np.float64]
#: How the score of a model ends before and after training.
_STAGES = ("", "_untrained")


def has_images(data: PerturbationData) -> bool:
    """Whether frames are images."""
    return len(data.frame_shape) == 3


def check_published_r2(data: PerturbationData) -> None:
    """Refuse data without the rows that the published R² needs.

    Raises
    ------
    UserError
        Where the test split is too small, or there is no truth.
    """
    rows = len(data.splits["test"])
    if data.truth is None:
        raise UserError("evaluate.published_r2: these data have no true latents to score; leave it out")
    if rows < FEWEST_ROWS:
        raise UserError(
            f"evaluate.published_r2 needs {FEWEST_ROWS:,} test cells, and these data have {rows:,}; "
            "give more with data.test_cells, or leave it out"
        )


def latent_by_latent(found: IdentifiabilityScores, before: IdentifiabilityScores) -> dict[str, float]:
    """``identifiability/factor/<name>/<score>`` of the trained and of the untrained encoder."""
    return {
        f"identifiability/factor/{name}/{score}{stage}": value
        for scores, stage in zip((found, before), _STAGES, strict=True)
        for name, its in scores.factors.items()
        for score, value in its.items()
    }


def whole_scores(data: PerturbationData, latents: Latents, untrained: Latents, seed: int) -> dict[str, float]:
    """CITRIS's scores, DCI and the accuracy of the class, of both learned blocks together.

    Parameters
    ----------
    data
        With a truth.
    latents, untrained
        Of the test split, trained and at initialisation.
    seed
        Governs the halves that are fitted and scored.

    Returns
    -------
    ``identifiability/citris/...``, ``identifiability/dci/...`` and, where there are several classes,
    ``identifiability/class_accuracy``, each also ``_untrained``; beside the latter ``class_accuracy_majority``.
    """
    frames, truth = _test_frames(data), _truth(data)
    blocks = ((truth.responsive, truth.responsive_names), (truth.invariant, truth.invariant_names))
    factors = [part for block in blocks for part in _factors(truth, frames, *block)]
    halves = derive(seed, "halves")
    classes = None if truth.classes is None else truth.classes[frames].numpy()
    scored: dict[str, float] = {}
    for part, stage in zip((latents, untrained), _STAGES, strict=True):
        learned = joined(_array(part.responsive), _array(part.invariant))
        for group, scores in (("citris", citris_scores), ("dci", dci_scores)):
            found = scores(learned, factors, seed=halves)
            scored |= {f"identifiability/{group}/{name}{stage}": value for name, value in found.items()}
        if classes is not None and len(np.unique(classes)) > 1:
            scored[f"identifiability/class_accuracy{stage}"] = class_accuracy(learned, classes, seed=halves)
            scored["identifiability/class_accuracy_majority"] = majority_accuracy(classes, seed=halves)
    return scored


def published_scores(data: PerturbationData, latents: Latents, untrained: Latents, seed: int) -> dict[str, float]:
    """R² at the published sizes, each latent from the learned block of its own kind.

    Parameters are those of `whole_scores`.

    Returns
    -------
    ``identifiability/factor/<name>/r2_published`` (kernel ridge) and ``.../r2_linear_published``, and their means
    ``identifiability/r2_responsive_published``, ``identifiability/r2_linear_responsive_published`` and the same
    ``..._invariant_published``; each also ``_untrained``.
    """
    frames, truth = _test_frames(data), _truth(data)
    scored: dict[str, float] = {}
    for part, stage in zip((latents, untrained), _STAGES, strict=True):
        for kind in ("responsive", "invariant"):
            names = getattr(truth, f"{kind}_names")
            if not names:
                continue  # data may have no invariant latent
            factors = _factors(truth, frames, getattr(truth, kind), names)
            each = published_r2(_array(getattr(part, kind)), factors, seed=derive(seed, "halves"))
            for name, value in zip(names, each, strict=True):
                scored[f"identifiability/factor/{name}/r2_published{stage}"] = value.kernel
                scored[f"identifiability/factor/{name}/r2_linear_published{stage}"] = value.linear
            kernel, linear = np.mean(each, axis=0)
            scored[f"identifiability/r2_{kind}_published{stage}"] = float(kernel)
            scored[f"identifiability/r2_linear_{kind}_published{stage}"] = float(linear)
    return scored


def ceiling_scores(data: PerturbationData, latents: Latents, untrained: Latents) -> dict[str, float]:
    """R² of what a supervised model says of each latent, taken as it is: nothing is fitted to it.

    Parameters
    ----------
    data
        With a truth.
    latents, untrained
        What the model says of the latents of the test split, trained and at initialisation.

    Returns
    -------
    ``identifiability/ceiling/<name>/r2`` (an angle is the pair (cos, sin)), also ``_untrained``; where there are
    several classes ``.../r2_class_<c>`` on the cells of each; and over all latents ``identifiability/ceiling/r2_mean``
    and ``r2_worst``.
    """
    frames, truth = _test_frames(data), _truth(data)
    names = truth.responsive_names + truth.invariant_names
    true = _by_factor(truth, Latents(*(part[frames] for part in regression_targets(truth))))
    found = {stage: _by_factor(truth, part) for part, stage in zip((latents, untrained), _STAGES, strict=True)}
    scored = {
        f"identifiability/ceiling/{name}/r2{stage}": r2(true[name], part[name])
        for stage, part in found.items()
        for name in names
    }
    final = [scored[f"identifiability/ceiling/{name}/r2"] for name in names]
    scored["identifiability/ceiling/r2_mean"] = float(np.mean(final))
    scored["identifiability/ceiling/r2_worst"] = min(final)
    for which, rows in _rows_by_class(truth, frames.numpy()).items():
        for name in names:
            scored[f"identifiability/ceiling/{name}/r2_class_{which}"] = r2(true[name][rows], found[""][name][rows])
    return scored


def _by_factor(truth: Truth, latents: Latents) -> Mapping[str, Array]:
    """The columns (n, 1 or 2) of each factor, by name."""
    found = {}
    for block, names in zip(latents, (truth.responsive_names, truth.invariant_names), strict=True):
        columns, start = _array(block), 0
        for name in names:
            width = 2 if name in truth.periodic else 1
            found[name], start = columns[:, start : start + width], start + width
    return found


def _rows_by_class(truth: Truth, frames: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Positions in ``frames`` of each class; none where there is but one."""
    if truth.classes is None:
        return {}
    classes = truth.classes.numpy()[frames]
    names = np.unique(classes)
    return {int(which): np.flatnonzero(classes == which) for which in names} if len(names) > 1 else {}


def _test_frames(data: PerturbationData) -> Tensor:
    """Frames whose latents are scored: the last of each test row that training may see."""
    return data.last_frames(data.splits["test"])


def _truth(data: PerturbationData) -> Truth:
    if data.truth is None:
        raise ValueError("these data have no true latents to score")
    return data.truth


def _factors(truth: Truth, frames: Tensor, latents: Tensor, names: tuple[str, ...]) -> list[Array]:
    """One (n, c) array a latent of a block."""
    return factors_of(_array(latents[frames]), np.array([name in truth.periodic for name in names], dtype=bool))


def _array(latents: Tensor) -> Array:
    return latents.double().numpy()
