"""What the commands on a finished trial do, for use from Python; heavy imports inside, as in the verbs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def predict_run(
    run: str | Path, perturbations: Sequence[str], *, cells: int = 500, seed: int = 0, root: Path | str | None = None
) -> AnnData:
    """Predict cells of perturbations, seen or not, with the model of a finished trial, as ``harness predict`` does.

    Parameters
    ----------
    run
        A trial's id or folder, or the id of its run in MLflow.
    perturbations
        Each a name, or a combination ``A+B`` in any order; ``control`` for none, so that ``A+control`` is ``A``.
    cells
        Cells of each.
    seed
        Governs which control cells, and all noise.
    root
        Folder of all studies; default: $HARNESS_ROOT, else ``runs``.

    Returns
    -------
    ``X`` (perturbations * cells, features) float32, log-normalised for single cells, ``obs["perturbation"]``; for
    models with latents of the prediction ``obsm["responsive"]`` and ``obsm["invariant"]``; provenance in
    ``uns["harness"]``.

    Raises
    ------
    UserError
        If there is no such trial, it has no model that predicts cells, or a perturbation is not known to it.
    """
    from harness.predicting import predict
    from harness.study.find_run import find_run
    from harness.trial_model import load_predictor

    where = _root(root)
    fitted = load_predictor(find_run(str(run), where), where / "cache")
    return predict(fitted, perturbations, cells=cells, seed=seed)


def write_programs(
    run: str | Path,
    out: Path | str,
    *,
    top: int = 50,
    threshold: float = 0.25,
    root: Path | str | None = None,
) -> tuple[Path, ...]:
    """Write the latent programs of a finished trial, as ``harness programs`` does; see ``about.json`` among them.

    Parameters
    ----------
    run, root
        As in `predict_run`. The trial's data are read.
    out
        A new folder.
    top
        Genes listed of each latent and direction.
    threshold
        Least |weight|, in sds of the latents, of an edge.

    Returns
    -------
    The files.

    Raises
    ------
    UserError
        If there is no such trial, it has no genes or no decoder, or the folder is there already or cannot be made.
    """
    from harness.files import write_atomic
    from harness.outputs import new_folder, refuse_taken
    from harness.programs import programs_of
    from harness.programs_tables import tables_of
    from harness.study.find_run import find_run
    from harness.study.programs_figure import draw_programs
    from harness.trial_model import load_fitted

    folder, where = Path(out), _root(root)
    refuse_taken(folder)  # before minutes of loading
    fitted = load_fitted(find_run(str(run), where), where / "cache")
    found = programs_of(fitted)
    tables = tables_of(found, fitted.spec, top=top, threshold=threshold)
    title = f"{fitted.spec.model.kind} · trial {fitted.spec.trial_id[:8]}"
    with new_folder(folder) as unfinished:
        for name, content in tables.items():
            write_atomic(unfinished / name, content)
        drawn = draw_programs(found, unfinished, title=title, threshold=threshold)
    return tuple(folder / name for name in (*tables, *(path.name for path in drawn)))


def export_model(run: str | Path, out: Path | str | None = None, *, root: Path | str | None = None) -> str:
    """Put the model of a finished trial into its run in MLflow, or into a folder, as ``harness export`` does.

    Parameters
    ----------
    run, root
        As in `predict_run`.
    out
        A new folder; None for the run in MLflow, to be written by one process at a time, as a launch does.

    Returns
    -------
    What ``mlflow.pyfunc.load_model`` takes: ``runs:/RUN_ID/model``, or the folder.

    Raises
    ------
    UserError
        If there is no such trial, it has no model that predicts cells, the folder is there already or cannot be
        made, the trial has no run in MLflow, MLflow cannot be written, or a launch of the study is running.
    """
    from harness.outputs import refuse_taken
    from harness.study.export import export_to_run
    from harness.study.exported import export_to_folder
    from harness.study.find_run import find_run

    where = _root(root)
    trial = find_run(str(run), where)
    if out is None:
        return export_to_run(trial, where)
    refuse_taken(Path(out))
    export_to_folder(trial, Path(out), where / "cache")
    return str(out)


def _root(root: Path | str | None) -> Path:
    from harness.study.folder import default_root

    return default_root() if root is None else Path(root)
