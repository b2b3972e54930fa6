"""How well the conditions of validation cells are predicted from control cells, while training goes on.

Only training controls are predicted from, and only validation cells are compared with: no cell of a test or OOD split
plays a part, so that training may be stopped by it. Observed changes are taken from validation's own control cells,
predicted ones from the training controls that predictions start from. Where cells have strata, each is compared within.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from harness.data.batch import PerturbationData
from harness.data.seeding import drawn
from harness.errors import UserError
from harness.models import LatentModel

#: Most control cells a condition is predicted from.
CONTROLS = 128
#: Cells drawn of a condition, at the least half as many: a mean over few draws is mostly their noise.
DRAWS = 384
#: Cells predicted at a time.
_CHUNK = 4096
#: Relative change of a mean cell that is none, in single precision.
_ROUNDING = 1e-5


def draws_each(controls: int) -> int:
    """How many cells are drawn from each of so many control cells."""
    return max(1, DRAWS // controls)


class PredictedConditions:
    """Compares predicted with observed means of each perturbed condition that has validation cells.

    Parameters
    ----------
    model
        Whose transform is fitted.
    data
        The data.
    device
        Where the model is.
    seed
        The trial's, which governs the control cells that predictions start from.

    Raises
    ------
    UserError
        If there is no perturbed validation cell, or no control cell to predict from or to compare with.
    """

    def __init__(self, model: LatentModel, data: PerturbationData, device: torch.device, seed: int) -> None:
        self.model = model
        self.steps = data.index[:1, : data.seen].shape[1] - 1
        parts = [part for stratum in data.each_stratum if (part := _stratum(data, stratum, seed)) is not None]
        if not parts:
            raise UserError(
                "train.monitor predicts the conditions of validation cells from training controls, and compares their "
                "changes from validation controls, and these data lack one of the three; use monitor: validation/loss"
            )
        self._groups = [_Group.of(model, data, part, device) for part in parts]

    @torch.no_grad()
    def measure(self, generator: torch.Generator) -> dict[str, float]:
        """Means over conditions: ``rmse`` of the mean cell over features, ``pearson_delta`` of its change from control.

        Parameters
        ----------
        generator
            Source of the draws, on the model's device.
        """
        errors, correlations = [], []
        for group in self._groups:
            predicted = self._means(group, generator)
            errors.append((predicted - group.observed).square().mean(1).sqrt())
            change, true = predicted - group.start, group.observed - group.control_mean
            change, true = change - change.mean(1, keepdim=True), true - true.mean(1, keepdim=True)
            # no change but rounding is correlated with nothing: 0
            moved = change.norm(dim=1) > _ROUNDING * predicted.norm(dim=1)
            length = (change.norm(dim=1) * true.norm(dim=1)).clamp_min(1e-12)
            correlations.append((change * true).sum(1) / length * moved)
        return {
            "validation/rmse": torch.cat(errors).mean().item(),
            "validation/pearson_delta": torch.cat(correlations).mean().item(),
        }

    def _means(self, group: _Group, generator: torch.Generator) -> Tensor:
        """Predicted mean cell of each condition, (c, features)."""
        n = len(group.control)
        total = group.observed.new_zeros(group.observed.shape)
        for part in torch.arange(n * len(group.u), device=total.device).split(_CHUNK):
            which = part // n
            cells = self._predict(group.control[part % n], group.u[which], generator).flatten(1).float()
            total.index_add_(0, which, cells)
        return total / n

    def _predict(self, control: Tensor, u: Tensor, generator: torch.Generator) -> Tensor:
        model, likelihood = self.model, self.model.likelihood
        outputs = model.predict_outputs(control, u, self.steps, generator)
        if likelihood.counts:  # the mean of log-normalised counts is not the logarithm of their mean
            return likelihood.draw(model.transform, outputs, control, generator)
        return likelihood.mean(model.transform, outputs)


class _Rows(NamedTuple):
    """Rows of one stratum: perturbed validation cells by condition, validation controls, training controls drawn."""

    conditions: dict[str, Tensor]
    controls: Tensor
    starts: Tensor


def _stratum(data: PerturbationData, stratum: int | None, seed: int) -> _Rows | None:
    """Rows that one stratum is compared by; None where it lacks some."""
    rows = {name: part for name, part in data.by_condition("validation", stratum).items() if name != "control"}
    controls = data.control_rows("validation", stratum)
    starts = drawn(data.control_rows("train", stratum), CONTROLS, seed, "monitored controls", str(stratum))
    return _Rows(rows, controls, starts) if rows and len(controls) and len(starts) else None


class _Group(NamedTuple):
    """Of one stratum: prepared control cells (n, ...), conditions' u (c, p), and means over cells, (features,)."""

    control: Tensor
    u: Tensor
    start: Tensor
    observed: Tensor
    control_mean: Tensor

    @classmethod
    def of(cls, model: LatentModel, data: PerturbationData, rows: _Rows, device: torch.device) -> _Group:
        """Read from the data, onto the device."""
        starts = data.start_frames(rows.starts)
        starts = starts.repeat(draws_each(len(starts)))
        frames = data.as_float(data.frames[starts])
        library = None if data.library is None else data.library[starts].to(device)
        with torch.no_grad():
            control = model.transform.prepare(frames.to(device), library)

        def mean(part: Tensor) -> Tensor:
            return data.as_float(data.frames[data.last_frames(part)]).flatten(1).mean(0).to(device)

        return cls(
            control=control,
            u=torch.stack([data.u[part[0]] for part in rows.conditions.values()]).to(device),
            # of a time course not the cells of the first time: what time does is no change of a perturbation's
            start=mean(rows.starts),
            observed=torch.stack([mean(part) for part in rows.conditions.values()]),
            control_mean=mean(rows.controls),
        )
