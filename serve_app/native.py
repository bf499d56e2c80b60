"""Calls beside jobs: estimate, examples, model selection, and the one-call start of a job.

Thin over the same rows, files and errors as everything else. The work itself is in
`serve_app.native_work` and runs on Ray (`on_ray`); tests hand in a runner of their own.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serve_app.catalogue import KnownModel, candidates, find_model
from serve_app.context import Service
from serve_app.create import FILE_FIELDS, Attempted, check_hub, check_teacher, create_job
from serve_app.ids import new_id
from serve_app.keys import Caller
from serve_app.native_schemas import MAX_CANDIDATES, GenerateExamples, RowsOrFile, SelectModel
from serve_app.preparation import TEACHER_FOLDER, pinned
from serve_app.prepare_error import PrepareError
from serve_app.preview import PREVIEW
from serve_app.request_types import RequestError
from serve_app.schemas import CreateJob, StartTraining
from serve_app.settings import TASKS_FOLDER, Settings
from serve_app.store.files import get_file
from serve_app.store.tables import Job
from serve_app.store.throughput import measured_throughput
from train.selection.catalogue import read_catalogue

JOURNALS = "journals"  # in the folder of calls beside jobs
ANSWER_WITHIN_S = 0.8  # of a teacher's deadline: the rest is for the drafts under way
ESTIMATE_DEADLINE_S, SELECT_DEADLINE_S, TEACHER_DEADLINE_S = 300.0, 1800.0, 1800.0
EXAMPLES_NAME, PURPOSE = "examples.jsonl", "fine-tune"

# run(service, caller, deadline_s, name of a function of native_work, arguments) -> its result.
Runner = Callable[[Service, Caller, float, str, Mapping[str, Any]], Any]


def on_ray(
    service: Service, caller: Caller, deadline_s: float, function: str, arguments: Mapping[str, Any]
) -> Any:
    """Run a function of `native_work` in a Ray task, with the project's secrets.

    `cluster` is added to its arguments where it takes one. Raises PrepareError, TimeoutError.
    """
    import ray

    settings = service.settings
    # max_calls: the worker ends with the task, and with it the secrets in its environment.
    task = ray.remote(num_cpus=0, max_calls=1)(_in_worker).options(
        name=f"{function}:{caller.project_id}",
        runtime_env={"env_vars": settings.grader_environment},
    )
    call = task.remote(settings, caller.project_id, function, dict(arguments))
    try:
        outcome = ray.get(call, timeout=deadline_s)
    except ray.exceptions.GetTimeoutError:  # pyright: ignore[reportAttributeAccessIssue]
        ray.cancel(call, force=True)
        raise TimeoutError(
            f"waited {deadline_s:.0f} s for {function}; is the cluster full? Ask for fewer "
            "problems or models, or later"
        ) from None
    if isinstance(outcome, PrepareError):
        raise outcome
    return outcome


def _in_worker(settings: Settings, project_id: str, function: str, arguments: dict) -> Any:
    from serve_app import native_work
    from serve_app.manager import cluster_resources, project_secrets
    from serve_app.store.database import Database
    from train import secrets

    database = Database(settings.store_url)
    secrets.give(project_secrets(settings, database, project_id))
    database.close()
    if function in ("estimate_job", "select_model"):
        arguments["cluster"] = cluster_resources()
    try:
        return getattr(native_work, function)(**arguments)
    except PrepareError as error:  # a value: Ray would wrap it in a class of its own
        return error


def start_training(
    service: Service, caller: Caller, body: StartTraining, attempted: Attempted
) -> tuple[Job, bool]:
    """Make a job of rows or of a file; (the job, True when an earlier call had made it).

    Raises what `create_job` raises.
    """
    if body.file is not None:
        return create_job(service, caller, body.to_create(body.file), attempted)
    stored = service.files.save(
        caller.project_id, "rows.jsonl", PURPOSE, iter([_lines(body.rows or [])])
    )
    try:
        made = body.to_create(stored.id)
        job, replayed = create_job(service, caller, made, attempted, sent=body.stored())
    except Exception:
        service.files.delete(stored)
        raise
    if replayed:
        service.files.delete(stored)
    return job, replayed


def estimate(
    service: Service, caller: Caller, body: CreateJob, run: Runner = on_ray
) -> dict[str, Any]:
    """What a create call would take. Raises RequestError, and what `check_hub` raises."""
    check_hub(service, caller, body.model)
    ids = {
        name.removesuffix("_file"): file_id
        for name in FILE_FIELDS
        if (file_id := getattr(body, name)) is not None
    }
    with service.database.read() as session:
        model = find_model(service.settings, session, caller.project_id, body.model)
        throughput = measured_throughput(session, caller.project_id, body.model)
    if model is None:
        raise RequestError(
            f"model: there is no model {body.model!r}; GET /v1/models lists them",
            "model",
            "model_not_found",
        )
    with _folder(service) as folder:
        files = {use: _fetched(service, caller, i, folder, f"{use}_file") for use, i in ids.items()}
        arguments = {
            "request": body.stored(),
            "files": files,
            "model_path": model.path,
            "throughput": throughput,
        }
        try:
            return run(service, caller, ESTIMATE_DEADLINE_S, "estimate_job", arguments)
        except PrepareError as error:
            raise RequestError(error.message, error.param, error.code) from None


def generate_examples(
    service: Service,
    caller: Caller,
    body: GenerateExamples,
    run: Runner = on_ray,
    watch: Path | None = None,
) -> dict[str, Any]:
    """Write verified expert solutions into a new file. Raises RequestError, ApiError.

    What a teacher wrote is kept for a day: the same call again, after a time-out or a kill, pays
    only for the rest, and while the first one still runs it waits for it. `watch` is a folder by
    which a teacher's work is followed and ended (`native_work.generate_examples`).
    """
    deadline_s = TEACHER_DEADLINE_S if body.teacher else ESTIMATE_DEADLINE_S
    model = check_teacher(service, caller, body.teacher)
    with _folder(service) as folder:
        arguments = _examples_arguments(service, caller, body, folder)
        if body.teacher:
            free = body.teacher.model_dump(mode="json", exclude={"price"})
            asked = arguments | {"documents": body.documents, "teacher": free}
            arguments["journal"] = _journal(service, caller, asked)
            arguments["deadline_s"] = ANSWER_WITHIN_S * deadline_s
            arguments["watch"] = watch
        if model is not None:
            arguments["teacher_path"] = _pinned(model, folder)
        made = _run(run, service, caller, body, deadline_s, "generate_examples", arguments)
    stored = service.files.save(
        caller.project_id, EXAMPLES_NAME, PURPOSE, iter([_lines(made["rows"])])
    )
    return {
        "object": "fine_tuning.examples",
        "file_id": stored.id,
        "examples_generated": len(made["rows"]),
        "num_rejected": made["num_rejected"],
        "num_unknown": made["num_unknown"],
        "message": made["summary"],
        **({"teacher": made["teacher"]} if "teacher" in made else {}),
        "examples": made["rows"][:PREVIEW],
    }


def estimate_examples(
    service: Service, caller: Caller, body: GenerateExamples, run: Runner = on_ray
) -> dict[str, Any]:
    """Tokens and price of `generate_examples`, before anybody is asked. Raises as that does."""
    model = check_teacher(service, caller, body.teacher)
    if body.teacher is None:
        raise RequestError(
            "teacher: the solver is no teacher and costs nothing; give the teacher to estimate",
            "teacher",
        )
    with _folder(service) as folder:
        arguments = _examples_arguments(service, caller, body, folder)
        if model is not None:
            arguments["teacher_path"] = _pinned(model, folder)
        work = "estimate_examples"
        found = _run(run, service, caller, body, ESTIMATE_DEADLINE_S, work, arguments)
    return {"object": "fine_tuning.examples.estimate", **found}


def _examples_arguments(
    service: Service, caller: Caller, body: GenerateExamples, folder: Path
) -> dict[str, Any]:
    """What both calls about examples hand to the work."""
    arguments = {
        "path": _rows_file(service, caller, body, folder),
        "num_examples": body.num_examples,
        "grader": _grader(body),
        "seed": body.seed,
        "teacher": body.teacher and body.teacher.model_dump(mode="json"),
    }
    if body.teacher:
        arguments["documents"] = [
            _fetched(service, caller, file_id, folder, f"documents[{k}]")
            for k, file_id in enumerate(body.documents)
        ]
    return arguments


def _journal(service: Service, caller: Caller, arguments: Mapping[str, Any]) -> Path:
    """The file of this very call: of its project, rows, teacher and all else that is asked."""
    asked = {name: value for name, value in arguments.items() if name != "path"}
    rows = hashlib.sha256(arguments["path"].read_bytes()).hexdigest()
    whole = json.dumps([caller.project_id, rows, asked], sort_keys=True)
    folder = service.settings.data / TASKS_FOLDER / JOURNALS
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(whole.encode()).hexdigest()}.jsonl"


def select_model(
    service: Service, caller: Caller, body: SelectModel, run: Runner = on_ray
) -> dict[str, Any]:
    """Rank models by measured pass@k on a sample of the rows. Raises RequestError."""
    candidates = _candidates(service, caller, body)
    with service.database.read() as session:
        measured = {
            name: found
            for name in candidates
            if (found := measured_throughput(session, caller.project_id, name)) is not None
        }
    with _folder(service) as folder:
        request = {
            "constraints": body.constraints.model_dump(mode="json"),
            "grader": _grader(body),
            "seed": body.seed,
        }
        arguments = {
            "request": request,
            "path": _rows_file(service, caller, body, folder),
            "candidates": candidates,
            "stated": stated_of(service.settings),
            "throughputs": measured,
        }
        found = _run(run, service, caller, body, SELECT_DEADLINE_S, "select_model", arguments)
    best = found["candidates"][0]
    return {
        "object": "fine_tuning.model_selection",
        "task": body.task,
        "selected_model_id": best["model_id"],
        "score": best["score"],
        **found,
        "basis": "score: pass@k, measured by sampling the rows' problems with each model before "
        "any training, on more problems for those that do well; equal scores are ordered by single "
        "samples, then by the reward of single steps, then by counted operations per problem; "
        "where no model solves anything, by the reward of single steps after a short SRL run. "
        "full_evaluation_flops: estimated from each model's own mean",
    }


def stated_of(settings: Settings) -> dict[str, dict[str, Any]]:
    """What the catalogue file says of models, by name. Raises ValueError for its faults."""
    if settings.catalogue is None:
        return {}
    entries = read_catalogue(settings.catalogue)
    return {entry.name: entry.model_dump(exclude={"name", "path"}) for entry in entries}


def _candidates(service: Service, caller: Caller, body: SelectModel) -> dict[str, str]:
    """The models to look at, name -> folder or hub name."""
    named = body.constraints.models
    with service.database.read() as session:
        names = named or list(candidates(service.settings, session, caller.project_id))
        found = {
            name: find_model(service.settings, session, caller.project_id, name) for name in names
        }
    missing = [name for name, model in found.items() if model is None]
    if missing:
        raise RequestError(
            f"constraints.models: there is no model {', '.join(map(repr, missing))}; GET "
            "/v1/models lists them",
            "constraints.models",
            "model_not_found",
        )
    if len(found) > MAX_CANDIDATES:
        raise RequestError(
            f"constraints.models: {len(found)} models could be measured; name at most "
            f"{MAX_CANDIDATES} of them",
            "constraints.models",
        )
    return {name: model.path for name, model in found.items() if model is not None}


def _run(
    run: Runner,
    service: Service,
    caller: Caller,
    body: RowsOrFile,
    deadline_s: float,
    function: str,
    arguments: Mapping[str, Any],
) -> Any:
    """Run the work; what is wrong with the rows is said of the field that held them."""
    try:
        return run(service, caller, deadline_s, function, arguments)
    except PrepareError as error:
        source = "rows" if body.rows is not None else "file"
        param = {"training_file": source, "method": "grader"}.get(error.param or "", error.param)
        raise RequestError(error.message, param, error.code) from None


def _pinned(model: KnownModel, folder: Path) -> str:
    """Where a teacher's model lies while it is at work. Raises RequestError when it is gone."""
    try:
        return pinned(model, folder / TEACHER_FOLDER)
    except PrepareError as error:
        raise RequestError(error.message, "teacher.model", error.code) from None


def _grader(body: RowsOrFile) -> dict[str, Any] | None:
    return body.grader and body.grader.model_dump(mode="json", exclude_unset=True)


def _rows_file(service: Service, caller: Caller, body: RowsOrFile, folder: Path) -> Path:
    if body.file is not None:
        return _fetched(service, caller, body.file, folder, "file")
    path = folder / "rows.jsonl"
    path.write_bytes(_lines(body.rows or []))
    return path


def _fetched(service: Service, caller: Caller, file_id: str, folder: Path, param: str) -> Path:
    """A local copy of the project's file. Raises RequestError when it has none of that id."""
    with service.database.read() as session:
        found = get_file(session, file_id, caller.project_id)
    if found is None:
        raise RequestError(f"{param}: there is no file {file_id!r}", param, "file_not_found")
    return service.files.fetch(file_id, folder / f"{param}.jsonl")


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def new_folder(service: Service) -> Path:
    """A folder that every node sees. Whoever made it removes it."""
    folder = service.settings.data / TASKS_FOLDER / new_id("task-")
    folder.mkdir(parents=True)
    return folder


@contextmanager
def _folder(service: Service) -> Iterator[Path]:
    """A folder that every node sees, gone afterwards."""
    folder = new_folder(service)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
