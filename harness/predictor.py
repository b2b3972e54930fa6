"""Cells of a condition from a trained model and control cells, as various as cells are.

A decoder's output is a mean: cells predicted by it alone vary less than real ones, and compare badly with them by any
distance between distributions, however right their mean. What is added to it (``evaluate.cell_noise``) is

    none         nothing;
    residual     x_c − g(z), z ~ q(z | x_c), what the model leaves of the control cell x_c that a prediction began as,
                 less its mean over the training controls: our choice, no paper's. Latents are drawn, since x − g(z) has
                 the law of observation noise where (x, z) have their joint law; left at posterior means, it lacks the
                 noise within the decoder's range, on real cells a seventh of a cell's variance. The z_i drawn is the
                 prediction's own. Without the mean taken off, a prediction would be corrected by the model's mean
                 error on controls, and have the advantage of a shift of control cells, which every baseline is;
    likelihood   a draw from the fitted likelihood: for counts negative-binomial, with the control cell's library size.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.batch import PerturbationData
from harness.data.seeding import drawn, generator
from harness.latent_scoring import u_of
from harness.models import LatentModel
from harness.models.causal_vae import CausalVAE
from harness.training.predicted import draws_each

#: Most training controls over which the mean residual is taken; bounds memory for images.
RESIDUAL_CELLS = 2000
#: Least number of draws behind that mean, so that theirs is none of a prediction's error.
RESIDUAL_DRAWS = 4000

Array = NDArray[np.float64]


class Predicted(NamedTuple):
    """Predicted cells (n, *shape) in the units of float frames, and their latents, for models that predict some."""

    cells: Tensor
    responsive: Tensor | None
    invariant: Tensor | None


class CellPredictor:
    """Predicts cells under any u from control frames.

    Parameters
    ----------
    model
        Put into evaluation mode.
    data
        What it was trained on.
    noise
        ``none``, ``residual`` or ``likelihood``; see the module.
    """

    def __init__(self, model: LatentModel, data: PerturbationData, noise: str) -> None:
        self.model, self.data, self.noise = model.eval(), data, noise
        self.device = next(model.parameters()).device
        self.mean_residual: Tensor | None = None
        if noise == "residual":
            # not by a trial's seed: what is predicted later has the same mean residual as what was scored
            rows = drawn(data.control_rows("train"), RESIDUAL_CELLS, 0, "mean residual")
            self.mean_residual = self._mean_residual(data.start_frames(rows))

    @torch.no_grad()
    def __call__(self, control: Tensor, library: Tensor | None, u: Tensor, random: torch.Generator) -> Predicted:
        """Cells under ``u`` (p,) that began as float control frames (n, *shape), of libraries (n,) where there are."""
        model, steps = self.model, self.data.index.shape[1] - 1
        prepared = self._prepared(control, library)
        residual = None if self.mean_residual is None else self._own_residual(control, random) - self.mean_residual
        under = u.to(self.device).expand(len(control), -1)
        responsive: Tensor | None = None
        invariant: Tensor | None = None
        if isinstance(model, CausalVAE):
            responsive, invariant = model.predict_latents(prepared, under, steps, random)
            outputs = model.decode_latents(responsive, invariant)
        else:
            outputs = model.predict_outputs(prepared, under, steps, random)
        if self.noise == "likelihood":
            cells = model.likelihood.draw(model.transform, outputs, prepared, random)
        else:
            cells = model.likelihood.mean(model.transform, outputs)
        return Predicted(cells if residual is None else cells + residual, responsive, invariant)

    def _prepared(self, control: Tensor, library: Tensor | None) -> Tensor:
        library = None if library is None else library.to(self.device)
        return self.model.transform.prepare(control.to(self.device), library)

    def _own_residual(self, control: Tensor, random: torch.Generator) -> Tensor:
        """Residuals of control frames (n, *shape) at the z_i that a prediction with ``random`` draws next."""
        kept, ahead = random.clone_state(), random.clone_state()
        seed = int(torch.randint(2**62, (), generator=ahead, device=self.device))
        rest = torch.Generator(self.device).manual_seed(seed)
        return self._residual(control, kept, rest)

    @torch.no_grad()
    def _residual(self, control: Tensor, kept: torch.Generator, rest: torch.Generator) -> Tensor:
        """What is left of control frames (n, *shape) at latents as `LatentModel.reconstruct_outputs` draws them."""
        model = self.model
        outputs = model.reconstruct_outputs(self._prepared(control, None), kept, rest)
        return control.to(self.device) - model.likelihood.mean(model.transform, outputs)

    def _mean_residual(self, frames: Tensor) -> Tensor:
        """Mean residual (*shape) of control frames, by index (n,), over many draws."""
        random = generator(0, "mean residual", device=self.device)
        many = frames.repeat(-(-RESIDUAL_DRAWS // len(frames)))
        parts = [self._residual(self.data.as_float(self.data.frames[part]), random, random) for part in many.split(500)]
        return torch.stack([part.sum(0) for part in parts]).sum(0) / len(many)


class Predictor:
    """Predicts cells of a condition from control cells, in flattened units of the data.

    Parameters
    ----------
    model, data
        The trained model and the data whose perturbations it knows.
    seed
        Governs the draws.
    noise
        ``none``, ``residual`` or ``likelihood``; see the module.
    """

    def __init__(self, model: LatentModel, data: PerturbationData, seed: int, noise: str = "none") -> None:
        self.data, self.seed = data, seed
        self.predict = CellPredictor(model, data, noise)
        self._stratum: int | None = None
        self._started: tuple[Array, Tensor] | None = None
        self._first: Array | None = None

    def within(self, stratum: int | None) -> Predictor:
        """The same, where all control cells are of one stratum."""
        own = copy.copy(self)
        own._stratum, own._started, own._first = stratum, None, None
        return own

    def __call__(self, condition: str, control: Array) -> Array:
        """Cells of ``condition`` from control cells (n, features): as many, or several of each where they are few.

        Raises
        ------
        CannotPredict
            If nothing is known of a member of it.
        """
        u = u_of(condition, self.data)
        random = generator(self.seed, "prediction", condition, device=self.predict.device)
        control = self._starts(control)
        frames = torch.as_tensor(control, dtype=torch.float32).unflatten(1, self.data.frame_shape)
        library = self._libraries(control, frames)
        each = draws_each(len(frames))
        if each > 1:
            frames = frames.repeat_interleave(each, dim=0)
            library = None if library is None else library.repeat_interleave(each)
        found = self.predict(frames, library, u, random)
        return found.cells.flatten(1).double().cpu().numpy()

    def _starts(self, control: Array) -> Array:
        """The control cells themselves; of a time course whose cells are seen once, as many of its first time.

        There the control cells that predictions are compared with are of the last time, and no model starts from it.
        """
        data = self.data
        if data.pairs != "drawn":
            return control
        if self._first is None or len(self._first) != len(control):
            known = data.start_frames(data.control_rows("train", self._stratum))
            drawn = torch.randint(len(known), (len(control),), generator=generator(self.seed, "first cells"))
            self._first = data.as_float(data.frames[known[drawn]]).flatten(1).double().numpy()
        return self._first

    def _libraries(self, control: Array, frames: Tensor) -> Tensor | None:
        """Library size (n,) of each control cell: that of the nearest training control, which is the cell itself."""
        if self.data.library is None or self.predict.noise != "likelihood":
            return None
        if self._started is None or self._started[0] is not control:
            known = self.data.start_frames(self.data.control_rows("train", self._stratum))
            nearest = [torch.cdist(part, self.data.frames[known]).argmin(1) for part in frames.split(500)]
            self._started = control, self.data.library[known[torch.cat(nearest)]]
        return self._started[1]
