"""Making a job: what is checked before it is acknowledged, and how a create sent twice makes one.

Called by the routes that create jobs. Rows of the files are checked later, by the manager.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve_app.catalogue import HubUnreachableError, KnownModel, candidates, find_model, hub_has
from serve_app.context import Service
from serve_app.errors import bad_request, conflict, too_many, unavailable
from serve_app.ids import new_id
from serve_app.keys import Caller
from serve_app.request_types import AUTO
from serve_app.schemas import CreateJob
from serve_app.stage_schemas import EngineTeacherRequest, TeacherRequest
from serve_app.store import jobs
from serve_app.store.files import get_file
from serve_app.store.idempotency import OtherBodyError, claim, fulfil, is_recent
from serve_app.store.tables import Idempotency, Job, Project

FILE_FIELDS = ("training_file", "validation_file", "heldout_file")
MAX_KEY_CHARS = 255
OPEN_JOBS_RETRY_AFTER_S = 60
HUB_RETRY_AFTER_S = 30


@dataclass(frozen=True)
class Attempted:
    """How the client marks one create call among repetitions of it."""

    key: str | None = None  # its Idempotency-Key
    retry: int = 0  # how often the client sent this before, by its own count


def create_job(
    service: Service,
    caller: Caller,
    body: CreateJob,
    attempted: Attempted,
    *,
    sent: Mapping[str, Any] | None = None,
) -> tuple[Job, bool]:
    """Return (the job, True when an earlier call had made it), durably written.

    `sent` is what the client sent where that is not `body`: repetitions are known by it. Raises
    ApiError: 400 for a file or model that cannot be used, 409 for a key that was used with another
    body, 429 above the project's open jobs, 503 when the hub cannot be asked.
    """
    if attempted.key is not None and not 0 < len(attempted.key) <= MAX_KEY_CHARS:
        raise bad_request(f"Idempotency-Key must have 1 to {MAX_KEY_CHARS} characters")
    check_hub(service, caller, body.model)
    check_teacher(service, caller, body.teacher)
    stored = body.stored()
    with service.database.write() as session:
        # One create of a project at a time: the count below is then exact.
        query = select(Project).where(Project.id == caller.project_id)
        session.scalars(query.with_for_update()).one()
        row = _claimed(session, caller, attempted, _hash(stored if sent is None else sent))
        if (earlier := _earlier(session, caller, attempted, row)) is not None:
            return earlier, True
        _check_names(service, session, caller, body)
        _check_room(service, session, caller)
        job_id = new_id("ftjob-")
        job = jobs.new_job(
            job_id=job_id,
            project_id=caller.project_id,
            request=stored,
            out=str(service.settings.job_folder(job_id) / "out"),
            model=body.model,
            seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
            training_file=body.training_file,
            validation_file=body.validation_file,
            metadata=body.metadata,
        )
        jobs.create_job(session, job)
        fulfil(row, job.id)
    service.manager.nudge()
    return job, False


def check_teacher(
    service: Service, caller: Caller, teacher: TeacherRequest | None
) -> KnownModel | None:
    """The model of a teacher on the cluster's own engines; None: no such teacher.

    Raises ApiError when there is no such model.
    """
    if not isinstance(teacher, EngineTeacherRequest):
        return None
    return check_model(service, caller, teacher.model, "teacher.model")


def check_model(service: Service, caller: Caller, name: str, param: str) -> KnownModel:
    """The model of that name. Raises ApiError, naming `param`, when there is none."""
    with service.database.read() as session:
        found = find_model(service.settings, session, caller.project_id, name)
    if found is None:
        raise _unknown_model(name, param)
    check_hub(service, caller, name, param)
    return found


def check_hub(service: Service, caller: Caller, model: str, param: str = "model") -> None:
    """Raises ApiError when `model` is the name of a hub model that cannot be had."""
    with service.database.read() as session:
        found = find_model(service.settings, session, caller.project_id, model)
    if found is None or found.kind != "hub":
        return
    try:
        there = hub_has(model, service.secrets.get(caller.project_id, "HF_TOKEN"))
    except HubUnreachableError as error:
        raise unavailable(
            f"{param}: {model!r} is no model of this service, and {error}",
            HUB_RETRY_AFTER_S,
            code="hub_unreachable",
        ) from None
    if not there:
        raise _unknown_model(model, param)


def _unknown_model(model: str, param: str = "model") -> Exception:
    return bad_request(
        f"The model {model!r} does not exist or you do not have access to it; GET /v1/models lists "
        "those that do",
        param=param,
        code="model_not_found",
    )


def _hash(stored: object) -> str:
    text = json.dumps(stored, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _claimed(session: Session, caller: Caller, attempted: Attempted, body: str) -> Idempotency:
    key = f"key:{attempted.key}" if attempted.key is not None else f"retry:{caller.key_id}:{body}"
    try:
        return claim(session, caller.project_id, key, body)
    except OtherBodyError:
        raise conflict(
            f"The Idempotency-Key {attempted.key!r} was used with another body; use a new key",
            code="idempotency_key_reused",
        ) from None


def _earlier(
    session: Session, caller: Caller, attempted: Attempted, row: Idempotency
) -> Job | None:
    """The job that an earlier call of the same create made, when this one means it."""
    means_it = attempted.key is not None or (attempted.retry > 0 and is_recent(row))
    return jobs.get_job(session, row.job_id, caller.project_id) if means_it else None


def _check_names(service: Service, session: Session, caller: Caller, body: CreateJob) -> None:
    if body.model == AUTO:
        if not candidates(service.settings, session, caller.project_id):
            raise bad_request("model: 'auto' has no model to choose from", param="model")
    elif find_model(service.settings, session, caller.project_id, body.model) is None:
        raise _unknown_model(body.model)
    for field in FILE_FIELDS:
        if (file_id := getattr(body, field)) is None:
            continue
        file = get_file(session, file_id, caller.project_id, keep=True)
        if file is None:
            raise bad_request(
                f"{field}: there is no file {file_id!r}; POST /v1/files makes one",
                param=field,
                code="file_not_found",
            )
        if file.purpose != "fine-tune":
            raise bad_request(
                f"{field}: the file {file_id!r} has purpose {file.purpose!r}; upload it with "
                "purpose 'fine-tune'",
                param=field,
                code="invalid_file_purpose",
            )
    for k, file_id in enumerate(body.documents):
        if get_file(session, file_id, caller.project_id, keep=True) is None:
            raise bad_request(
                f"documents[{k}]: there is no file {file_id!r}; POST /v1/files makes one",
                param=f"documents[{k}]",
                code="file_not_found",
            )


def _check_room(service: Service, session: Session, caller: Caller) -> None:
    limit = service.settings.max_open_jobs_per_project
    if jobs.num_open_jobs(session, caller.project_id) >= limit:
        raise too_many(
            f"This project has {limit} jobs that have not ended, which is its limit; cancel one or "
            "wait",
            OPEN_JOBS_RETRY_AFTER_S,
            code="too_many_open_jobs",
        )
