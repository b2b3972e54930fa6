"""What MLflow's own page shows of a study: its trials in a table with their scores, best first.

MLflow 3.17 opens an experiment on a dashboard for language models, and its list of training runs shows no
metric, unless the address says otherwise. A view kept as a tag of the experiment, and named in the address,
chooses columns and order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from harness.evaluation.registry import direction_of

VIEW = "scores"
#: Tag of an experiment in which MLflow's page looks for the view of this name.
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"

_IDENTIFIABILITY = ("mcc", "mcc_untrained", "r2_responsive", "r2_invariant")
_LOSS = "validation/loss"
_OOD = ("rmse_relative", "r2", "pearson_delta")
#: Column of the tag `harness.helps.HELPS_TAG`, and its pixels.
_HELPS, _HELPS_WIDTH = "tags.`helps`", 240
#: Pixels of the columns that every view has, by the page's own names for them.
_FIRST_COLUMNS = {"attributes.`Run Name`": 320, "runDateAndNestInfo": 140}


def score_columns(metrics: Iterable[str]) -> list[str]:
    """The metrics worth a column, in the order of the study's own tables.

    Parameters
    ----------
    metrics
        Names of the metrics that the study's trials have.
    """
    known = set(metrics)
    wanted = [f"identifiability/{name}" for name in _IDENTIFIABILITY]
    splits = sorted({name.split("/")[1] for name in known if name.startswith("ood/")})
    wanted += [f"ood/{split}/{name}" for split in splits for name in _OOD]
    return [name for name in [*wanted, _LOSS] if name in known]


def score_view(metrics: Iterable[str]) -> str | None:
    """Value of the tag ``VIEW_TAG``: helps and score columns, sorted by the first score; None without any.

    Parameters
    ----------
    metrics
        Names of the metrics that the study's trials have.
    """
    columns = score_columns(metrics)
    if not columns:
        return None
    first = columns[0]
    # the default cuts the names of metrics after their first word, and sorts them by the alphabet
    shown = {_HELPS: _HELPS_WIDTH, **{_quoted(name): 40 + 7 * len(name) for name in columns}}
    widths = {**_FIRST_COLUMNS, **shown}
    state = {
        "selectedColumns": list(shown),
        "columnOrder": list(widths),
        "columnWidths": widths,
        # any order but the default lists trials on their own instead of folded into their launch
        "orderByKey": _quoted(first),
        "orderByAsc": first == _LOSS or direction_of(first) == "minimize",
    }
    return json.dumps(state)


def runs_address(server: str, experiment_id: str, *, view: bool) -> str:
    """Address of an experiment's training runs.

    Parameters
    ----------
    server
        Address of the MLflow server, e.g. ``http://127.0.0.1:5000``.
    experiment_id
        MLflow's number of the experiment.
    view
        Whether the experiment has the tag ``VIEW_TAG``.
    """
    shown = f"&viewStateShareKey={VIEW}" if view else ""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning{shown}"


def _quoted(metric: str) -> str:
    return f"metrics.`{metric}`"
