"""One JSON request to a grader's server, with retries and one hard deadline over all of them.

Called by `judge`, `text_similarity` and `endpoint`. Redirects are not followed, answers are
bounded, and a server that stalls or drips is cut off: the deadline covers connecting, waiting,
reading and every retry. What a user's server says is data: nothing here reads a verdict from it.
Which addresses may be called is in `hosts`.
"""

import asyncio
import functools
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rollout.verifiers.base import Seconds, parse_json
from rollout.verifiers.hosts import HostRefusedError, Target, check_written, resolve

MAX_REPLY_BYTES = 4 * 2**20
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.25, 8.0
RETRIED_STATUS = {408, 409, 425, 429, *range(500, 600)}


class HttpError(Exception):
    """No usable answer came; the message says from where, after how many attempts, and why."""


def _is_http_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 and not parts.username else None
    except ValueError:  # acceptable: a port or host that is none, said below like the rest
        parts, host = urlsplit(""), None
    known = parts.scheme in ("http", "https") and url.isprintable()
    if not known or not re.fullmatch(r"[\w.:-]+", host or ""):
        raise ValueError(f"{url!r} is no address: write http://host:port/path or https://host/path")
    check_written(url)
    return url.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_is_http_url)]


class Limits(BaseModel):
    """How long and how often a server is asked for one verdict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Bounded: a verifier is kept busy so long by one verdict.
    timeout_s: Seconds = 60.0  # of one attempt
    deadline_s: Seconds = 120.0  # of all attempts together
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    retry_after_s: float


def post_json(
    url: str,
    body: bytes,
    headers: Callable[[int], Mapping[str, str]],
    limits: Limits,
    *,
    trusted: bool = False,
) -> Any:
    """Post `body` and return the JSON answer. `headers` is asked anew for each attempt.

    `trusted`: whoever runs the worker chose the address, so that no rule holds for it. Time-outs,
    broken connections, 429 and 5xx are tried again; other answers are final. Raises HttpError.
    """
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(asyncio.run(_post(url, body, headers, limits, trusted)))
        except Exception as error:
            # Handed over to the calling thread, which raises it.
            result.append(error)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run()
    else:  # called inside an event loop: wait in another thread
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


@functools.cache
def _tls() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context()


async def _post(
    url: str,
    body: bytes,
    headers: Callable[[int], Mapping[str, str]],
    limits: Limits,
    trusted: bool,
) -> Any:
    failures: list[str] = []
    attempts = _attempts(url, body, headers, limits, trusted, failures)
    try:
        reply = await asyncio.wait_for(attempts, limits.deadline_s)
    except asyncio.TimeoutError:
        failures.append(f"the deadline of {limits.deadline_s} s passed")
        reply = None
    if reply is None:
        raise HttpError(f"{url} gave no answer: {'; '.join(failures)}")
    return _read(url, reply)


async def _attempts(
    url: str,
    body: bytes,
    headers: Callable[[int], Mapping[str, str]],
    limits: Limits,
    trusted: bool,
    failures: list[str],
) -> _Reply | None:
    """The first answer that is final, or None; `failures` says why each attempt was none."""
    import httpx

    # Time is kept below: httpx's own limits are per read, so a dripping server escapes them.
    async with httpx.AsyncClient(timeout=limits.timeout_s, verify=_tls()) as client:
        for attempt in range(1, limits.max_attempts + 1):
            pause_s = 0.0
            try:
                sending = _send(client, url, body, headers(attempt), trusted)
                reply = await asyncio.wait_for(sending, limits.timeout_s)
            except asyncio.TimeoutError:
                failures.append(f"no answer within {limits.timeout_s} s")
            except HostRefusedError as error:
                raise HttpError(str(error)) from None
            except (httpx.HTTPError, OSError) as error:  # OSError: the name is not known
                failures.append(f"{type(error).__name__} {error}".strip())
            else:
                if reply.status not in RETRIED_STATUS:
                    return reply
                failures.append(_describe(reply))
                pause_s = reply.retry_after_s
            if attempt < limits.max_attempts:
                backoff_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (attempt - 1))
                await asyncio.sleep(max(backoff_s, min(MAX_BACKOFF_S, pause_s)))
    return None


async def _send(
    client: Any, url: str, body: bytes, headers: Mapping[str, str], trusted: bool
) -> _Reply:
    to = Target(url) if trusted else await resolve(url)
    sent = client.stream(
        "POST",
        to.url,
        content=body,
        headers={"content-type": "application/json", **headers, **to.headers},
        extensions=to.extensions,
    )
    async with sent as response:
        received = bytearray()
        async for chunk in response.aiter_bytes():
            received += chunk
            if len(received) > MAX_REPLY_BYTES:
                raise HttpError(f"{url} answered with more than {MAX_REPLY_BYTES} bytes")
        pause = response.headers.get("retry-after", "")
        retry_after_s = float(pause) if re.fullmatch(r"\d{1,4}(\.\d+)?", pause) else 0.0
        return _Reply(response.status_code, bytes(received), retry_after_s)


def _describe(reply: _Reply) -> str:
    return f"status {reply.status}: {reply.body[:200].decode('utf-8', 'replace')!r}"


def _read(url: str, reply: _Reply) -> Any:
    if not 200 <= reply.status < 300:
        raise HttpError(f"{url} answered with {_describe(reply)}")
    try:
        return parse_json(reply.body.decode("utf-8"))
    except ValueError as error:
        raise HttpError(
            f"{url} answered with what is no JSON ({error}): {_describe(reply)}"
        ) from None
