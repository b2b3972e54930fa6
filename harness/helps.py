"""The helps of a trial: what its scores rest on and a user with her own cells does not have.

A leaf: it imports nothing of the project but other leaves, so that MLflow, tables and figures can all name helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from harness.data_spec import AnyDataSpec, ImageData, PerturbseqData, TemporalCausal3DIdentData
from harness.model_spec import AnyModelSpec, BetaVAESpec, CausalModelSpec, ModelSpec, SupervisedSpec
from harness.process_spec import CitrisSpec, LinearGaussianSpec
from harness.trial_spec import TrialSpec

Word = Literal["targets", "pairs", "sizes", "squash", "latents", "selection"]
#: What stands where a trial has no help.
NO_HELP = "none"
#: MLflow tag that holds the words of all helps.
HELPS_TAG = "helps"

TWINS, OVER_TIME = "twins", "over time"
_ORDER: tuple[Word, ...] = ("targets", "pairs", "sizes", "squash", "latents", "selection")
#: Details in the order in which they are named; those of squash are numbers.
_DETAILS = (TWINS, OVER_TIME, "responsive_dim", "latent_dim", "input_pca", "targets_per_perturbation")
_PAIRS = {
    TWINS: "each cell is trained beside its twin, the same cell under control with the same invariant latents. A user "
    "with her own cells has no twins, because an assay destroys the cell.",
    OVER_TIME: "the model follows the same cell over time. A user with her own cells cannot follow one, because an "
    "assay destroys the cell.",
}
_SENTENCES: dict[Word, str] = {
    "targets": "the model is told which latents each perturbation acts on. A user with her own cells does not know "
    "these.",
    "latents": "the model is trained on the true latents. A user with her own cells does not have these.",
    "selection": "settings were chosen by scores that need the truth or the test cells. A user with her own cells "
    "does not know the truth, and must not choose by cells that she tests on.",
}


@dataclass(frozen=True)
class Help:
    """One help.

    Attributes
    ----------
    word : its name in tables.
    details : of pairs: which kinds; of sizes: fields that equal the truth's; of squash: its values; else none.
    """

    word: Word
    details: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """Name of its tag in MLflow."""
        return f"oracle_{self.word}"

    @property
    def value(self) -> str:
        """Value of its tag in MLflow."""
        return ", ".join(self.details) if self.word in ("sizes", "squash") else "true"

    @property
    def sentence(self) -> str:
        """What it is, and that a user with her own cells does not have it."""
        named = ", ".join(self.details)
        if self.word == "pairs":
            return " Elsewhere ".join(_PAIRS[detail] for detail in self.details)
        if self.word == "sizes":
            return (
                f"sizes of the model equal those of the truth ({named}). A user with her own cells does not know how "
                "many latents or targets there are."
            )
        if self.word == "squash":
            return (
                f"latents move the picture more gently than by default (squash {named} instead of {_squash():g}). A "
                "user with her own cells cannot choose how strongly they respond."
            )
        return _SENTENCES[self.word]


def is_file_of_cells(data: AnyDataSpec) -> bool:
    """Whether the data are somebody's cells, of which no truth is known; released images come with theirs."""
    return isinstance(data, PerturbseqData) and data.path is not None


def helps_of(spec: TrialSpec, *, selected: bool) -> tuple[Help, ...]:
    """The helps of one trial, in the order in which they are always named.

    Parameters
    ----------
    spec
        The trial.
    selected
        Whether its settings were chosen by scores that need the truth, which the study knows.
    """
    return tuple(_found(spec.model, spec.data, selected))


def united(helps: Iterable[Help]) -> tuple[Help, ...]:
    """The helps of several trials as those of one: each once, with the details of all."""
    details: dict[Word, set[str]] = {}
    for one in helps:
        details.setdefault(one.word, set()).update(one.details)
    return tuple(Help(word, tuple(sorted(details[word], key=_place))) for word in _ORDER if word in details)


def words(helps: Iterable[Help]) -> str:
    """The helps as a table names them, ``targets, pairs``; ``none`` where there are none."""
    return ", ".join(one.word for one in helps) or NO_HELP


def tags(helps: Iterable[Help]) -> dict[str, str]:
    """Tags of an MLflow run: one for each help, and one with all their words."""
    helps = tuple(helps)
    return {HELPS_TAG: words(helps), **{one.tag: one.value for one in helps}}


def footnotes(helps: Iterable[Help]) -> list[str]:
    """One line for each help, which says in plain words what it is."""
    return [f"Help {one.word}: {one.sentence}" for one in united(helps)]


def _found(model: AnyModelSpec, data: AnyDataSpec, selected: bool) -> Iterator[Help]:
    if _is_told_targets(model, data):
        yield Help("targets")
    if not is_file_of_cells(data):
        if data.pairs == "true" and _pairs(model):
            yield Help("pairs", (OVER_TIME if _is_over_time(data) else TWINS,))
        if sizes := tuple(_true_sizes(model, data)):
            yield Help("sizes", sizes)
        if isinstance(data, ImageData) and isinstance(data.process, LinearGaussianSpec) and data.squash > _squash():
            yield Help("squash", (f"{data.squash:g}",))
        if isinstance(model, SupervisedSpec):
            yield Help("latents")
    if selected:
        yield Help("selection")


def _is_told_targets(model: AnyModelSpec, data: AnyDataSpec) -> bool:
    """Whether a model is told which latents perturbations act on; ``auto`` tells it where the data know."""
    if not isinstance(model, CausalModelSpec) or model.mechanisms != "targeted":
        return False
    return model.targets in ("known", "known_unordered") or (model.targets == "auto" and not is_file_of_cells(data))


def _pairs(model: AnyModelSpec) -> bool:
    """Whether a model takes the true pairs that its data offer."""
    return not isinstance(model, BetaVAESpec | SupervisedSpec) and model.pairing in ("auto", "true")


def _is_over_time(data: AnyDataSpec) -> bool:
    steps = data.process.steps if isinstance(data.process, LinearGaussianSpec) else 1
    return isinstance(data, TemporalCausal3DIdentData) or steps > 1


def _true_sizes(model: AnyModelSpec, data: AnyDataSpec) -> Iterator[str]:
    """Fields of a model that equal the true number of latents, or of targets."""
    responsive, invariant = _numbers(data)
    if isinstance(model, CausalModelSpec) and model.d_v == responsive:
        yield "responsive_dim"
    if isinstance(model, ModelSpec) and model.latent_dim == responsive + invariant:
        yield "latent_dim"
    if model.input_pca == responsive + invariant:
        yield "input_pca"
    if _learned_targets(model) == _targets_of_one(data):
        yield "targets_per_perturbation"


def _learned_targets(model: AnyModelSpec) -> int | None:
    """Most targets that a model learns for one perturbation; None where it learns none."""
    if isinstance(model, CausalModelSpec) and model.mechanisms == "targeted" and model.targets == "learned":
        return model.targets_per_perturbation
    return None


def _numbers(data: AnyDataSpec) -> tuple[int, int]:
    """True numbers of responsive and of invariant latents."""
    if isinstance(data, ImageData):
        return len(data.responsive), len(data.invariant)
    return data.process.responsive, data.process.invariant


def _targets_of_one(data: AnyDataSpec) -> int:
    """Most latents that one perturbation truly acts on."""
    if isinstance(data.process, LinearGaussianSpec):
        return data.process.targets_per_perturbation
    if isinstance(data, TemporalCausal3DIdentData) and isinstance(data.process, CitrisSpec):
        return max(len(parts) for parts in data.variables.values())
    return 1  # the graph of Causal3DIdent: every environment shifts one mechanism


def _squash() -> float:
    """The squash that images have by default."""
    return float(ImageData.model_fields["squash"].default)


def _place(detail: str) -> tuple[int, float]:
    return (_DETAILS.index(detail), 0.0) if detail in _DETAILS else (len(_DETAILS), float(detail))
