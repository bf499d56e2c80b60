"""A thin client of the service's HTTP contract, for the command line and for scripts.

It needs httpx alone. Whatever goes wrong is a `FerrataError` whose message is the server's own.
Bodies and answers are plain JSON objects, as the contract has them.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import httpx

Json = dict[str, Any]
Tell = Callable[[int, int | None], None]  # (bytes done, bytes in all or None when unknown)
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
RETRY_S = 1.0  # between two tries of a call that may pass
# A create is answered with the first job when it is sent again with this header's value.
IDEMPOTENCY = "Idempotency-Key"


class FerrataError(Exception):
    """A call failed. `status` is None when no answer came."""

    def __init__(
        self,
        message: str,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.param = message, status, code, param

    @property
    def may_pass(self) -> bool:
        """True when the same call may succeed later."""
        return self.status is None or self.status in (408, 429) or self.status >= 500


class Client:
    """Calls of one service with one key. Close it, or use it as a context manager."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        if not self.base_url.endswith("/v1"):
            self.base_url += "/v1"
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        # A proxy that the environment names is not asked for this machine's own addresses.
        try:
            local = httpx.URL(self.base_url).host in ("127.0.0.1", "localhost", "::1")
        except httpx.InvalidURL as error:
            raise FerrataError(
                f"{base_url!r} is no URL ({error}): write http://host:port"
            ) from error
        self._http = httpx.Client(
            headers=headers, timeout=timeout_s, transport=transport, trust_env=not local
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Json | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Json:
        """Return the JSON object that one call is answered with. `path` is below /v1.

        `timeout_s`: for a call that takes long; None: the client's own.
        """
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        query = {k: v for k, v in (query or {}).items() if v is not None}
        try:
            answer = self._http.request(
                method,
                self._url(path),
                json=body,
                params=query,
                headers=headers,
                timeout=timeout,
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        _check(answer)
        return _json(answer)

    def pages(self, path: str, query: Json | None = None, limit: int = 100) -> Iterator[Json]:
        """Every item of a list, newest first, page after page."""
        query = dict(query or {})
        while True:
            page = self.call("GET", path, query=query | {"limit": limit})
            yield from page["data"]
            if not page.get("has_more") or not page["data"]:
                return
            query["after"] = page["data"][-1]["id"]

    def upload(self, path: Path, purpose: str = "fine-tune", tell: Tell | None = None) -> Json:
        """Upload a file, streamed, and return its object."""
        total = path.stat().st_size
        with path.open("rb") as file:
            watched = cast(IO[bytes], _Watched(file, total, tell))
            parts = {"file": (path.name, watched, "application/octet-stream")}
            try:
                answer = self._http.post(
                    self._url("files"), data={"purpose": purpose}, files=parts
                )  # fmt: skip
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
        _check(answer)
        return _json(answer)

    def download(self, path: str, target: Path, tell: Tell | None = None) -> int:
        """Stream what a path answers with into a file, whole or not at all; return its bytes."""
        temporary = target.with_name(f".{target.name}.part")
        done = 0
        try:
            with temporary.open("wb") as file:
                for chunk, total in self.stream_bytes(path):
                    file.write(chunk)
                    done += len(chunk)
                    if tell is not None:
                        tell(done, total)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return done

    def stream_bytes(self, path: str) -> Iterator[tuple[bytes, int | None]]:
        """(chunk, bytes in all or None) of a binary answer."""
        try:
            with self._http.stream("GET", self._url(path)) as answer:
                _check(answer)
                length = answer.headers.get("content-length")
                for chunk in answer.iter_bytes(CHUNK_BYTES):
                    yield chunk, int(length) if length else None
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def stream_events(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Json | None = None,
        last_id: str | None = None,
        timeout_s: float | None = TIMEOUT_S,
    ) -> Iterator[tuple[str | None, Json]]:
        """(event id, object) of a stream of server-sent events, until its end."""
        headers = {"accept": "text/event-stream"}
        if last_id is not None:
            headers["last-event-id"] = last_id
        try:
            with self._http.stream(
                method, self._url(path), json=body, params=query, headers=headers, timeout=timeout_s
            ) as answer:
                _check(answer)
                yield from _sent_events(answer.iter_lines())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def follow(
        self,
        job_id: str,
        patience_s: float = 600.0,
        away: Callable[[FerrataError], None] | None = None,
    ) -> Iterator[Json]:
        """The job's events from its first to its last, each once, over restarts of the service.

        `away` is told once whenever the service stops answering. Raises FerrataError when it stays
        away for `patience_s` seconds.
        """
        last_id: str | None = None
        away_since: float | None = None
        while True:
            began = time.monotonic()
            try:
                for event_id, event in self.stream_events(
                    "GET",
                    f"fine_tuning/jobs/{quote(job_id, safe='')}/events",
                    query={"stream": "true"},
                    last_id=last_id,
                ):
                    last_id, away_since = event_id or last_id, None
                    yield event
                return
            except FerrataError as error:
                now = time.monotonic()
                # Longer than any timeout: it answered, though nothing happened in the job.
                if away_since is None or now - began > 2 * TIMEOUT_S:
                    away_since = now
                    if away is not None and error.may_pass:
                        away(error)
                if not error.may_pass or now - away_since > patience_s:
                    raise
                time.sleep(RETRY_S)

    def health(self) -> Json:
        """What the service says of itself, whether it is well or not."""
        try:
            return _json(self._http.get(self.base_url.removesuffix("/v1") + "/healthz"))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _url(self, path: str) -> str:
        return f"{self.base_url}/{path}"

    def _unreachable(self, error: httpx.HTTPError) -> FerrataError:
        said = str(error) or type(error).__name__
        return FerrataError(f"{self.base_url} does not answer: {said}")


class _Watched:
    """A file that tells how much of it was read. httpx reads it in pieces."""

    def __init__(self, file: Any, total: int, tell: Tell | None) -> None:
        self._file, self._total, self._tell = file, total, tell

    def read(self, size: int = -1) -> bytes:
        """The next piece."""
        chunk = self._file.read(size)
        if self._tell is not None:
            self._tell(self._file.tell(), self._total)
        return chunk

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, as files do: httpx measures the file so."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where the next piece begins."""
        return self._file.tell()


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    answer.read()
    try:
        error = answer.json()["error"]
        message, code, param = error["message"], error.get("code"), error.get("param")
    except (ValueError, KeyError, TypeError):
        # Not one of ours: a proxy in front, or Ray Serve itself.
        message, code, param = answer.text.strip()[:300] or answer.reason_phrase, None, None
    request_id = answer.headers.get("x-request-id")
    if answer.status_code >= 500 and request_id:
        message += f" (request {request_id})"
    raise FerrataError(message, answer.status_code, code, param)


def _json(answer: httpx.Response) -> Json:
    try:
        return answer.json()
    except ValueError:
        raise FerrataError(
            f"{answer.url} answered with something that is no JSON: is this a Ferrata service?",
            answer.status_code,
        ) from None


def _sent_events(lines: Iterable[str]) -> Iterator[tuple[str | None, Json]]:
    """Parse server-sent events; `data: [DONE]` ends them, an `error` object is raised."""
    event_id, data = None, []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "" and data:
            text, data = "\n".join(data), []
            if text == "[DONE]":
                return
            event = json.loads(text)
            if "error" in event and event.get("object") is None:
                error = event["error"]
                raise FerrataError(error["message"], None, error.get("code"), error.get("param"))
            yield event_id, event
            event_id = None
        elif name == "id":
            event_id = value
        elif name == "data":
            data.append(value)
    raise FerrataError("the stream ended before its end was said")
