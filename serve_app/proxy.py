"""What Ray Serve's HTTP proxy answers by itself, in the form of this service's errors.

The proxy speaks in plain text where the application could not be asked: no replica is up, too many
requests wait, a replica died under its request. Ray calls `middlewares` in each proxy when the
cluster was started with RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.proxy.middlewares, as
`serve_app.ray_head` does.
"""

from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import envelope
from serve_app.request_ids import HEADER, request_id_of

SERVES_OWN = "/-/"  # paths of the proxy's own health and routes: machines read them
LOST = (
    "The replica that worked on this request was lost, and another one is being started; try again"
)
LOST_RETRY_AFTER_S = 5
MAX_TEXT_CHARACTERS = 500


def middlewares() -> list[Middleware]:
    """What Ray Serve puts around its proxy."""
    return [Middleware(ProxyErrors)]


class ProxyErrors:
    """ASGI middleware around the proxy. Answers of the application pass through untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http" or scope["path"].startswith(SERVES_OWN):
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            if answer.passed_on:
                raise
            answer.plain = None  # the proxy logs what happened; nothing of it is for the client
        if not answer.passed_on:
            await answer.as_error(scope)(scope, receive, send)


class _Answer:
    """Passes an answer on, except an error that is not JSON, which it keeps."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.passed_on = False
        self.plain: Message | None = None  # the beginning of an error that is kept
        self._text = b""

    async def send(self, message: Message) -> None:
        """What the proxy sends."""
        if message["type"] == "http.response.start":
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            if message["status"] >= 400 and not kind.startswith("application/json"):
                self.plain = message
                return
            self.passed_on = True
        elif self.plain is not None:
            self._text += message.get("body", b"")
            return
        await self._send(message)

    def as_error(self, scope: Scope) -> JSONResponse:
        """The envelope for what was kept, or for no answer at all."""
        if self.plain is None:
            status, message = 503, LOST
            headers = {"retry-after": str(LOST_RETRY_AFTER_S), HEADER: request_id_of(scope)}
        else:
            status = self.plain["status"]
            message = self._text.decode("utf-8", "replace").strip()[:MAX_TEXT_CHARACTERS]
            kept = MutableHeaders(raw=list(self.plain["headers"]))
            headers = {n: kept[n] for n in ("retry-after", HEADER) if n in kept}
        kind = "server_error" if status >= 500 else "invalid_request_error"
        body: dict[str, Any] = envelope(message or f"The service answered {status}", kind)
        return JSONResponse(body, status, headers=headers)
