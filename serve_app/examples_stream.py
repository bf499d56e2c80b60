"""A teacher's work as server-sent events: how far it is, then the answer or what went wrong.

The work runs on the cluster and the events leave from here; two files in a folder that both see
stand between them (`serve_app.native_work`). A client that closes the connection cancels: no
further problem is begun, those under way end, and what was accepted becomes a file as usual.
"""

import asyncio
import contextlib
import json
import logging
import shutil
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anyio.to_thread

from serve_app.errors import ApiError, bad_request, envelope
from serve_app.event_stream import DONE, KEEP_ALIVE, KEEP_ALIVE_S, POLL_S
from serve_app.request_types import RequestError

PROGRESS, CANCEL = "progress.json", "cancel"  # what the work writes, and what it looks for

log = logging.getLogger(__name__)


def stream_examples(call: "Future[dict[str, Any]]", watch: Path) -> AsyncIterator[str]:
    """Yield `progress` events, then one `result` or `error`; removes `watch` when the call ends."""
    call.add_done_callback(lambda _: shutil.rmtree(watch, ignore_errors=True))
    return _events(call, watch)


async def _events(call: "Future[dict[str, Any]]", watch: Path) -> AsyncIterator[str]:
    told, spoke = None, time.monotonic()
    yield KEEP_ALIVE  # the headers leave at once
    try:
        while not call.done():
            state = await anyio.to_thread.run_sync(_read, watch / PROGRESS)
            if state is not None and state != told:
                told, spoke = state, time.monotonic()
                yield _sse("progress", state)
            elif time.monotonic() - spoke >= KEEP_ALIVE_S:
                spoke = time.monotonic()
                yield KEEP_ALIVE
            await asyncio.sleep(POLL_S)
        yield _end(call)
        yield DONE
    finally:
        if not call.done() and not call.cancel():
            with contextlib.suppress(FileNotFoundError):  # the call has ended in this moment
                (watch / CANCEL).touch()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:  # nothing was answered yet, or the call has just ended
        return None


def _end(call: "Future[dict[str, Any]]") -> str:
    try:
        return _sse("result", json.dumps(call.result(), ensure_ascii=False))
    except RequestError as error:
        refused = bad_request(error.message, param=error.param, code=error.code)
        return _sse("error", json.dumps(refused.body()))
    except ApiError as error:
        return _sse("error", json.dumps(error.body()))
    except Exception:
        # The status has been sent: what an ordinary call answers with 500 is an event here.
        log.exception("examples could not be generated")
        message = (
            "The server failed while it generated examples; the same call goes on where it was"
        )
        return _sse("error", json.dumps(envelope(message, "server_error")))


def _sse(event: str, data: str) -> str:
    return f"event: {event}\ndata: {data}\n\n"
