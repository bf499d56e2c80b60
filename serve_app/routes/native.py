"""The short way: one call starts a job, and calls that stand beside jobs.

/v1/training, /v1/model and /v1/examples, the same without /v1, and the longer names under
/v1/fine_tuning. All are thin over the rows, keys and errors of everything else.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from serve_app import examples, native, preview, tasks, wire
from serve_app.auth import Calling
from serve_app.context import ServiceOf
from serve_app.create import Attempted
from serve_app.errors import unavailable
from serve_app.examples_stream import stream_examples
from serve_app.fair_threads import FairThreads
from serve_app.keys import Caller
from serve_app.native_schemas import GenerateExamples, SelectModel
from serve_app.routes.files import find_file
from serve_app.routes.jobs import (
    IdempotencyKey,
    RetryCount,
    change_job,
    find_job,
)
from serve_app.routes.paging import After, Limit, unknown_cursor
from serve_app.schemas import CreateJob, StartTraining
from serve_app.store import jobs

router = APIRouter(tags=["native"])  # under /v1, and under no prefix
fine_tuning = APIRouter(prefix="/fine_tuning", tags=["jobs"])  # under /v1
# These calls wait for work on the cluster, perhaps for minutes. More of them than these threads
# wait, and leave the threads that answer everything else alone.
_threads = FairThreads(8, "native")
CLUSTER_RETRY_AFTER_S = 60


@router.post("/training/start")
def start_training(
    body: StartTraining,
    caller: Calling,
    service: ServiceOf,
    idempotency_key: IdempotencyKey = None,
    retry_count: RetryCount = 0,
) -> dict[str, Any]:
    """Train on rows or on a file. What is left out, the grader too, is chosen from the rows."""
    attempted = Attempted(idempotency_key, retry_count)
    job, _ = native.start_training(service, caller, body, attempted)
    return wire.started(job, f"GET /v1/training/{job.id}/status says how it goes")


@router.get("/training")
def list_training(
    caller: Calling, service: ServiceOf, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """The project's jobs, newest first, each as its status."""
    with service.database.read() as session:
        try:
            rows, more = jobs.list_jobs(session, caller.project_id, after=after, limit=limit)
        except KeyError:
            raise unknown_cursor(after) from None
    return wire.page([wire.status_object(row) for row in rows], more)


@router.get("/training/{job_id}/status")
def training_status(job_id: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """One job as it stands, in flat fields."""
    with service.database.read() as session:
        return wire.status_object(find_job(session, job_id, caller.project_id))


@router.post("/training/{job_id}/cancel")
def cancel_training(job_id: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """Stop the job for good, after its checkpoint is committed."""
    job = change_job(service, caller.project_id, job_id, "cancel")
    doing = "is being cancelled: a checkpoint is committed first"
    return wire.started(job, f"The job {doing if job.requested else 'was cancelled'}")


@router.post("/model/select")
@fine_tuning.post("/model_selection")
async def select_model(body: SelectModel, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """Rank models by what they solve of the rows before any training, and by their cost."""
    return await _apart(caller, lambda: native.select_model(service, caller, body, tasks.on_ray))


@router.post("/examples/generate", response_model=None)
@fine_tuning.post("/examples", response_model=None)
async def generate_examples(
    body: GenerateExamples, caller: Calling, service: ServiceOf
) -> dict[str, Any] | StreamingResponse:
    """Write verified expert solutions of the rows' problems into a new file.

    With `stream`: events `progress`, then `result` or `error`; closing the connection cancels.
    """
    if not body.stream:
        return await _apart(caller, lambda: examples.generate(service, caller, body, tasks.on_ray))
    watch = tasks.new_folder(service)
    call = _submit(
        caller,
        lambda: examples.generate(service, caller, body, tasks.on_ray, watch),
    )
    return StreamingResponse(stream_examples(call, watch), media_type="text/event-stream")


@router.post("/examples/estimate")
@fine_tuning.post("/examples/estimate")
async def estimate_examples(
    body: GenerateExamples, caller: Calling, service: ServiceOf
) -> dict[str, Any]:
    """Tokens, and the price where `teacher.price` is given, of examples; nobody is asked."""
    return await _apart(caller, lambda: examples.estimate(service, caller, body, tasks.on_ray))


@router.get("/examples/{file_id}")
@fine_tuning.get("/examples/{file_id}")
def preview_examples(file_id: str, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """The first rows of a file of examples, at most 10."""
    return preview.preview_examples(service, find_file(service, caller.project_id, file_id))


@fine_tuning.post("/estimate")
async def estimate(body: CreateJob, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """What a job would take, before anything starts: the body is a create call's."""
    return await _apart(caller, lambda: native.estimate(service, caller, body, tasks.on_ray))


async def _apart(caller: Caller, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Wait for a call in the threads, at the project's turn."""
    return await asyncio.wrap_future(_submit(caller, call))


def _submit(caller: Caller, call: Callable[[], dict[str, Any]]) -> "Future[dict[str, Any]]":
    """A call in the threads, at the project's turn."""

    def run() -> dict[str, Any]:
        with _cluster_is_needed():
            return call()

    return _threads.submit(caller.project_id, run)


@contextmanager
def _cluster_is_needed() -> Iterator[None]:
    """Turn a cluster that is full or down into 503. What its work raised stays as it is."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except TimeoutError as error:
        raise unavailable(str(error), CLUSTER_RETRY_AFTER_S, code="cluster_full") from None
    except RayTaskError:
        raise
    except (RayError, ConnectionError) as error:
        raise unavailable(
            f"The cluster does not answer ({type(error).__name__}); try again",
            CLUSTER_RETRY_AFTER_S,
            code="ray_down",
        ) from None
