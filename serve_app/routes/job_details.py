"""/v1/fine_tuning/jobs/{id}/...: events (a page or a stream), checkpoints, metrics, rollouts."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from serve_app import wire
from serve_app.auth import Calling
from serve_app.context import ServiceOf
from serve_app.errors import bad_request
from serve_app.event_stream import stream_events
from serve_app.rollout_log import UnknownRolloutError, list_rollouts
from serve_app.routes.jobs import find_job
from serve_app.routes.paging import After, Limit, unknown_cursor
from serve_app.store import events, jobs

router = APIRouter(prefix="/fine_tuning/jobs/{job_id}", tags=["jobs"])
SSE_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@router.get("/events", response_model=None)
def list_events(
    job_id: str,
    caller: Calling,
    service: ServiceOf,
    after: After = None,
    limit: Annotated[int | None, Query(ge=1, le=100)] = None,
    stream: bool = False,
    last_event_id: Annotated[str | None, Header(alias="last-event-id")] = None,
) -> Response | dict[str, Any]:
    """The job's events, newest first; with `stream=true` oldest first, as they happen."""
    with service.database.read() as session:
        find_job(session, job_id, caller.project_id)
        if stream:
            _refuse_paging(after, limit)
            seq = 0
            if last_event_id is not None:
                try:
                    seq = events.seq_of(session, job_id, last_event_id)
                except KeyError:
                    raise bad_request(
                        f"Last-Event-ID: {last_event_id!r} is no event of this job",
                        param="last-event-id",
                    ) from None
            return _sse(stream_events(service.database, job_id, seq))
        try:
            found, more = events.list_events(session, job_id, after=after, limit=limit or 20)
        except KeyError:
            raise unknown_cursor(after) from None
        return wire.page([wire.event_object(event) for event in found], more)


def _refuse_paging(after: str | None, limit: int | None) -> None:
    for name, value in (("after", after), ("limit", limit)):
        if value is not None:
            raise bad_request(
                f"{name}: a stream has no pages; the header Last-Event-ID says where it begins",
                param=name,
            )


def _sse(parts: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(parts, media_type="text/event-stream", headers=SSE_HEADERS)


@router.get("/checkpoints")
def list_checkpoints(
    job_id: str, caller: Calling, service: ServiceOf, after: After = None, limit: Limit = 10
) -> dict[str, Any]:
    """The checkpoints that still have their files, newest first."""
    with service.database.read() as session:
        find_job(session, job_id, caller.project_id)
        try:
            found, more = jobs.checkpoints(session, job_id, after=after, limit=limit)
        except KeyError:
            raise unknown_cursor(after) from None
    first, last = (found[0].id, found[-1].id) if found else (None, None)
    items = [wire.checkpoint_object(checkpoint) for checkpoint in found]
    return wire.page(items, more, first_id=first, last_id=last)


@router.get("/metrics")
def list_metrics(job_id: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """Every step's figures, oldest first: the whole curve at once."""
    with service.database.read() as session:
        find_job(session, job_id, caller.project_id)
        found = jobs.metrics_events(session, job_id)
    return wire.page([wire.metrics_object(event) for event in found], has_more=False)


@router.get("/rollouts")
def rollouts(
    job_id: str,
    caller: Calling,
    service: ServiceOf,
    step: Annotated[int | None, Query(ge=1, description="the stage's step, from 1")] = None,
    stage: Annotated[str | None, Query(pattern="^(srl|srl_2|rlvr)$")] = None,
    after: After = None,
    limit: Limit = 20,
) -> dict[str, Any]:
    """What the policy wrote and what it was rewarded with, newest step first."""
    with service.database.read() as session:
        out = find_job(session, job_id, caller.project_id).out
    try:
        found, more = list_rollouts(out, stage=stage, step=step, after=after, limit=limit)
    except UnknownRolloutError:
        raise unknown_cursor(after) from None
    return wire.page(found, more)
