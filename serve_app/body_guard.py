"""Middleware: JSON bodies are bounded, and hold only text that can be written again.

A JSON body is read whole before a route, or the key of a request, is looked at, so that without a
bound anybody could fill a replica's memory. Files and parts of uploads bound their own bodies as
they stream them.
"""

import json
import re

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import ApiError, bad_request, too_large

MAX_BYTES = 4 * 2**20
MAX_ROWS_BYTES = 64 * 2**20  # of a body that may hold rows
_STREAMED = re.compile(r"/v1/(?:files|uploads/[^/]+/parts)/?")
_WITH_ROWS = re.compile(
    r"(?:/v1)?/(?:training/start|model/select|examples/generate)/?"
    r"|/v1/fine_tuning/(?:model_selection|examples)/?"
)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # of a character beyond the first 65536


class BodyGuard:
    """ASGI middleware. It stands inside whatever rewrites paths."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request, unless its body is refused."""
        path = scope["path"].removeprefix(scope.get("root_path", "")) if "path" in scope else ""
        if scope["type"] != "http" or scope["method"] != "POST" or _STREAMED.fullmatch(path):
            await self._app(scope, receive, send)
            return
        try:
            body = await _read(receive, MAX_ROWS_BYTES if _WITH_ROWS.fullmatch(path) else MAX_BYTES)
        except ApiError as error:
            await JSONResponse(error.body(), error.status)(scope, receive, send)
            return
        if body is None:
            return  # the client has left

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = {"type": "http.request", "body": body, "more_body": False}, None
            return message

        await self._app(scope, replay, send)


async def _read(receive: Receive, max_bytes: int) -> bytes | None:
    """The whole body; None when the client left. Raises ApiError 413, 400."""
    parts, num_bytes, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        num_bytes += len(parts[-1])
        if num_bytes > max_bytes:
            raise too_large(
                f"The body has more than {max_bytes} bytes, the most that this call takes; upload "
                "rows as a file and give its id"
            )
        more = message.get("more_body", False)
    body = b"".join(parts)
    if _HALF.search(body) and not _is_writable(body):
        raise bad_request(
            "The body holds half a character: an escape from \\ud800 to \\udfff without its other "
            "half"
        )
    return body


def _is_writable(body: bytes) -> bool:
    """False when a text in it could not be answered with. No JSON is for the route to refuse."""
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return True
