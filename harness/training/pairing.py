"""Which control frame each perturbed cell is trained beside."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.batch import PerturbationData
from harness.data.seeding import generator
from harness.data.transport import COMPONENTS, partners_of
from harness.errors import UserError


class Pairing:
    """Gives the frame index of a split's rows, its first column the control frame.

    Parameters
    ----------
    data
        The data; ``data.pairs`` says what their own first column holds.
    kind
        ``auto`` (what the data offer: true pairs, nearest images, random controls or none), ``true``, ``random``
        (drawn anew each epoch), ``ot`` (optimal transport between a condition's cells and the controls, once) or
        ``none``.
    seed
        The trial's seed.

    Raises
    ------
    UserError
        If the data cannot be paired so.
    """

    def __init__(self, data: PerturbationData, kind: str, seed: int) -> None:
        if kind == "auto":
            kind = data.pairs
        if data.pairs == "drawn" and kind in ("true", "random", "ot"):
            raise UserError(
                f"pairing: {kind} is not possible with a time course of a file, whose cells data.time_pairs has put "
                "into rows; use pairing: auto"
            )
        if kind == "true" and data.pairs == "nearest":
            raise UserError(
                "pairing: true needs data with true pairs, and these have the nearest stored images instead; use auto, "
                "which takes those as they are"
            )
        if kind == "true" and data.pairs != "true":
            raise UserError("pairing: true needs data with true pairs, which these do not have; use random or ot")
        if kind in ("random", "ot") and data.index.shape[1] > 2:
            raise UserError(f"pairing: {kind} would break the trajectories of these data; use pairing: auto")
        self.data, self.kind, self.seed = data, kind, seed
        self._transported: dict[str, Tensor] = {}

    def index(self, split: str, epoch: int) -> Tensor:
        """Frame index (k, T) of the rows of ``split`` in ``epoch``; (k, seen) where later times are held out."""
        rows = self.data.splits[split]
        index = self.data.index[rows, : self.data.seen]
        if self.kind in ("true", "nearest", "none", "drawn"):
            return index
        controls = self.data.index[self.data.control_rows(split), -1]
        if len(controls) == 0:
            raise UserError(f"the {split} split has no control cells to pair with; use pairing: none or more cells")
        if self.kind == "ot":
            if split not in self._transported:
                self._transported[split] = self._transport(rows, controls)
            first = self._transported[split]
        else:
            random = generator(self.seed, "pairing", split, epoch)
            first = controls[torch.randint(len(controls), (len(rows),), generator=random)]
        return torch.cat([first[:, None], index[:, 1:]], dim=1)

    def _transport(self, rows: Tensor, controls: Tensor) -> Tensor:
        """The control (k,) beside each row: `partners_of` each condition's cells, among the split's controls."""
        frames = self.data.as_float(self.data.frames).flatten(1)
        cells = self.data.index[rows, -1]
        _, _, basis = torch.linalg.svd(frames[controls] - frames[controls].mean(0), full_matrices=False)
        basis = basis[:COMPONENTS].T
        low_cells, low_controls = frames[cells] @ basis, (frames[controls] @ basis).numpy()
        partner = torch.empty(len(rows), dtype=torch.int64)
        condition = self.data.condition[rows]
        for which in condition.unique():
            here = torch.nonzero(condition == which).flatten()
            partner[here] = controls[torch.from_numpy(partners_of(low_cells[here].numpy(), low_controls))]
        return partner
