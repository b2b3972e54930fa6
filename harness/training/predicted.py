"""How well the conditions of validation cells are predicted from control cells, while training goes on.

Only training controls are predicted from, and only validation cells are compared with: no cell of a test or OOD split
plays a part, so that training may be stopped by it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.batch import PerturbationData
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

    Raises
    ------
    UserError
        If there is no perturbed validation cell, or no control cell to predict from.
    """

    def __init__(self, model: LatentModel, data: PerturbationData, device: torch.device) -> None:
        rows = {name: part for name, part in data.by_condition("validation").items() if name != "control"}
        controls = data.start_frames(data.control_rows("train")[:CONTROLS])
        controls = controls.repeat(draws_each(len(controls))) if len(controls) else controls
        if not rows or not len(controls):
            raise UserError(
                "train.monitor predicts the conditions of validation cells from training controls, and these data lack "
                "one of the two; use monitor: validation/loss"
            )
        frames = data.as_float(data.frames[controls])
        library = None if data.library is None else data.library[controls].to(device)
        with torch.no_grad():
            self.control = model.transform.prepare(frames.to(device), library)
        self.u = torch.stack([data.u[part[0]] for part in rows.values()]).to(device)
        self.start = frames.flatten(1).mean(0).to(device)
        means = [data.as_float(data.frames[data.last_frames(part)]).flatten(1).mean(0) for part in rows.values()]
        self.observed = torch.stack(means).to(device)
        self.steps = data.index[:1, : data.seen].shape[1] - 1
        self.model = model

    @torch.no_grad()
    def measure(self, generator: torch.Generator) -> dict[str, float]:
        """Means over conditions: ``rmse`` of the mean cell over features, ``pearson_delta`` of its change from control.

        Parameters
        ----------
        generator
            Source of the draws, on the model's device.
        """
        predicted = self._means(generator)
        rmse = (predicted - self.observed).square().mean(1).sqrt().mean()
        change, true = predicted - self.start, self.observed - self.start
        change, true = change - change.mean(1, keepdim=True), true - true.mean(1, keepdim=True)
        # no change but rounding is correlated with nothing: 0
        moved = change.norm(dim=1) > _ROUNDING * predicted.norm(dim=1)
        length = (change.norm(dim=1) * true.norm(dim=1)).clamp_min(1e-12)
        pearson = ((change * true).sum(1) / length * moved).mean()
        return {"validation/rmse": rmse.item(), "validation/pearson_delta": pearson.item()}

    def _means(self, generator: torch.Generator) -> Tensor:
        """Predicted mean cell of each condition, (c, features)."""
        n = len(self.control)
        total = self.observed.new_zeros(self.observed.shape)
        for part in torch.arange(n * len(self.u), device=total.device).split(_CHUNK):
            which = part // n
            cells = self._predict(self.control[part % n], self.u[which], generator).flatten(1).float()
            total.index_add_(0, which, cells)
        return total / n

    def _predict(self, control: Tensor, u: Tensor, generator: torch.Generator) -> Tensor:
        model, likelihood = self.model, self.model.likelihood
        outputs = model.predict_outputs(control, u, self.steps, generator)
        if likelihood.counts:  # the mean of log-normalised counts is not the logarithm of their mean
            return likelihood.draw(model.transform, outputs, control, generator)
        return likelihood.mean(model.transform, outputs)
