"""The study's report: records read from the trial folders, then tables, figures and the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.helps import Help, helps_of
from harness.study.across_seeds import Agreement, agreements
from harness.study.axes import worded
from harness.study.axis_figure import axis_figure
from harness.study.columns import MCC_ACROSS_SEEDS
from harness.study.expectation import expectation_of
from harness.study.figures import headline, heatmap
from harness.study.folder import ENDED, StudyFolder, TrialFolder, TrialState, write_atomic
from harness.study.latents_figure import latents_figure
from harness.study.notes import MOST_NAMES, notes
from harness.study.ood_tables import ood_tables
from harness.study.page import Picture, page
from harness.study.plan import Plan, PlannedTrial, Point
from harness.study.records import AxisValue, Record, Records
from harness.study.spec import ObjectiveSpec, StudySpec
from harness.study.stability_tables import stability_tables
from harness.study.statistics import Estimate
from harness.study.tables import Table, axis_title, latent_tables, model_text, tables, trial_text, without
from harness.study.verdicts import Verdict, verdict_table, verdicts, verdicts_csv
from harness.study.written import markdown, table_csv, terminal, trials_csv

#: Cells of a search, or of a grid of more than so many, that a terminal or page shows, best first; the files hold all.
MOST_CELLS, MANY_CELLS = 30, 300


@dataclass(frozen=True)
class Report:
    """What ``write_report`` made.

    Attributes
    ----------
    text : tables and footnotes for a terminal.
    heatmap : the heat map's PNG; None where nothing is finished.
    files : every file written, the page first.
    agreements : how far the seeds of each cell agree, where they can be compared.
    verdicts : whether the study's prediction and what was measured agree, cell by cell.
    axis : the PNG of the scores over the axis of the prediction; None without one.
    best : id of the finished trial of each model that is best by the objective.
    helps : what the study's scores rest on and no user with her own cells has.
    """

    text: str
    heatmap: Path | None
    files: tuple[Path, ...]
    agreements: tuple[Agreement, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    axis: Path | None = None
    best: tuple[str, ...] = ()
    helps: tuple[Help, ...] = ()


def write_report(
    folder: StudyFolder,
    study: StudySpec,
    plan: Plan,
    *,
    points: Iterable[Point] | None = None,
    width: int = 160,
    colour: bool = False,
) -> Report:
    """Write the study's tables, figures and page into its report folder.

    Unfinished, failed and pruned trials are counted and named, never averaged in, so that a report may be written
    at any time.

    Parameters
    ----------
    folder
        Where the trials are.
    study
        The study.
    plan
        Its grid cells.
    points
        All points to report, where a search adds proposals; default: those of ``plan``.
    width
        Columns of the terminal.
    colour
        Colour the text with ANSI codes.

    Returns
    -------
    Report

    Raises
    ------
    UserError
        Where the report folder cannot be written.
    """
    points = plan.points if points is None else tuple(points)
    agreed = tuple(agreements(folder, points))
    records = read_records(folder, study, points, agreed)
    if study.search is not None:
        records = ranked(records, study.objective[0])
    shown = records
    if study.search is not None or len(records.cells) > MANY_CELLS:
        shown = _first_cells(ranked(records, study.objective[0]), MOST_CELLS)
    every_score, wide, narrow = tables(shown, detailed=True), tables(shown), tables(shown, combined=False)
    whole = [*every_score, *ood_tables(shown), *latent_tables(shown)]
    expectation = expectation_of(study)
    judged = () if expectation is None else tuple(verdicts(records, expectation))
    cells = {record.cell for record in shown}
    verdict = [verdict_table([one for one in judged if one.cell in cells])] if judged else []

    def footnotes(made: Sequence[Table], most: int) -> list[str]:
        lines = notes(
            records,
            made,
            oracle_selection=study.oracle_selection,
            settings_by=study.settings_by,
            expectation=expectation,
            verdicts=judged,
            most=most,
        )
        if len(shown) < len(records):
            lines.insert(0, f"The best {MOST_CELLS} cells by {study.objective[0].metric}; table.csv holds all.")
        return lines

    every = footnotes(whole, len(records) + sum(len(record.excluded) + len(record.warnings) for record in records))
    heading = " - ".join(filter(None, (study.name, " ".join(study.description.split()))))
    out = folder.report
    written = {
        out / "table.csv": table_csv(records),
        out / "trials.csv": trials_csv(records),
        out / "table.md": markdown(heading, [*whole, *verdict], every),
    }
    written |= {out / name: content for name, content in stability_tables(agreed).items()}
    if judged:
        written[out / "verdicts.csv"] = verdicts_csv(judged)
    for path, content in written.items():
        write_atomic(path, content)
    pictures = _pictures(folder, study, records)
    drawn = axis_figure(records, judged, out / "axis.png", title=study.name) if judged else None
    if drawn is not None:
        pictures.insert(0, Picture("Prediction and measurement", drawn, _axis_words(judged)))
    html = page(study.name, _lead(study, records), [*whole, *verdict], every, pictures)
    write_atomic(out / "index.html", html)
    layouts = [[*made, *verdict] for made in (every_score, wide, narrow, without(narrow, MCC_ACROSS_SEEDS))]
    text = terminal([heading, _counts(records)], layouts, footnotes(wide, MOST_NAMES), width=width, colour=colour)
    map_path = next((one.path for one in pictures if one.path.name == "heatmap.png"), None)
    files = (out / "index.html", *written, *(one.path for one in pictures))
    best = tuple(record.trial_id for record in best_trials(records, study.objective[0]).values())
    return Report(text, map_path, files, agreed, judged, drawn, best, records.helps)


# ---------------------------------------------------------------------------------------------- records


def read_records(
    folder: StudyFolder, study: StudySpec, points: Iterable[Point], agreed: Iterable[Agreement] = ()
) -> Records:
    """One record for each planned trial, from its folder; what has no folder is waiting.

    Parameters
    ----------
    folder
        Where the trials are.
    study
        The study, which knows how its settings were chosen.
    points
        The points to read.
    agreed
        Agreement between the seeds of a cell, for those that have it.
    """
    of_cell = {one.cell: one.scores for one in agreed}
    return Records(
        _record(folder.trial(trial.trial_id), study, point, trial, of_cell.get(point.cell, {}))
        for point in points
        for trial in point.trials
    )


def _record(
    trial_folder: TrialFolder, study: StudySpec, point: Point, trial: PlannedTrial, of_cell: Mapping[str, float]
) -> Record:
    result = trial_folder.read_result() or {}
    data = result.get("data") or {}
    ended = result.get("state") in ENDED
    state = ENDED[result["state"]] if ended else trial_folder.state()
    return Record(
        trial_id=trial.trial_id,
        cell=point.cell,
        model=point.model,
        axes={key: _axis_value(value) for key, value in point.values.items()},
        seed=trial.seed,
        state=state.value,
        metrics=_floats(result.get("metrics")),
        baselines=_floats(result.get("baselines")),
        warnings=tuple(map(str, result.get("warnings") or ())),
        failure=_reason(trial_folder, state, result.get("failure")),
        excluded={str(name): str(why) for name, why in (data.get("excluded") or {}).items()},
        fingerprint=trial.spec.data_fingerprint,
        of_cell=of_cell,
        helps=helps_of(trial.spec, selected=study.selected_by_truth(trial.spec.data)),
        read=str(data.get("read") or ""),
        controls={str(side): int(cells) for side, cells in (data.get("controls") or {}).items()},
    )


def _axis_value(value: Any) -> AxisValue:
    """Scalars as they are; a list or mapping as text, since rows are found by value."""
    return value if isinstance(value, str | int | float | bool | None) else worded(value)


def _floats(values: Mapping[str, Any] | None) -> dict[str, float]:
    """Metrics as floats; JSON's null stands for a number that was not finite."""
    return {str(name): math.nan if value is None else float(value) for name, value in (values or {}).items()}


def _reason(trial_folder: TrialFolder, state: TrialState, failure: Mapping[str, Any] | None) -> str | None:
    if failure and failure.get("reason"):
        return str(failure["reason"])
    if state is TrialState.PRUNED and trial_folder.stop.exists():
        return trial_folder.stop.read_text(errors="replace").strip() or None
    return None


def ranked(records: Records, objective: ObjectiveSpec) -> Records:
    """Records with their cells in order of the objective's mean over seeds, best first; cells without one last."""
    sign = -1.0 if objective.direction == "maximize" else 1.0

    def place(cell: Records) -> float:
        value: Estimate | None = cell.estimate(objective.metric)
        return math.inf if value is None else sign * value.mean

    cells = sorted(records.cells.values(), key=place)
    return Records(record for cell in cells for record in cell)


def _first_cells(records: Records, most: int) -> Records:
    cells = list(records.cells.values())[:most]
    return Records(record for cell in cells for record in cell)


# --------------------------------------------------------------------------------------- words, pictures


def _counts(records: Records) -> str:
    states = [record.state for record in records]
    parts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(records)} trials: {parts}" if len(records) else "no trial yet"


def _lead(study: StudySpec, records: Records) -> str:
    described = " ".join(study.description.split()).rstrip(".")
    return ". ".join(filter(None, (described, _counts(records)))) + "."


def _axis_words(judged: Sequence[Verdict]) -> str:
    return f"MCC over {axis_title(judged[0].axis)}, with the margins of the conditions that vary over it"


def _pictures(folder: StudyFolder, study: StudySpec, records: Records) -> list[Picture]:
    pictures = []
    column = headline(records)
    drawn = heatmap(records, folder.report / "heatmap.png", title=study.name)
    if drawn is not None and column is not None:
        pictures.append(
            Picture("Heat map", drawn, f"Heat map of {column.title} over the grid; its numbers are in the tables")
        )
    for model, record in best_trials(records, study.objective[0]).items():
        stored = folder.trial(record.trial_id).latents
        if not stored.exists():
            continue
        name = trial_text(record)
        made = latents_figure(stored, folder.report / f"latents-{len(pictures)}.png", title=name)
        if made is not None:
            heading = f"Latents of the {model_text(model)} that is best by {study.objective[0].metric}"
            pictures.append(Picture(heading, made, f"True against learned latents of {name}"))
    return pictures


def best_trials(records: Records, objective: ObjectiveSpec) -> dict[str, Record]:
    """Of each model the finished trial with the best objective."""
    best: dict[str, Record] = {}
    sign = -1.0 if objective.direction == "maximize" else 1.0
    for record in records.finished:
        value = record.metrics.get(objective.metric, math.nan)
        if math.isnan(value):
            continue
        if record.model not in best or sign * value < sign * best[record.model].metrics[objective.metric]:
            best[record.model] = record
    return best
