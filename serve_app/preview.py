"""The first rows of a file, read as a stream: a preview costs the same memory for every file."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from serve_app.context import Service
from serve_app.request_types import RequestError
from serve_app.store.tables import StoredFile

PREVIEW = 10  # rows
MAX_LINE_BYTES = 2**24


def preview_examples(service: Service, file: StoredFile) -> dict[str, Any]:
    """At most PREVIEW rows, and how many there are. Raises RequestError for what holds no rows."""
    shown, num_rows = [], 0
    try:
        for line in _lines(service.files.chunks(file)):
            num_rows += 1
            if num_rows <= PREVIEW:
                shown.append(_row(line))
    except (ValueError, RecursionError):
        raise RequestError(
            f"file_id: {file.id!r} holds no rows that can be shown; name a file of examples",
            "file_id",
        ) from None
    return {
        "object": "fine_tuning.examples",
        "file_id": file.id,
        "examples_generated": num_rows,
        "examples": shown,
    }


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines that are not blank. Raises ValueError for one above MAX_LINE_BYTES."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError("no line of a file of rows is as long")
    if rest.strip():
        yield rest


def _row(line: bytes) -> dict[str, Any]:
    """One row. Raises ValueError, also for a text that cannot be answered with."""
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("a row is an object")
    json.dumps(row, ensure_ascii=False).encode()
    return row
