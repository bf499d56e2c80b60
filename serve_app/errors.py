"""Every 4xx and 5xx of the service has one form, and every response an `x-request-id`.

Rooms raise `ApiError`, through its constructors below; `install` gives an application the handlers
that turn it, and whatever else may be raised, into
{"error": {"message", "type", "param", "code"}}. What went wrong inside is logged with the request's
id and never told to the client.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException

from serve_app.job_state import WrongStateError
from serve_app.request_ids import RequestIds
from serve_app.request_types import RequestError, request_error

log = logging.getLogger(__name__)
STORE_RETRY_AFTER_S = 5
# The stock clients try 409 again by themselves; this header tells them not to.
NO_RETRY = {"x-should-retry": "false"}


class ApiError(Exception):
    """What a client is answered with; `param` names the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 (the contract's word)
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.type, self.param, self.code = type, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The envelope."""
        return envelope(self.message, self.type, self.param, self.code)


def envelope(
    message: str,
    type: str = "invalid_request_error",  # noqa: A002
    param: str | None = None,
    code: str | None = None,
) -> dict[str, Any]:
    """The body of every error."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request cannot be right, however often it is sent."""
    return ApiError(400, message, param=param, code=code)


def unauthorized(message: str, *, code: str = "invalid_api_key") -> ApiError:
    """401: no key, or none that is known."""
    return ApiError(401, message, code=code, headers={"www-authenticate": "Bearer"})


def forbidden(message: str, *, code: str | None = None) -> ApiError:
    """403: the key is known and may not do this."""
    return ApiError(403, message, type="permission_error", code=code)


def not_found(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """404: no such row, or another project's: the two answers are the same."""
    return ApiError(404, message, param=param, code=code)


def conflict(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """409, which the stock clients would retry unless they are told not to."""
    return ApiError(409, message, param=param, code=code, headers=NO_RETRY)


def too_large(message: str, *, param: str | None = None) -> ApiError:
    """413: more bytes than this service takes."""
    return ApiError(413, message, param=param, code="too_large")


def too_many(message: str, retry_after_s: float, *, code: str = "rate_limit_exceeded") -> ApiError:
    """429: the same request may succeed after `retry_after_s`."""
    return ApiError(
        429, message, type="rate_limit_error", code=code, headers=_retry_after(retry_after_s)
    )


def unavailable(message: str, retry_after_s: float, *, code: str | None = None) -> ApiError:
    """503: something that this call needs is down or still loading."""
    return ApiError(
        503, message, type="server_error", code=code, headers=_retry_after(retry_after_s)
    )


def _retry_after(seconds: float) -> dict[str, str]:
    return {"retry-after": str(max(1, round(seconds + 0.5)))}


def install(app: FastAPI, *, request_id_header: bool = True) -> None:
    """Give `app` the envelope and the ids. Call it once, after all other middleware.

    `request_id_header` False: a proxy in front names the request and adds the header itself.
    """
    handlers: dict[type[Exception], Callable[[Request, Any], JSONResponse]] = {
        ApiError: _api_error,
        HTTPException: _http_error,
        RequestValidationError: _invalid,
        RequestError: _refused,
        WrongStateError: _wrong_state,
        DataError: _not_storable,
        OperationalError: _store_down,
        InterfaceError: _store_down,
        NoConnection: _store_down,
    }
    for raised, handler in handlers.items():
        app.add_exception_handler(raised, handler)
    unexpected = envelope(
        "The server failed while it processed this request. Try again; when it happens again, "
        "give the x-request-id of this answer to whoever runs this service.",
        "server_error",
    )
    app.add_middleware(RequestIds, unexpected=unexpected, add_header=request_id_header)


def _api_error(request: Request, error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, headers=error.headers)


def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    called = f"{request.method} {request.url.path}"
    messages = {
        404: f"There is nothing at {called}; see /docs for what there is",
        405: f"{called}: this path takes other methods; see the `allow` header",
    }
    message = messages.get(error.status_code, str(error.detail))
    kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
    codes = {404: "unknown_url", 405: "method_not_allowed"}
    body = envelope(message, kind, None, codes.get(error.status_code))
    return JSONResponse(body, error.status_code, headers=error.headers)


def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        place = f"{found[0]['ctx']['error']} at byte {found[0]['loc'][-1]}"
        return _api_error(request, bad_request(f"The body is no JSON: {place}"))
    # A place begins with the part of the request that it is in: body, query, path or header.
    told = request_error([{**item, "loc": item["loc"][1:]} for item in found])
    message = told.message if told.param else f"The body {told.message}"
    return _api_error(request, bad_request(message, param=told.param, code=told.code))


def _refused(request: Request, error: RequestError) -> JSONResponse:
    return _api_error(request, bad_request(error.message, param=error.param, code=error.code))


def _wrong_state(request: Request, error: WrongStateError) -> JSONResponse:
    answer = bad_request(str(error), code="wrong_job_status")
    return JSONResponse(answer.body(), answer.status, headers=NO_RETRY)


def _not_storable(request: Request, error: Exception) -> JSONResponse:
    log.warning("%s %s: %s", request.method, request.url.path, error)
    message = "A text holds a NUL character, or a number is too large for the service's store"
    return _api_error(request, bad_request(message))


def _store_down(request: Request, error: Exception) -> JSONResponse:
    log.error("the store failed during %s %s", request.method, request.url.path, exc_info=error)
    answer = unavailable(
        "The service's store does not answer; try again", STORE_RETRY_AFTER_S, code="store_down"
    )
    return _api_error(request, answer)
