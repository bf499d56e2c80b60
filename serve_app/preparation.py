"""Runs `prepare` for one job: its files fetched, its rows checked, its specification written.

The work is done once: what came of it lies in the job's folder, and whoever asks again, after a
crash or at the same time, is given that. So the rows of a job never change once it may run.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.jobs import get_job
from serve_app.store.tables import Job

RESULT_FILE, LOCK_FILE, SPEC_FILE = "prepared.json", ".preparing", "spec.json"
FILE_FIELDS = {
    "training": "training_file",
    "validation": "validation_file",
    "heldout": "heldout_file",
}


@dataclass(frozen=True)
class Preparation:
    """What came of checking a job; either `spec` or `error` is set."""

    spec: dict[str, Any] | None = None  # the complete train.spec.JobSpec
    resolved: dict[str, Any] = field(default_factory=dict)  # the request, "auto" replaced
    notes: list[str] = field(default_factory=list)  # why each automatic choice
    steps_planned: int = 0
    error: dict[str, Any] | None = None  # {"code", "message", "param"}: the user's to mend
    bad_lines: list[dict[str, Any]] = field(default_factory=list)  # {"line", "message"}


def prepare_job(settings: Settings, job_id: str, cluster: Mapping[str, float]) -> Preparation:
    """Prepare a job that stands in the store. Raises what is not the user's to mend."""
    folder = settings.job_folder(job_id)
    folder.mkdir(parents=True, exist_ok=True)
    database = Database(settings.store_url)
    try:
        with _alone(folder):
            result = folder / RESULT_FILE
            if not result.exists():
                made = asdict(_prepare(settings, database, job_id, folder, dict(cluster)))
                hidden = result.with_name(f".{result.name}")
                hidden.write_text(json.dumps(made), encoding="utf-8")
                hidden.replace(result)
            return Preparation(**json.loads(result.read_text(encoding="utf-8")))
    finally:
        database.close()


def _prepare(
    settings: Settings,
    database: Database,
    job_id: str,
    folder: Path,
    cluster: dict[str, float],
) -> Preparation:
    from serve_app.prepare import PrepareError, prepare

    with database.read() as session:
        job = get_job(session, job_id)
        if job is None:
            raise LookupError(f"there is no job {job_id} in the store")
        model_path = _model_path(settings, session, job)
    fetched = folder / "files"
    try:
        files = _fetch(settings, database, job, fetched)
        request = job.request | {"seed": job.seed}
        done = prepare(request, folder, files, model_path, cluster)
    except PrepareError as error:
        told = {"code": error.code, "message": error.message, "param": error.param}
        return Preparation(error=told, bad_lines=error.lines)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    return Preparation(done.spec, done.resolved, done.notes, done.steps_planned)


def _model_path(settings: Settings, session: Any, job: Job) -> str:
    from serve_app.catalogue import find_model
    from serve_app.prepare import PrepareError

    model = find_model(settings, session, job.project_id or "", job.model)
    if model is None:
        message = f"model {job.model!r} was deleted in the meantime"
        raise PrepareError("model_not_found", message, "model", [])
    return model.path


def _fetch(settings: Settings, database: Database, job: Job, folder: Path) -> dict[str, Path]:
    """Local copies of the job's files, by use."""
    from serve_app.files import FileStorage

    storage = FileStorage(settings, database)
    folder.mkdir(exist_ok=True)
    return {
        use: storage.fetch(job.request[name], folder / f"{use}.jsonl")
        for use, name in FILE_FIELDS.items()
        if job.request.get(name)
    }


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process, however it ends."""
    with (folder / LOCK_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
