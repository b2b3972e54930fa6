"""How the cells of a screen are split, as a study file says it; a leaf, which imports nothing but other leaves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from harness.spec_part import Part

Share = Annotated[float, Field(gt=0, lt=1)]
Named = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Times = Annotated[tuple[str | float, ...], Field(strict=False, min_length=1)]


class RuledSplit(Part):
    """Fields of every split that is drawn by a rule, with ``data.seed``."""

    validation_conditions: Share | Named | None = Field(
        None,
        description="conditions that only validate and never train, for early stopping: a share of those that would be "
        "predicted (of all that can be predicted unseen, where the split predicts none), or names such as A+B",
    )

    @property
    def word(self) -> str:
        """Its kind."""
        return str(type(self).model_fields["kind"].default)


class SinglesToDoubles(RuledSplit):
    """Control and all singles train, all doubles are predicted."""

    kind: Literal["singles_to_doubles"] = "singles_to_doubles"


class ComboSeenK(RuledSplit):
    """Doubles are predicted by how many of their members training saw alone, 0, 1 or 2 (after GEARS)."""

    kind: Literal["combo_seen_k"] = "combo_seen_k"
    held_out: Share | Named = Field(
        0.25, description="perturbations that training never sees: share of singles, or names"
    )
    train_doubles: float = Field(
        0.75, ge=0, lt=1, description="share of the doubles with both members seen that trains; the rest is predicted"
    )


class LeavePerturbationOut(RuledSplit):
    """All conditions with a held-out perturbation are predicted; all others train, doubles too."""

    kind: Literal["leave_perturbation_out"] = "leave_perturbation_out"
    held_out: Share | Named = Field(0.2, description="perturbations that training never sees: share of all, or names")


class LeaveTimeOut(RuledSplit):
    """The last times of a time course are predicted."""

    kind: Literal["leave_time_out"] = "leave_time_out"
    held_out: Annotated[int, Field(ge=1)] | Times = Field(
        1, description="how many of the last times, or which ones, as the file writes them"
    )


class RandomCells(RuledSplit):
    """Cells at random, every condition trains: a reference, in which nothing is out of distribution."""

    kind: Literal["random_cells"] = "random_cells"


class ReplaySplit(Part):
    """The split of an earlier trial, cell by cell."""

    kind: Literal["replay"] = "replay"
    path: str = Field(description="split.json of a trial on the same cells")


def _worded(value: object) -> object:
    """A bare word is a split with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


AnySplit = Annotated[
    Annotated[
        SinglesToDoubles | ComboSeenK | LeavePerturbationOut | LeaveTimeOut | RandomCells | ReplaySplit,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_worded),
]
