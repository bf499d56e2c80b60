"""Middleware: each request gets an id, which its response carries and every log line can name.

It stands outermost, so that no exception passes it: one that nothing else caught is logged here
with the id, and answered by the server's error in the usual form.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.ids import new_id

log = logging.getLogger(__name__)
HEADER = "x-request-id"
_SANE = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def request_id_of(scope: Scope) -> str:
    """The id that the caller sent, when it can be trusted in a log; else a new one."""
    sent = Headers(scope=scope).get(HEADER, "")
    return sent if _SANE.fullmatch(sent) else new_id("req_")


class RequestIds:
    """ASGI middleware. `unexpected` is the body of a 500 that nobody meant."""

    def __init__(self, app: ASGIApp, unexpected: Mapping[str, Any], add_header: bool) -> None:
        self._app, self._unexpected, self._add_header = app, unexpected, add_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._add_header:
                    MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("%s %s failed, request %s", scope["method"], scope["path"], request_id)
            if started:  # too late for another status: breaking off is what tells the client
                raise
            response = JSONResponse(dict(self._unexpected), 500)
            await response(scope, receive, send_with_id)
