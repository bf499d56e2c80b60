"""Calls beside jobs: the one-call start of a job, its estimate, model selection.

Thin over the same rows, files and errors as everything else.
"""

from typing import Any

from serve_app.catalogue import candidates, find_model
from serve_app.context import Service
from serve_app.create import FILE_FIELDS, Attempted, check_hub, create_job
from serve_app.keys import Caller
from serve_app.native_schemas import MAX_CANDIDATES, SelectModel
from serve_app.prepare_error import PrepareError
from serve_app.request_types import RequestError
from serve_app.schemas import CreateJob, StartTraining
from serve_app.settings import Settings
from serve_app.store.tables import Job
from serve_app.store.throughput import measured_throughput
from serve_app.tasks import (
    PURPOSE,
    Runner,
    as_lines,
    fetched,
    grader_of,
    on_ray,
    rows_file,
    run_work,
    task_folder,
)
from train.selection.catalogue import read_catalogue

ESTIMATE_DEADLINE_S, SELECT_DEADLINE_S = 300.0, 1800.0


def start_training(
    service: Service, caller: Caller, body: StartTraining, attempted: Attempted
) -> tuple[Job, bool]:
    """Make a job of rows or of a file; (the job, True when an earlier call had made it).

    Raises what `create_job` raises.
    """
    if body.file is not None:
        return create_job(service, caller, body.to_create(body.file), attempted)
    stored = service.files.save(
        caller.project_id, "rows.jsonl", PURPOSE, iter([as_lines(body.rows or [])])
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
    with task_folder(service) as folder:
        files = {use: fetched(service, caller, i, folder, f"{use}_file") for use, i in ids.items()}
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
    with task_folder(service) as folder:
        request = {
            "constraints": body.constraints.model_dump(mode="json"),
            "grader": grader_of(body),
            "seed": body.seed,
        }
        arguments = {
            "request": request,
            "path": rows_file(service, caller, body, folder),
            "candidates": candidates,
            "stated": stated_of(service.settings),
            "throughputs": measured,
        }
        found = run_work(run, service, caller, body, SELECT_DEADLINE_S, "select_model", arguments)
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
