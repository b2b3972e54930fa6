"""What determines a trial's result, as types: model, data, training, evaluation, seed.

A leaf: it imports nothing of the project but its own parts, so that the study (above) and the trial (below) can both
read it. Where a trial runs (partition, workers, device) is no part of it; see ``harness.study.spec``.
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.data_spec import AnyDataSpec, PerturbseqData
from harness.model_spec import AnyModelSpec, DiscrepancyVAESpec, ModelSpec, SupervisedSpec
from harness.spec_part import Part

#: Raised by hand when a change alters results; part of every trial's id.
RESULTS_VERSION = 6


#: Metrics of validation cells' conditions as predicted from control cells.
PREDICTED_METRICS = ("validation/rmse", "validation/pearson_delta")
#: What the published code of discrepancy_vae goes by; a metric of training cells.
UNWEIGHTED = "train/unweighted"
Monitor = Literal["validation/loss", "validation/rmse", "validation/pearson_delta", "train/unweighted"]
CellNoise = Literal["none", "residual", "likelihood"]


class SecondStageSpec(Part):
    """Unmixing and mechanisms fitted again to posterior moments; for ``posterior: unmixed`` and a linear past."""

    restarts: int = Field(16, ge=0, description="random starts, of which the lowest loss is kept; 0 is no second stage")
    steps: int = Field(300, ge=1, description="optimisation steps of a start")
    after: float = Field(
        0.5, gt=0, le=1, description="share of the epochs after which it comes first; it comes again at the end"
    )


class StartsSpec(Part):
    """Initialisations that are tried, of which the one with the best monitored validation metric goes on."""

    number: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="initialisations; 1 tries none; auto: 4 for a causal model on data without true pairs, else 1",
    )
    share: float = Field(0.3, gt=0, lt=1, description="share of the epochs after which one is chosen")


class TrainSpec(Part):
    """How a model is fitted."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=2)
    batches: Literal["shuffled", "balanced", "by_condition"] = Field(
        "shuffled",
        description="what a mini-batch holds: any cells; as many of each condition; or perturbed cells of one",
    )
    learning_rate: float = Field(3e-3, gt=0)
    mechanism_rate: float = Field(5.0, gt=0, description="factor on the rate of mechanisms and unmixing")
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_clip: float | None = Field(10.0, gt=0, description="largest gradient norm")
    starts: StartsSpec = StartsSpec()
    second_stage: SecondStageSpec = SecondStageSpec()
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    monitor: Monitor = Field(
        "validation/loss",
        description="what best weights and patience go by; validation/rmse and validation/pearson_delta predict the "
        "validation cells' conditions from control cells, and are only taken where one of them is named here; "
        "train/unweighted is discrepancy_vae's, whose published code goes by training cells",
    )
    patience: int | None = Field(None, ge=1, description="validations without improvement before stopping")
    checkpoint_seconds: float = Field(20.0, ge=0, description="least time between checkpoints")
    keep: Literal["best", "all", "none"] = Field("best", description="weights kept once a trial ends")


#: Fewest test cells on which ``published_r2`` can be taken: those it fits and one batch of those it scores.
PUBLISHED_R2_CELLS = 12_288


class EvaluateSpec(Part):
    """Which scores are taken at the end."""

    identifiability: bool = True
    ood: bool = True
    conditions: bool = True
    rotation_steps: int = Field(
        300, ge=0, description="steps of the search for rotated latents that fit equally well; 0: no search"
    )
    cells: int = Field(500, ge=2, description="most cells of a condition in the OOD scores")
    cell_noise: Literal["auto"] | CellNoise = Field(
        "auto",
        description="what a predicted cell has beyond the likelihood's mean: none; residual: what the model leaves of "
        "the control cell it began as (our choice, no paper's), on average nothing; likelihood: a draw; auto: for "
        "single cells residual, with likelihood: nb a draw; else, and for discrepancy_vae, whose outputs are fitted to "
        "cells in distribution, none",
    )
    published_r2: bool = Field(
        False,
        description="R² at the published sizes too: fitted on 10,240 test cells, scored on 20,480 others; minutes",
    )

    @model_validator(mode="after")
    def _published_scores_are_wanted(self) -> EvaluateSpec:
        if self.published_r2 and not self.identifiability:
            raise ValueError("published_r2 is a score of identifiability; leave it out, or set identifiability: true")
        return self


class TrialSpec(Part):
    """One trial: a pure function of this gives its result."""

    model: AnyModelSpec
    data: AnyDataSpec
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    seed: int = Field(0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = Field(1, ge=1, description="CPU threads; part of the result, since sums depend on it")
    data_fingerprint: str
    results_version: int = RESULTS_VERSION

    @model_validator(mode="after")
    def _counts_are_there(self) -> TrialSpec:
        counted = isinstance(self.model, ModelSpec) and self.model.likelihood == "nb"
        if counted and not (isinstance(self.data, PerturbseqData) and self.data.values != "lognorm"):
            raise ValueError(
                "likelihood: nb needs counts, which only data of kind perturbseq can have, and values: lognorm says "
                "there are none; use likelihood: mse"
            )
        if counted and self.evaluate.cell_noise == "residual":
            raise ValueError(
                "evaluate.cell_noise: residual is for likelihood: mse, since counts have no residual to carry over; "
                "use likelihood, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _what_is_monitored_is_predicted(self) -> TrialSpec:
        if isinstance(self.model, SupervisedSpec) and self.train.monitor in PREDICTED_METRICS:
            raise ValueError(
                f"train.monitor: {self.train.monitor} needs predicted cells, and a supervised model predicts none; use "
                "validation/loss"
            )
        return self

    @model_validator(mode="after")
    def _what_is_monitored_is_measured(self) -> TrialSpec:
        if self.train.monitor == UNWEIGHTED and not isinstance(self.model, DiscrepancyVAESpec):
            raise ValueError(
                f"train.monitor: {UNWEIGHTED} is a sum of discrepancy_vae's terms, and {self.model.kind} has others; "
                "use validation/loss"
            )
        return self

    @property
    def cell_noise(self) -> CellNoise:
        """``evaluate.cell_noise``, with ``auto`` resolved."""
        asked = self.evaluate.cell_noise
        if asked != "auto":
            return asked
        if not isinstance(self.data, PerturbseqData) or isinstance(self.model, DiscrepancyVAESpec):
            return "none"
        return "likelihood" if isinstance(self.model, ModelSpec) and self.model.likelihood == "nb" else "residual"

    @property
    def trial_id(self) -> str:
        """Sixteen hex digits of a hash over everything that determines the result.

        The data count by their fingerprint alone, not by where they lie. How often checkpoints are written
        and which weights are kept do not count: a resumed trial gives the same numbers as an uninterrupted one.
        """
        return Identities().of(self)


class Identities:
    """Ids of trials, most of which share their parts: each part is written out once.

    A part is known again by being the same object, so that no id depends on what counts as equal.
    """

    def __init__(self) -> None:
        self._texts: dict[int, tuple[Part, str]] = {}

    def of(self, spec: TrialSpec) -> str:
        """A trial's id, as `TrialSpec.trial_id` describes it."""
        body = ",".join([f'"{key}":{self._text(getattr(spec, key))}' for key in _identifying()])
        return hashlib.sha256(f"{{{body}}}".encode()).hexdigest()[:16]

    def _text(self, value: object) -> str:
        """Canonical JSON of one field."""
        if not isinstance(value, Part):
            return _canonical(value)
        known = self._texts.get(id(value))
        if known is None:
            body = value.model_dump(mode="json")
            if isinstance(value, TrainSpec):
                for key in ("checkpoint_seconds", "keep"):
                    del body[key]
            known = self._texts[id(value)] = value, _canonical(body)  # the part is held, so that its id stays its own
        return known[1]


@functools.cache
def _identifying() -> tuple[str, ...]:
    """The fields that an id depends on, in order: all but the data, which count by their fingerprint."""
    return tuple(sorted(key for key in TrialSpec.model_fields if key != "data"))


#: Made once: a study of thousands would otherwise make one for every field of every trial.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
