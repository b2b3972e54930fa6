"""Datasets before trials: built once, by the driver here or by a job of its own on SLURM."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data_spec import AnyDataSpec, Causal3DIdentData, ImageData, PerturbseqData
from harness.errors import UserError
from harness.study.executors import FULL_SECONDS, ClusterFull, Executor, Job
from harness.study.folder import StudyFolder, read_json
from harness.study.job import LOAD, BuildData, imported
from harness.study.plan import PlannedTrial


def cache_of(data: AnyDataSpec, cache_dir: Path) -> Path:
    """The cache a dataset is built into."""
    return Path(data.cache_dir) if data.cache_dir else cache_dir


def needs_building(data: AnyDataSpec, fingerprint: str, cache_dir: Path) -> bool:
    """Whether a dataset is of a kind that is built into the cache, and is not there yet.

    Vectors are generated in the trial itself, and a user's own file is read as it is.
    """
    built = isinstance(data, ImageData) or (isinstance(data, PerturbseqData) and data.path is None)
    return built and not (cache_of(data, cache_dir) / f"{data.kind}-{fingerprint}").is_dir()


def datasets(trials: Iterable[PlannedTrial]) -> dict[str, AnyDataSpec]:
    """Each dataset of some trials once, by fingerprint."""
    return {trial.spec.data_fingerprint: trial.spec.data for trial in trials}


def check_files(
    trials: Sequence[PlannedTrial],
    cache_dir: Path,
    load: str = LOAD,
    say: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Read every file of cells once, so that what is wrong with it is refused before anything is written.

    Parameters
    ----------
    trials
        Those that are to run.
    cache_dir
        Folder of built datasets.
    load
        Importable name of the function that reads one.
    say
        Told what was read of each file, and what there is to be said of it.

    Of a release of images only the latents are read, and whether there are enough.

    Raises
    ------
    UserError
        As the reader says; or if a trial asks for what the file does not offer.
    """
    from harness.trial_checks import check_fits

    said: set[str] = set()
    for sentence in lowered_rows(trials):
        say(f"note: {sentence}")
    for fingerprint, data in datasets(trials).items():
        if not isinstance(data, PerturbseqData) or data.path is None:
            continue
        loaded = imported(load)(data, cache_dir)
        for sentence in (f"data: {loaded.read}", *(f"note: {note}" for note in loaded.notes)):
            if sentence not in said:
                say(sentence)
        said |= {f"data: {loaded.read}", *(f"note: {note}" for note in loaded.notes)}
        for trial in trials:
            if trial.spec.data_fingerprint == fingerprint:
                check_fits(trial.spec, loaded)


def lowered_rows(trials: Iterable[PlannedTrial]) -> list[str]:
    """A sentence on each release that has fewer images than the rows asked of it.

    Raises
    ------
    UserError
        If it serves too few rows of a condition or double.
    """
    found = []
    for data in datasets(trials).values():
        if isinstance(data, Causal3DIdentData) and data.path is not None:
            from harness.data.causal3dident.row_limits import as_served, lowered_words

            found.append(lowered_words(data, as_served(data)))
    return list(dict.fromkeys(sentence for sentence in found if sentence is not None))


@dataclass
class _Building:
    job: Job
    note: Path
    data: AnyDataSpec


class DataStage:
    """Sees that datasets are there before their trials start.

    Parameters
    ----------
    folder
        The study's.
    executor
        On SLURM each dataset is a job that its trials wait for; elsewhere the driver builds it.
    cache_dir
        Folder of built datasets.
    load
        Importable name of the function that builds one.
    before
        Called before a dataset is built here, which shows its own progress.
    say
        Told one sentence when the cluster takes no more jobs.
    """

    def __init__(
        self,
        folder: StudyFolder,
        executor: Executor,
        cache_dir: Path,
        load: str = LOAD,
        before: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._folder = folder
        self._executor = executor
        self._cache_dir = cache_dir
        self._load = load
        self._before = before
        self._say = say
        self._building: dict[str, _Building] = {}
        self._seen: set[str] = set()

    def prepare(self, trials: Iterable[PlannedTrial]) -> None:
        """Build what is missing, or submit the jobs that will.

        Raises
        ------
        UserError
            If a dataset built here cannot be.
        """
        for fingerprint, data in datasets(trials).items():
            if fingerprint in self._seen:
                continue
            self._seen.add(fingerprint)
            if not needs_building(data, fingerprint, self._cache_dir):
                continue
            if self._executor.name == "slurm":
                self._submit(fingerprint, data)
            else:
                self._before()
                imported(self._load)(data, self._cache_dir)

    def after(self, fingerprint: str) -> Sequence[str]:
        """Ids of the jobs that the trials of a dataset have to wait for."""
        building = self._building.get(fingerprint)
        return [building.job.id] if building is not None and building.job.alive() else []

    def failures(self) -> dict[str, str]:
        """Datasets whose job ended without building them, with the reason; each is given once."""
        failed = {}
        for fingerprint, building in list(self._building.items()):
            if building.job.alive():
                continue
            note = read_json(building.note) or {}
            if note.get("state") != "finished" and needs_building(building.data, fingerprint, self._cache_dir):
                last = (building.job.error().splitlines() or ["no message"])[-1]
                failed[fingerprint] = f"its data could not be built: {note.get('reason') or last}"
            del self._building[fingerprint]
        return failed

    def _submit(self, fingerprint: str, data: AnyDataSpec) -> None:
        note = self._folder.path / "data" / f"{fingerprint}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        text = json.dumps(data.model_dump(mode="json"))
        task = BuildData(text, str(note.absolute()), cache_dir=str(self._cache_dir), load=self._load)
        while True:
            try:
                job = self._executor.submit([task], f"{self._folder.name}-data")[0]
                break
            except ClusterFull as error:
                self._say(f"SLURM does not take the job that builds the data now ({error}); trying again")
                time.sleep(FULL_SECONDS)
            except UserError as error:
                raise UserError(f"the job that builds the data was refused: {error}") from error
        self._building[fingerprint] = _Building(job, note, data)
