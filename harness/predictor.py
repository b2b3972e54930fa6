"""Cells of a condition from a trained model and control cells."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.batch import PerturbationData
from harness.data.seeding import generator
from harness.latent_scoring import u_of
from harness.models import LatentModel

Array = NDArray[np.float64]


class Predictor:
    """Predicts cells of a condition from control cells, in flattened units of the data.

    Parameters
    ----------
    model, data
        The trained model and the data whose perturbations it knows.
    seed
        Governs the draws.
    """

    def __init__(self, model: LatentModel, data: PerturbationData, seed: int) -> None:
        self.model, self.data, self.seed = model, data, seed

    @torch.no_grad()
    def __call__(self, condition: str, control: Array) -> Array:
        """Cells (n, features) of ``condition`` from control cells (n, features)."""
        u = u_of(condition, self.data).expand(len(control), -1)
        device = next(self.model.parameters()).device
        frames = torch.as_tensor(control, dtype=torch.float32).unflatten(1, self.data.frame_shape).to(device)
        random = generator(self.seed, "prediction", condition, device=device)
        steps = self.data.index.shape[1] - 1
        self.model.eval()
        predicted = self.model.predict(self.model.transform.prepare(frames), u.to(device), steps, random)
        return predicted.flatten(1).double().cpu().numpy()
