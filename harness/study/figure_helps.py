"""The line under a figure's title or panels that names the helps of each model."""

from __future__ import annotations

import textwrap

from harness.helps import NO_HELP
from harness.study.records import Records
from harness.study.tables import model_text

#: Inches that a letter of this line takes on average, at 7 to 7.5 points.
LETTER = 0.06


def figure_helps(records: Records, width: float) -> list[str]:
    """Helps of a figure's models, broken into lines.

    Parameters
    ----------
    records
        What the figure shows.
    width
        Inches that a line may take.
    """
    models: dict[str, list[str]] = {}
    for model in records.models:
        models.setdefault(_helps(records.where(model=model)), []).append(model_text(model))
    if len(models) == 1:
        said = next(iter(models))
    else:
        said = "; ".join(f"{helps} ({', '.join(its)})" for helps, its in models.items())
    return textwrap.wrap(f"helps: {said}", max(20, int(width / LETTER)))


def _helps(records: Records) -> str:
    """Helps of one model; those that only some of its cells have come last."""
    of_cells = [{one.word for one in cell.helps} for cell in records.cells.values()]
    everywhere = [one.word for one in records.helps if all(one.word in its for its in of_cells)]
    somewhere = [one.word for one in records.helps if one.word not in everywhere]
    parts = [", ".join(everywhere)] if everywhere else []
    parts += [f"in some cells {', '.join(somewhere)}"] if somewhere else []
    return ", ".join(parts) or NO_HELP
