"""Which control frame each perturbed cell is trained beside."""

from __future__ import annotations

from collections.abc import Iterator

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
        if kind == "nearest" and data.index.shape[1] > 2:
            kind = "drawn"  # frames that go from each time to the next, of images that are not one cell's
        if data.pairs == "drawn" and kind in ("true", "random", "ot"):
            raise UserError(
                f"pairing: {kind} is not possible with a time course of a file, whose cells data.time_pairs has put "
                "into rows; use pairing: auto, or data.time: none to read the cells as one snapshot"
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
        if self.kind == "ot":
            if split not in self._transported:
                self._transported[split] = self._transport(split, rows)
            first = self._transported[split]
        else:
            first = self._drawn(split, rows, epoch)
        return torch.cat([first[:, None], index[:, 1:]], dim=1)

    def _drawn(self, split: str, rows: Tensor, epoch: int) -> Tensor:
        """A control (k,) beside each row, drawn at random within its stratum."""
        random = generator(self.seed, "pairing", split, epoch)
        first = torch.empty(len(rows), dtype=torch.int64)
        for here, controls in self._strata(split, rows):
            first[here] = controls[torch.randint(len(controls), (len(here),), generator=random)]
        return first

    def _strata(self, split: str, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each stratum the places of its rows among ``rows``, and the frames of the split's control cells."""
        data = self.data
        for stratum in data.each_stratum:
            everywhere = torch.arange(len(rows))
            here = everywhere if stratum is None or data.stratum is None else everywhere[data.stratum[rows] == stratum]
            controls = data.index[data.control_rows(split, stratum), -1]
            if len(here) and not len(controls):
                within = "" if stratum is None else f" in stratum {data.strata[stratum]}"
                raise UserError(
                    f"the {split} split has no control cells to pair with{within}; use pairing: none or more cells"
                )
            if len(here):
                yield here, controls

    def _transport(self, split: str, rows: Tensor) -> Tensor:
        """The control (k,) beside each row: `partners_of` each condition's cells, among its stratum's controls."""
        frames = self.data.as_float(self.data.frames).flatten(1)
        partner = torch.empty(len(rows), dtype=torch.int64)
        for here, controls in self._strata(split, rows):
            _, _, basis = torch.linalg.svd(frames[controls] - frames[controls].mean(0), full_matrices=False)
            basis = basis[:COMPONENTS].T
            low_controls = (frames[controls] @ basis).numpy()
            condition = self.data.condition[rows[here]]
            for which in condition.unique():
                own = here[condition == which]
                low_cells = (frames[self.data.index[rows[own], -1]] @ basis).numpy()
                partner[own] = controls[torch.from_numpy(partners_of(low_cells, low_controls))]
        return partner
