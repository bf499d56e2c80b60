"""Reads what a job's driver adds to its event log, from where the last reading stopped.

The driver replaces the file when it starts and when steps are taken again (`train.events`). What
was read is recognised by the bytes before the offset: every event has a number and a `uid`, so the
same bytes at the same place stand behind the same events, and inode numbers, which file systems
use again, need not be trusted.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

TAIL_BYTES = 512  # before the offset; longer than the numbers and uid of one event
CHUNK_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far a log was read. Kept in the store, in `Job.log_position`."""

    offset: int = 0  # bytes; always behind a whole line
    tail: str = ""  # sha256 of the last bytes before it

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DamagedLine:
    """A line that is no event, and was passed over."""

    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class NewEvents:
    """What was read, and where to go on."""

    events: list[dict[str, Any] | DamagedLine]
    position: LogPosition


def read_new(path: Path, stored: dict[str, Any], chunk_bytes: int = CHUNK_BYTES) -> NewEvents:
    """Read at most `chunk_bytes` of whole new lines; a longer line is read whole.

    From the beginning when the file is not the one that was read. No file: no events.
    """
    position = LogPosition(**stored)
    try:
        with path.open("rb") as file:
            if position.offset and _tail(file, position.offset) != position.tail:
                position = LogPosition()
            file.seek(position.offset)
            data = _whole_lines(file, chunk_bytes)
            if not data:
                return NewEvents([], position)
            end = position.offset + len(data)
            return NewEvents(_parse(data, position.offset), LogPosition(end, _tail(file, end)))
    except FileNotFoundError:
        return NewEvents([], position)


def _whole_lines(file: BinaryIO, chunk_bytes: int) -> bytes:
    data = file.read(chunk_bytes)
    cut = data.rfind(b"\n")
    while cut < 0 and (more := file.read(chunk_bytes)):
        data += more
        cut = data.rfind(b"\n")
    return data[: cut + 1]


def _tail(file: BinaryIO, end: int) -> str:
    start = max(0, end - TAIL_BYTES)
    file.seek(start)
    data = file.read(end - start)
    return hashlib.sha256(data).hexdigest() if len(data) == end - start else ""


def _parse(data: bytes, offset: int) -> list[dict[str, Any] | DamagedLine]:
    events: list[dict[str, Any] | DamagedLine] = []
    for line in data.split(b"\n")[:-1]:
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or "uid" not in event or "type" not in event:
                raise ValueError("it has no `uid` and `type`")
            events.append(event)
        # Acceptable: one lost line of history, which is said, rather than a job that never ends.
        except ValueError as error:
            events.append(DamagedLine(offset, str(error)))
        offset += len(line) + 1
    return events
