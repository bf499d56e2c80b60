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
from typing import TYPE_CHECKING, Any

from serve_app.request_types import AUTO
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.jobs import get_job
from serve_app.store.tables import Job
from train.checkpoint import NOT_MODEL

if TYPE_CHECKING:
    from serve_app.catalogue import KnownModel
    from serve_app.prepare_error import PrepareError

RESULT_FILE, LOCK_FILE, SPEC_FILE = "prepared.json", ".preparing", "spec.json"
CHOICE_FILE = "selected.json"  # the model that was measured best, before the rest is prepared
BASE_FOLDER = "base"  # of a job that starts from another one's checkpoint
TEACHER_FOLDER = "teacher"  # of a job that another one's checkpoint teaches
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
    model: str | None = None  # that was selected, where the job asked for "auto"
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
                _write(result, made)
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
    from serve_app.catalogue import candidates
    from serve_app.prepare import PrepareError, prepare

    with database.read() as session:
        job = get_job(session, job_id)
        if job is None:
            raise LookupError(f"there is no job {job_id} in the store")
    fetched = folder / "files"
    request = job.request | {"seed": job.seed}
    notes: list[str] = []
    try:
        files, documents = _fetch(settings, database, job, fetched)
        name = job.model
        if name == AUTO:
            with database.read() as session:
                models = candidates(settings, session, job.project_id or "")
            name, notes = _chosen_once(folder, models, request, files, cluster)
        with database.read() as session:
            model = _model_of(settings, session, job, name)
        model_path = pinned(model, folder / BASE_FOLDER)
        teacher = _teacher_path(settings, database, job, folder / TEACHER_FOLDER)
        done = prepare(
            request | {"model": name}, folder, files, model_path, cluster, teacher, documents
        )
    except PrepareError as error:
        told = {"code": error.code, "message": error.message, "param": error.param}
        return Preparation(error=told, bad_lines=error.lines)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    selected = name if job.model == AUTO else None
    return Preparation(
        done.spec, done.resolved, [*notes, *done.notes], done.steps_planned, selected
    )


def _chosen_once(
    folder: Path,
    models: Mapping[str, str],
    request: Mapping[str, Any],
    files: Mapping[str, Path],
    cluster: dict[str, float],
) -> tuple[str, list[str]]:
    """`choose_model`, kept at once: a preparation that is run again does not measure again."""
    kept = folder / CHOICE_FILE
    if not kept.exists():
        _write(kept, choose_model(models, request, files, cluster))
    name, notes = json.loads(kept.read_text(encoding="utf-8"))
    return name, notes


def choose_model(
    models: Mapping[str, str],
    request: Mapping[str, Any],
    files: Mapping[str, Path],
    cluster: dict[str, float],
) -> tuple[str, list[str]]:
    """The model that suits the job's rows best, by measurement, and why. Raises PrepareError.

    Measured as the job itself samples: with its prompt, limits, protocol and grader.
    """
    from serve_app.native_schemas import MAX_CANDIDATES, Constraints
    from serve_app.native_select import select_model

    names = list(models)[:MAX_CANDIDATES]
    asked = {
        "constraints": Constraints().model_dump(mode="json"),
        "job": request,
        "seed": request["seed"],
    }
    found = select_model(
        asked,
        files["training"],
        {name: models[name] for name in names},
        cluster,
        validation=files.get("validation"),
    )
    ranked = found["candidates"]
    shown = [f"model selection: {_told(each)}" for each in ranked]
    shown[0] += "; selected" + (
        "" if found["selection_cost"]["told_apart"] else ", not surely better than every other"
    )
    if unseen := list(models)[MAX_CANDIDATES:]:
        shown.append(
            f"model selection: {len(names)} of {len(models)} models were looked at, the service's "
            f"own first, then the newest trained here; not looked at: {', '.join(unseen)}"
        )
    return ranked[0]["model_id"], shown


def _write(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees all of it or no file."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_text(json.dumps(value), encoding="utf-8")
    hidden.replace(path)


def _told(candidate: Mapping[str, Any]) -> str:
    """What was seen of a candidate, in one line."""
    seen = candidate["measured"]
    if seen is None:
        return f"{candidate['model_id']}: {candidate['reason']}"
    low, high = candidate["interval"]
    steps, gain = seen["step_reward"], seen.get("srl_probe")
    return (
        f"{candidate['model_id']}: pass@k {candidate['score']:.3f} ({low:.3f}-{high:.3f}, "
        f"{seen['num_problems']} problems)"
        + (f", step reward {steps:.3f}" if steps is not None else "")
        + (f", {gain['after']:.3f} after {gain['num_steps']} SRL steps" if gain else "")
    )


def _model_of(settings: Settings, session: Any, job: Job, name: str) -> "KnownModel":
    from serve_app.catalogue import find_model

    model = find_model(settings, session, job.project_id or "", name)
    if model is None:
        raise _model_gone(name)
    return model


def _teacher_path(settings: Settings, database: Database, job: Job, folder: Path) -> str | None:
    """Where the model lies that teaches on the cluster's own engines; None: no such teacher."""
    from serve_app.prepare_error import PrepareError

    teacher = job.request.get("teacher") or {}
    if teacher.get("type") != "engine":
        return None
    with database.read() as session:
        try:
            model = _model_of(settings, session, job, teacher["model"])
            return pinned(model, folder)
        except PrepareError as error:
            raise PrepareError(error.code, error.message, "teacher.model", []) from None


def pinned(model: "KnownModel", folder: Path) -> str:
    """Where the job finds its model as long as it lives. Raises PrepareError when it is gone.

    A checkpoint is removed when its own job has three better ones, so its files are linked.
    """
    if model.kind != "checkpoint":
        return model.path
    try:
        files = [file for file in Path(model.path).iterdir() if file.name not in NOT_MODEL]
        shutil.rmtree(folder, ignore_errors=True)  # of a preparation that was killed
        folder.mkdir()
        for file in files:
            try:
                (folder / file.name).hardlink_to(file)
            except OSError:  # on another file system, or one without links
                shutil.copy2(file, folder / file.name)
    except FileNotFoundError:
        raise _model_gone(model.name) from None
    return str(folder)


def _model_gone(name: str) -> "PrepareError":
    from serve_app.prepare_error import PrepareError

    return PrepareError(
        "model_not_found", f"model {name!r} was deleted in the meantime", "model", []
    )


def _fetch(
    settings: Settings, database: Database, job: Job, folder: Path
) -> tuple[dict[str, Path], list[Path]]:
    """Local copies of the job's files by use, and of the documents for its teacher."""
    from serve_app.files import FileStorage

    storage = FileStorage(settings, database)
    folder.mkdir(exist_ok=True)
    files = {
        use: storage.fetch(job.request[name], folder / f"{use}.jsonl")
        for use, name in FILE_FIELDS.items()
        if job.request.get(name)
    }
    documents = [
        storage.fetch(file_id, folder / f"document-{k}.txt")
        for k, file_id in enumerate(job.request.get("documents", ()))
    ]
    return files, documents


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process, however it ends."""
    with (folder / LOCK_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
