"""A job's events as server-sent events: what was, then what happens, until the job has ended."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import anyio.to_thread

from serve_app import wire
from serve_app.job_state import JobStatus
from serve_app.store.database import Database
from serve_app.store.events import events_since
from serve_app.store.jobs import get_job
from serve_app.store.tables import Event

POLL_S = 0.5
KEEP_ALIVE_S = 15.0  # proxies and clients give up on a connection that says nothing
DONE = "data: [DONE]\n\n"
KEEP_ALIVE = ": keep-alive\n\n"


async def stream_events(database: Database, job_id: str, seq: int) -> AsyncIterator[str]:
    """Yield events after number `seq`, each once and in order; ends after a terminal job's last."""
    yield KEEP_ALIVE  # the headers leave at once, however long nothing happens
    spoke = time.monotonic()
    while True:
        found, ended = await anyio.to_thread.run_sync(_next, database, job_id, seq)
        for event in found:
            yield as_sse(event)
        if found:
            seq, spoke = found[-1].seq, time.monotonic()
            continue  # there may be more than one batch
        if ended:
            yield DONE
            return
        if time.monotonic() - spoke >= KEEP_ALIVE_S:
            spoke = time.monotonic()
            yield KEEP_ALIVE
        await asyncio.sleep(POLL_S)


def _next(database: Database, job_id: str, seq: int) -> tuple[list[Event], bool]:
    """(the next events, True when the job has ended), of one moment."""
    with database.read() as session:
        job = get_job(session, job_id)
        ended = job is None or JobStatus(job.status).terminal
        return events_since(session, job_id, seq), ended


def as_sse(event: Event) -> str:
    """One event; its `event:` is its type, "message" or "metrics"."""
    data = json.dumps(wire.event_object(event), ensure_ascii=False)
    return f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"
