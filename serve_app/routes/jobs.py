"""/v1/fine_tuning/jobs: create, list, retrieve, cancel, pause, resume."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from sqlalchemy.orm import Session

from serve_app import create, wire
from serve_app.auth import Calling
from serve_app.context import Service, ServiceOf
from serve_app.errors import ApiError, bad_request, not_found
from serve_app.routes.paging import After, Limit, unknown_cursor
from serve_app.schemas import CreateJob
from serve_app.store import jobs
from serve_app.store.tables import Job

router = APIRouter(prefix="/fine_tuning/jobs", tags=["jobs"])
_METADATA = re.compile(r"metadata\[(.+)\]")
IdempotencyKey = Annotated[str | None, Header(alias="idempotency-key")]
# Sent by the stock clients: how often they have sent this call before.
RetryCount = Annotated[int, Header(alias="x-stainless-retry-count")]


def no_such_job(job_id: str) -> ApiError:
    """404, also for another project's job."""
    return not_found(
        f"Could not find fine tune: {job_id}",
        param="fine_tuning_job_id",
        code="fine_tune_not_found",
    )


def find_job(session: Session, job_id: str, project_id: str, *, lock: bool = False) -> Job:
    """The project's job. Raises ApiError 404."""
    job = jobs.get_job(session, job_id, project_id, lock=lock)
    if job is None:
        raise no_such_job(job_id)
    return job


def job_objects(service: Service, session: Session, rows: list[Job]) -> list[dict[str, Any]]:
    """The jobs as clients read them."""
    ray_jobs = jobs.submission_ids(session, [row.id for row in rows])
    organization = service.settings.organization
    return [wire.job_object(row, organization, ray_jobs.get(row.id)) for row in rows]


@router.post("")
def create_job(
    body: CreateJob,
    caller: Calling,
    service: ServiceOf,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    retry_count: RetryCount = 0,
) -> dict[str, Any]:
    """Make a job. A repetition, by `Idempotency-Key` or by a client's retry, answers the first."""
    attempted = create.Attempted(idempotency_key, retry_count)
    job, replayed = create.create_job(service, caller, body, attempted)
    if replayed:
        response.headers["idempotent-replayed"] = "true"
    with service.database.read() as session:
        return job_objects(service, session, [job])[0]


@router.get("")
def list_jobs(
    request: Request, caller: Calling, service: ServiceOf, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """The project's jobs, newest first; `metadata[k]=v` filters, several of them together."""
    wanted = {}
    for name, value in request.query_params.multi_items():
        if name == "metadata":
            raise bad_request("metadata: write metadata[key]=value", param="metadata")
        if found := _METADATA.fullmatch(name):
            wanted[found[1]] = value
    with service.database.read() as session:
        try:
            rows, has_more = jobs.list_jobs(
                session, caller.project_id, after=after, limit=limit, metadata=wanted
            )
        except KeyError:
            raise unknown_cursor(after) from None
        return wire.page(job_objects(service, session, rows), has_more)


@router.get("/{job_id}")
def retrieve_job(job_id: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """One job as it stands."""
    with service.database.read() as session:
        job = find_job(session, job_id, caller.project_id)
        return job_objects(service, session, [job])[0]


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """Stop the job for good, after its checkpoint is committed."""
    return _changed(service, caller.project_id, job_id, "cancel")


@router.post("/{job_id}/pause")
def pause_job(job_id: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """Stop the job at a committed checkpoint, from which `resume` goes on."""
    return _changed(service, caller.project_id, job_id, "pause")


@router.post("/{job_id}/resume")
def resume_job(job_id: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """Let a paused job go on, by way of the queue."""
    return _changed(service, caller.project_id, job_id, "resume")


def change_job(service: Service, project_id: str, job_id: str, what: str) -> Job:
    """Cancel, pause or resume. A wrong state raises WrongStateError: 400, never retried."""
    with service.database.write() as session:
        job = find_job(session, job_id, project_id, lock=True)
        if what == "resume":
            jobs.resume(session, job)
        else:
            jobs.request_stop(session, job, what)
    service.manager.nudge()
    return job


def _changed(service: Service, project_id: str, job_id: str, what: str) -> dict[str, Any]:
    job = change_job(service, project_id, job_id, what)
    with service.database.read() as session:
        return job_objects(service, session, [job])[0]
