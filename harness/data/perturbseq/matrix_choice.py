"""Which matrix of a file is read and what it holds, or why none can be and what would do."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq.blocks import dense
from harness.data.perturbseq.cell_file import CellFile
from harness.data.perturbseq.cell_kinds import CellKinds
from harness.data.perturbseq.checked_blocks import checked_blocks, too_large
from harness.data.perturbseq.mending import mended, without
from harness.data.perturbseq.remedies import study_line
from harness.data.perturbseq.transformations import ESTIMATED, UNSCALED_LOGS, Transformation, noted, recognise
from harness.data.perturbseq.values import LARGEST_LOG, Holds, Matrix, never_scaled, values_in, what_holds
from harness.errors import UserError

Rows = npt.NDArray[np.int64]
ValuesWord = Literal["auto", "counts", "lognorm"]

#: Cells looked at, in runs spread over the file, to see what the matrix holds.
_SAMPLE_RUNS, _SAMPLE_RUN = 16, 64
#: Rows of the file that a run spans at most where cells in use are not neighbours.
_FARTHEST = 4 * _SAMPLE_RUN
#: Other matrices that are proposed at most.
_MOST_PROPOSED = 3


def expression_matrix(file: CellFile, values: ValuesWord, cells: Rows | None = None) -> tuple[str, Holds]:
    """The matrix to read, ``X``, ``raw`` or a layer, and what it holds.

    Parameters
    ----------
    file
        The open file.
    values
        The user's word on what the matrix holds; ``auto``: seen from its values.
    cells : rows in use, ascending; None: all.

    Raises
    ------
    UserError
        If there is no such matrix, it is unclear what it holds, or its values contradict ``values``; with another
        matrix that would do, the line that mends this one, or what else would do.
    """
    present = file.sources()
    if not present:
        every = ", ".join(map(_called, file.others(None)))
        none = f"none of {every} holds counts or log-normalised values; put counts into X"
        raise UserError(f"{file.path}: there is no X and no layers['counts']; {_proposed(file, None) or none}")
    if values != "auto":
        _refuse_impossible(file, present[0], values, cells)
        return present[0], values
    unclear: list[tuple[str, str, Matrix]] = []
    for name in present:
        sample = _looked_at(file, name, cells)
        held, why = what_holds(sample)
        if held is not None:
            return name, held
        unclear.append((name, why, sample))
    name, why, sample = unclear[0]
    _look_for_mixture(file, name, sample, cells, values)
    done = recognise(sample, _base(file, name))
    but = f", but {done.words}" if done is not None else ""
    raise UserError(
        f"{file.path}: it is unclear whether the file holds counts or log-normalised values: {name} {why}{but}; "
        f"{_remedy(file, name, sample, done, values)}"
    )


def matrix_holds(file: CellFile, name: str, cells: Rows | None = None) -> tuple[Holds | None, str]:
    """What a matrix of the file holds, by some of its cells; see `what_holds`."""
    return what_holds(_looked_at(file, name, cells))


def notes_on(file: CellFile, name: str, held: Holds, values: ValuesWord, cells: Rows | None = None) -> tuple[str, ...]:
    """What a user should know of a matrix that is read all the same, each sentence with its remedy.

    Parameters
    ----------
    name, held
        The matrix, and what it is taken for.
    values
        The user's word.
    cells : rows in use, ascending; None: all.
    """
    sample = _looked_at(file, name, cells)
    present = values_in(sample)
    if not len(present) or present.min() < 0:
        return ()
    if held == "counts":
        if present.max() > 1:
            return ()
        return (f"all values of {name} are 0 or 1, so that they may say whether a gene was seen, and not how often",)
    if values == "lognorm" and what_holds(sample)[0] == "counts":
        return (
            f"data.values is lognorm, but all values of {name} are whole numbers, as counts are; "
            "leave data.values out if they are counts, or models take counts for their logarithms",
        )
    told = []
    if never_scaled(sample):
        told.append(
            f"{name} holds logarithms of counts that were not scaled to one sum a cell, so that every gene seems to "
            f"rise in a cell of many counts; to have them scaled, {_counts_instead(file, name)}"
        )
    if (base := _base(file, name)) is not None:
        said = f"uns['log1p'] says that logarithms were taken to base {base:g}"
        if what_holds(sample)[0] == "lognorm":
            told.append(f"{said}, but {name} holds natural ones, and is read as such")
        else:
            told.append(f"{said}, and {name} is read as natural ones; {mended(file, name, noted(base))}")
    return tuple(told)


def refuse_mixed(file: CellFile, name: str, kinds: CellKinds, values: ValuesWord) -> None:
    """Refuse a matrix of counts in some cells and log-normalised values in others.

    Parameters
    ----------
    kinds
        What has seen all cells in use.
    values
        The user's word.

    Raises
    ------
    UserError
        With the number of cells, where they are, and another matrix that would do or the line that leaves them out.
    """
    odd = kinds.odd()
    if odd is None:
        return
    told, kept = kinds.told(odd, file.obs)
    remedy = _proposed(file, name, values) or without(file, name, kept)
    raise UserError(f"{file.path}: {name} {told}; {remedy}")


def _refuse_impossible(file: CellFile, name: str, said: Holds, cells: Rows | None) -> None:
    """Refuse a word on a matrix that its values contradict."""
    sample = _looked_at(file, name, cells)
    held, _ = what_holds(sample)
    present = values_in(sample)
    if held == said or not len(present):
        return
    if held is None:
        _look_for_mixture(file, name, sample, cells, said)
    done = recognise(sample, _base(file, name)) if held is None else None
    why = _contradiction(said, present, done)
    if not why:
        return
    if held is not None:
        remedy = "leave data.values out"
    elif present.min() < 0 and not _that_do(file, name):
        return  # said where they are when all cells are read
    else:
        remedy = _remedy(file, name, sample, done, said)
    raise UserError(f"{file.path}: data.values is {said}, but {name} {why}; {remedy}")


def _contradiction(said: Holds, present: Matrix, done: Transformation | None) -> str:
    """Why values cannot be what is said of them; empty where they can. Whole numbers can be logs where small."""
    broken = present[present != np.round(present)]
    if present.min() < 0:
        return f"holds negative values (such as {present.min():.3g})"
    if said == "counts":
        return f"holds fractions such as {broken[0]:.4g}, and counts are whole" if len(broken) else ""
    if present.max() > LARGEST_LOG:
        whole = f"holds whole numbers up to {present.max():.4g}, which are counts"
        return too_large(float(present.max())) if len(broken) else whole
    return f"holds {done.words}" if done is not None and done.proven else ""


def _look_for_mixture(file: CellFile, name: str, sample: Matrix, cells: Rows | None, values: ValuesWord) -> None:
    """Where some cells looked at hold counts and others log-normalised values, look at all, and refuse them."""
    kinds = CellKinds(len(sample), None)
    kinds.add(np.arange(len(sample)), sample)
    if kinds.whole.any() and what_holds(sample[kinds.broken])[0] == "lognorm":
        every = CellKinds(len(file.obs), None)
        for _ in checked_blocks(file, name, None, cells, every):
            pass
        refuse_mixed(file, name, every, values)


def _remedy(file: CellFile, name: str, sample: Matrix, done: Transformation | None, said: ValuesWord) -> str:
    """What would do where a matrix cannot be read as it is."""
    if proposed := _proposed(file, name, said):
        return proposed
    if done is not None:
        return mended(file, name, done) + ("" if said in ("auto", done.gives) else ", with data.values left out")
    present = values_in(sample)
    if len(present) and present.min() < 0:
        words = "give counts or log-normalised values, not scaled ones"
    elif not len(present):
        words = "set data.values to counts or lognorm"
    elif said == "counts" or present.max() > LARGEST_LOG:
        words = f"if they are estimated counts, {mended(file, name, ESTIMATED)}"
        words += ", with data.values left out" if said == "lognorm" else ""
        if present.max() <= LARGEST_LOG:
            words += "; if they are log-normalised, set data.values to lognorm"
    else:
        words = "set data.values to lognorm if they are log-normalised all the same"
    return words if file.layer is not None or said != "auto" else f"{words}, or put counts into layers['counts']"


def _proposed(file: CellFile, name: str | None, said: ValuesWord = "auto") -> str:
    """Other matrices of the file that can be read, with the lines that take them; empty where there are none."""
    found = _that_do(file, name)[:_MOST_PROPOSED]
    if not found:
        return ""
    told = [
        f"{_called(word)} holds {'counts' if held == 'counts' else 'log-normalised values'}" for word, held in found
    ]
    lines = [study_line("layer", word) for word, _ in found]
    more = "" if said == "auto" or all(held == said for _, held in found) else ", and leave data.values out"
    return f"{' and '.join(told)}; to read {'it' if len(found) == 1 else 'one'} {', or '.join(lines)}{more}"


def _called(word: str) -> str:
    return word if word in ("X", "raw") else f"layers[{word.removeprefix('layers/')!r}]"


def _that_do(file: CellFile, name: str | None) -> list[tuple[str, Holds]]:
    """Words for other matrices that a study can read, all cells seen, and what they hold; counts first."""
    found: list[tuple[str, Holds]] = []
    for word in file.others(name):
        try:
            with file.other(word) as other:
                (source,) = other.sources()
                held, _ = matrix_holds(other, source)
                if held is None:
                    continue
                kinds = CellKinds(len(other.obs), held)
                for _ in checked_blocks(other, source, held, None, kinds):
                    pass
        except UserError:  # of no use
            continue
        if kinds.odd() is None:
            found.append((word, held))
    return sorted(found, key=lambda one: one[1] != "counts")


def _counts_instead(file: CellFile, name: str) -> str:
    """How to read counts in place of logarithms of unscaled counts."""
    word = next((word for word, held in _that_do(file, name) if held == "counts"), None)
    return mended(file, name, UNSCALED_LOGS) if word is None else study_line("layer", word)


def _base(file: CellFile, name: str) -> float | None:
    """The base that the file notes for the logarithms of a matrix: scanpy takes them of X, of which raw is a copy."""
    return file.logged_to_base() if name in ("X", "raw") else None


def _looked_at(file: CellFile, name: str, cells: Rows | None) -> Matrix:
    """Some of the cells in use, in runs spread over them."""
    used = np.arange(len(file.obs)) if cells is None else np.sort(cells)
    starts = np.linspace(0, max(len(used) - _SAMPLE_RUN, 0), _SAMPLE_RUNS).astype(int)
    if len(used) <= _SAMPLE_RUNS * _SAMPLE_RUN:
        starts = np.arange(0, len(used), _SAMPLE_RUN)
    parts = [np.empty((0, len(file.genes)), dtype=np.float32)]
    for chosen in (used[start : start + _SAMPLE_RUN] for start in starts):
        begin, stop = int(chosen[0]), min(int(chosen[-1]) + 1, int(chosen[0]) + _FARTHEST)
        for _, block in file.blocks(name, [(begin, stop)]):
            parts.append(dense(block[chosen[chosen < stop] - begin]))
    return np.concatenate(parts)
