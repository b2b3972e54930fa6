"""Usual transformations of counts other than log-normalisation: how they are recognised, and how they are undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from harness.data.perturbseq.blocks import Values
from harness.data.perturbseq.grid import FEWEST_DISTINCT, on_grid, rounded, units
from harness.data.perturbseq.values import LARGEST_LOG, Matrix, values_in


@dataclass(frozen=True)
class Transformation:
    """What was done to counts.

    Attributes
    ----------
    words : what the values are.
    undone : an expression of numpy in ``{x}``, the values, that gives what ``gives`` says.
    gives : ``counts``, or ``lognorm``: natural logs of one plus scaled counts.
    proven : whether the values show it, or a note in the file alone says so.
    """

    words: str
    undone: str
    gives: str
    proven: bool = True


@dataclass(frozen=True)
class _Kind:
    """A transformation, and its inverse as a function and as an expression in ``{x}``."""

    words: str
    inverse: Callable[[Values], Values]
    code: str


_KINDS = (
    _Kind("{} without logarithm", lambda x: x, "{x}"),
    _Kind("logarithms to base 2 of one plus {}", lambda x: np.exp2(x) - 1, "2 ** {x} - 1"),
    _Kind("logarithms to base 10 of one plus {}", lambda x: 10**x - 1, "10 ** {x} - 1"),
    _Kind("square roots of {}", lambda x: x**2, "{x} ** 2"),
    _Kind("logarithms taken twice of {}", lambda x: np.expm1(np.expm1(x)), "np.expm1(np.expm1({x}))"),
    _Kind("inverse hyperbolic sines of {}", np.sinh, "np.sinh({x})"),
)
ESTIMATED = Transformation("estimated counts", "np.rint({x})", "counts", proven=False)
UNSCALED_LOGS = Transformation("logarithms of counts as they are", "np.rint(np.expm1({x}))", "counts")


def recognise(sample: Matrix, base: float | None = None) -> Transformation | None:
    """What was done to counts, where the grid on which they lie proves it, or the file notes the base of its logs.

    Parameters
    ----------
    sample : (cells, genes)
    base
        Of the logarithms, as the file notes it; None for natural ones.
    """
    present = values_in(sample)
    if not len(present) or present.min() < 0:
        return None
    coarse, values = rounded(present), sample.astype(np.float64)
    for kind in _KINDS:
        if kind.code not in ("{x}", "{x} ** 2") and present.max() > LARGEST_LOG:
            continue  # its inverse would overflow
        with np.errstate(over="ignore"):
            linear = kind.inverse(values)
        if on_grid(linear, coarse):
            done = _undone(kind, linear, coarse)
            told = base is not None and kind.words.startswith(f"logarithms to base {base:g} ")
            return replace(done, words=f"{done.words}, as uns['log1p'] says") if told else done
    return None if base is None or present.max() > LARGEST_LOG else noted(base)


def noted(base: float) -> Transformation:
    """Logarithms to a base that the file notes, and that nothing else shows."""
    words = f"logarithms to base {base:g}, as uns['log1p'] says"
    return Transformation(words, f"{{x}} * np.log({base:g})", "lognorm", proven=False)


def _undone(kind: _Kind, linear: Values, coarse: bool) -> Transformation:
    """Counts come back where one count gives the same in all cells; where it does not, they were scaled."""
    unit, distinct = units(linear, coarse=coarse)
    unit = unit[(distinct >= FEWEST_DISTINCT) & np.isfinite(unit)]
    one = float(np.median(unit))
    if np.mean(np.abs(unit / one - 1) < 0.005) < 0.95:
        return Transformation(kind.words.format("scaled counts"), f"np.log1p({kind.code})", "lognorm")
    near = round(one, 2)  # a usual factor, such as 1 or 0.5, is meant by what rounding leaves of it
    one = near if near and abs(one / near - 1) < (0.005 if coarse else 1e-4) else one
    code = kind.code if one == 1 else f"({kind.code}) / {one:.7g}"
    what = "counts" if one == 1 else f"counts times {one:.4g}"
    return Transformation(kind.words.format(what), f"np.rint({code})", "counts")
