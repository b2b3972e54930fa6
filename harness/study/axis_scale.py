"""Where the values of an axis lie in a figure: numbers at their own place, words side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.study.records import AxisValue

#: Positive numbers whose largest is this many times the smallest lie in the logarithm.
DECADE = 10.0


@dataclass(frozen=True)
class Scale:
    """Places of an axis's values, in units of the figure's own axis.

    Attributes
    ----------
    values : in order of their places.
    places : rising; logarithms to base 10 where numbers span decades.
    is_numeric : whether values are numbers, between which a line may run.
    """

    values: tuple[AxisValue, ...]
    places: tuple[float, ...]
    is_numeric: bool

    def place(self, value: AxisValue) -> float:
        """Where a value lies."""
        return self.places[self.values.index(value)]

    @property
    def nearest(self) -> float:
        """Distance of the two nearest places; 1 where there is one."""
        return min((b - a for a, b in itertools.pairwise(self.places)), default=1.0)

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the axis."""
        spans = list(self.spans().values())
        return spans[0][0], spans[-1][1]

    def spans(self) -> dict[AxisValue, tuple[float, float]]:
        """The stretch of the axis that belongs to each value: up to half-way to its neighbours."""
        middles = [(a + b) / 2 for a, b in itertools.pairwise(self.places)]
        half = self.nearest / 2
        if self.is_numeric and len(self.places) > 1:
            half = max(half, 0.04 * (self.places[-1] - self.places[0]))
        ends = [self.places[0] - half, *middles, self.places[-1] + half]
        return {value: (ends[i], ends[i + 1]) for i, value in enumerate(self.values)}


def scale_of(values: Sequence[AxisValue]) -> Scale:
    """The scale for some values of an axis.

    Numbers of which the largest positive is at least ten times the smallest lie in the logarithm; a zero among them
    then lies as far below the smallest as a typical step, since it has no logarithm. Booleans and words, also mixed
    with numbers, lie side by side.

    Parameters
    ----------
    values
        Without repeats, at least one.
    """
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return Scale(tuple(values), tuple(float(index) for index in range(len(values))), False)
    rising = sorted(values, key=float)  # type: ignore[arg-type]
    places = tuple(sorted(numbers))
    positive = [number for number in places if number > 0]
    if places[0] >= 0 and len(positive) > 1 and positive[-1] / positive[0] >= DECADE:
        logs = [math.log10(number) for number in positive]
        step = (logs[-1] - logs[0]) / (len(logs) - 1)
        places = (*(logs[0] - step for _ in range(len(places) - len(positive))), *logs)
    return Scale(tuple(rising), places, True)
