"""The one type every data family gives: frames, trajectories over them, perturbations, splits and truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mechanisms:
    """Linear-Gaussian mechanisms of e environments; environment 0 is control (u0).

    Attributes
    ----------
    graph : (e, d_v, d_v), strictly lower triangular L_vv; row k holds the weights into responsive latent k.
    graph_invariant : (e, d_v, d_i), L_vi.
    lagged : (e, d_v, d_v), B; zeros where the process has no time.
    mean : (e, d_v), μ_v.
    variance : (e, d_v), β_v > 0.
    lagged_tanh : (e, d_v, d_v), weights of tanh z_v(before), taken of each latent; None where time acts linearly.
    """

    graph: Tensor
    graph_invariant: Tensor
    lagged: Tensor
    mean: Tensor
    variance: Tensor
    lagged_tanh: Tensor | None = None

    def select(self, environments: Sequence[int]) -> Mechanisms:
        """Mechanisms of some environments, in the order given."""
        chosen = list(environments)
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        return replace(self, **{name: value[chosen] for name, value in parts.items() if value is not None})


@dataclass(frozen=True)
class Truth:
    """What a generator knows and a model must not see.

    Attributes
    ----------
    responsive : (m, d_v) true responsive latents of each frame.
    invariant : (m, d_i) true invariant latents of each frame.
    responsive_names, invariant_names : names of the columns.
    periodic : names of latents that are angles and close on themselves.
    mechanisms : of control and each single perturbation, in the order of ``perturbations``; None where the
        process is not linear-Gaussian.
    mixing : g, from latents (k, d_v + d_i), responsive first, to noiseless frames (k, features); the very function
        that made the frames, differentiable in the latents. None where frames have no such function (images, counts).
    classes : (m,) int64 class of each frame's object, a factor of its own; None where there are no objects.
    """

    responsive: Tensor
    invariant: Tensor
    responsive_names: tuple[str, ...]
    invariant_names: tuple[str, ...]
    periodic: tuple[str, ...] = ()
    mechanisms: Mechanisms | None = None
    mixing: Callable[[Tensor], Tensor] | None = None
    classes: Tensor | None = None


@dataclass(frozen=True)
class PerturbationData:
    """A data set of perturbed cells (or images), the same type for every family.

    A *frame* is one observation of one cell at one time. A *row* is a cell's trajectory: ``index[r, 0]`` is
    its control frame (for a snapshot, its paired control; for a time course, the state before the
    perturbation acts) and ``index[r, 1:]`` are the frames under ``u[r]``. A snapshot screen so has T = 2.

    Attributes
    ----------
    frames : (m, features) float32, or (m, 3, height, width) uint8 images. Each observation once.
    index : (n, T) int64 rows of ``frames``, T >= 2.
    u : (n, p) float32; one-hot, two-hot for a double, zero for control rows. Where there are ``perturbation_vectors``,
        (n, f): the sum of the members' vectors, zero for control rows.
    condition : (n,) int64 into ``conditions``.
    conditions : names; ``conditions[0] == "control"``; a double is ``A+B``, members in sorted order.
    perturbations : p names, the perturbations that training saw; the columns of a one-hot ``u``.
    splits : name -> (k,) int64 rows. Always ``train``, ``validation`` and ``test`` (held-out cells of
        conditions seen in training), and one for each name in ``ood``. They are disjoint, and no frame
        of ``validation``, ``test`` or an OOD split's perturbed frames is in ``train``; but ``later``, where there is
        one, holds rows of ``test`` again, for the sake of their last frames.
    ood : splits whose conditions are predicted, not seen; scored per condition.
    pairs : what column 0 of ``index`` holds. ``true``: a true pair (same invariant noise, or the same cell earlier);
        ``nearest``: the stored image nearest to a true pair's, which shares the invariant latents about, and no more;
        ``random``: a control drawn at random within the split (for OOD splits, within ``test``), which training may
        draw anew; ``none``: no control at all but the perturbed frame once more; ``drawn``: a time course whose frames
        are different cells, one of each time, drawn once: no true trajectories, and none that training may draw anew.
    seen : frames of a row, the first, that training, validation and identifiability scores may use; the frames after
        them are held-out times, which only OOD scores compare with. None: all of them.
    targets : (p, d_v) bool, the responsive latents each perturbation acts on; None where unknown.
    truth : latents and mechanisms, where a generator knows them.
    feature_names : names of features (genes), empty for images.
    excluded : condition -> why it is in no split.
    quality : numbers about the data worth logging, e.g. distance to the nearest stored image.
    library : (m,) float32, one a frame: total counts of its cell over all genes, those left out of ``frames`` too; None
        for what was not counted, and where a file's log-normalised values do not tell the counts.
    perturbation_vectors : (g, f) float32, the vector of each gene of ``vector_names``, seen or not; None where u is
        one-hot.
    vector_names : g genes, the rows of ``perturbation_vectors``.
    strata : names of the strata within which controls are drawn, and baselines and scores taken; empty where the cells
        have none.
    stratum : (n,) int64 into ``strata``; None where the cells have none.
    read : what was read, in one sentence; empty for what no file gave.
    notes : sentences about the data that every result repeats as warnings.
    split_record : what is to be kept of the splits so that they can be replayed cell by cell; empty where cells have no
        names.
    """

    frames: Tensor
    index: Tensor
    u: Tensor
    condition: Tensor
    conditions: tuple[str, ...]
    perturbations: tuple[str, ...]
    splits: dict[str, Tensor]
    ood: tuple[str, ...]
    pairs: Literal["true", "nearest", "random", "none", "drawn"]
    fingerprint: str
    targets: Tensor | None = None
    truth: Truth | None = None
    feature_names: tuple[str, ...] = ()
    excluded: dict[str, str] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)
    seen: int | None = None
    library: Tensor | None = None
    perturbation_vectors: Tensor | None = None
    vector_names: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()
    stratum: Tensor | None = None
    read: str = ""
    notes: tuple[str, ...] = ()
    split_record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = {"train", "validation", "test", *self.ood} - set(self.splits)
        if missing:
            raise ValueError(f"splits lack {', '.join(sorted(missing))}")
        if self.index.ndim != 2 or self.index.shape[1] < 2:
            raise ValueError(f"index must be (rows, T >= 2), got {tuple(self.index.shape)}")
        if self.pairs not in ("true", "nearest", "random", "none", "drawn"):
            raise ValueError(f"pairs must be 'true', 'nearest', 'random', 'none' or 'drawn', got {self.pairs!r}")
        if self.seen is not None and not 2 <= self.seen < self.index.shape[1]:
            raise ValueError(f"seen must be at least 2 and below {self.index.shape[1]} frames, got {self.seen}")
        if self.conditions[0] != "control":
            raise ValueError(f"conditions[0] must be 'control', got {self.conditions[0]!r}")
        if self.library is not None and self.library.shape != self.frames.shape[:1]:
            raise ValueError(f"library must be ({len(self.frames)},), one a frame, got {tuple(self.library.shape)}")
        if self.stratum is not None and self.stratum.shape != self.condition.shape:
            raise ValueError(f"stratum must be ({len(self.condition)},), one a row, got {tuple(self.stratum.shape)}")
        vectors = self.perturbation_vectors
        width = self.u.shape[1] if vectors is None else vectors.shape[1]
        if len(self.vector_names) != (0 if vectors is None else len(vectors)) or width != self.u.shape[1]:
            raise ValueError("perturbation_vectors must have a row for each of vector_names and u's columns")

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame: ``(features,)`` or ``(3, height, width)``."""
        return tuple(self.frames.shape[1:])

    def last_frames(self, rows: Tensor) -> Tensor:
        """The last frame of each row (k,) that training may see, (k,) int64 into ``frames``."""
        return self.index[rows, : self.seen][:, -1]

    def start_frames(self, rows: Tensor) -> Tensor:
        """The frame of each control row (k,) that a prediction begins from, (k,) int64 into ``frames``.

        The last one that training may see; but where frames are cells of different times, the first, since a cell of a
        later time is no state before a perturbation acts.
        """
        return self.index[rows, 0] if self.pairs == "drawn" else self.last_frames(rows)

    def by_condition(self, split: str, stratum: int | None = None) -> dict[str, Tensor]:
        """Rows of ``split``, or of a stratum of it, by the name of their condition, in the order of ``conditions``."""
        rows = self.in_stratum(self.splits[split], stratum)
        condition = self.condition[rows]
        return {self.conditions[which]: rows[condition == which] for which in torch.unique(condition).tolist()}

    def control_rows(self, split: str, stratum: int | None = None) -> Tensor:
        """Rows of ``split``, or of one stratum of it, that are control cells, (k,) int64."""
        rows = self.in_stratum(self.splits[split], stratum)
        return rows[self.condition[rows] == 0]

    def in_stratum(self, rows: Tensor, stratum: int | None) -> Tensor:
        """Those of the rows (k,) that are of one stratum; all of them for None."""
        return rows if stratum is None or self.stratum is None else rows[self.stratum[rows] == stratum]

    @property
    def each_stratum(self) -> tuple[int | None, ...]:
        """The number of each stratum; a single None where the cells have none."""
        return (None,) if self.stratum is None else tuple(range(len(self.strata)))

    def as_float(self, frames: Tensor) -> Tensor:
        """Frames as float32: images scaled to [0, 1], vectors as they are."""
        return frames.float() / 255.0 if frames.dtype == torch.uint8 else frames
