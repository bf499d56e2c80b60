"""The one current that runs back: a job's append-only event log, as JSON Lines.

An actor on the driver's node writes it, so that workers anywhere can emit and an event that was
acknowledged is on disk. Steps that are redone after a restart replace their earlier events.
Beside the log, `now.json` says what the job is doing this moment; it is overwritten, not kept.
"""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

NOW_FILE = "now.json"


class EventLog:
    """Writes `path`. Events are numbered without gaps, from 1."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        events = read_events(path)
        # A kill in the middle of a line leaves half an event, which was never acknowledged.
        self._rewrite(events)
        self._next_seq = len(events) + 1
        self._requests = {"scored": 0, "dropped": 0}
        self._stop_requested = False

    def account(self, scored: int, dropped: int) -> None:
        """Enter engine requests by what became of their rollouts."""
        self._requests["scored"] += scored
        self._requests["dropped"] += dropped

    def requests(self) -> dict[str, int]:
        """Requests entered since this log was opened, over all stages and learner restarts."""
        return dict(self._requests)

    def request_stop(self) -> None:
        """Pass a wish to stop on to the workers: every answer of `now` carries it from here on."""
        self._stop_requested = True

    def now(self, stage: str, step: int, phase: str, pid: int) -> bool:
        """Say that worker `pid` is in `phase` of the stage's step after `step`.

        Returns whether the job was asked to stop.
        """
        state = {"stage": stage, "step": step, "phase": phase, "pid": pid, "since": time.time()}
        hidden = self._path.with_name(f".{NOW_FILE}")
        hidden.write_text(json.dumps(state), encoding="utf-8")
        hidden.replace(self._path.with_name(NOW_FILE))
        return self._stop_requested

    def emit_once(self, event: dict[str, Any]) -> None:
        """Append an event unless the log holds one of the same type, stage and step."""
        names = ("type", "stage", "step")
        wanted = [event[name] for name in names]
        if all([e.get(name) for name in names] != wanted for e in read_events(self._path)):
            self.emit(event)

    def emit(self, event: dict[str, Any]) -> int:
        """Append one event; return its number once it is on disk. Raises ValueError for NaN.

        Its number may change when earlier events are taken back (`rewind`); its `uid` never does.
        """
        seq = self._next_seq
        record = {"seq": seq, "uid": uuid.uuid4().hex, "created_at": int(time.time()), **event}
        line = json.dumps(record, allow_nan=False)  # NaN is no JSON: readers would choke on it
        size_bytes = self._path.stat().st_size
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # A full disk may have taken half the line; the next event must not be glued to it.
            os.truncate(self._path, size_bytes)
            raise
        self._next_seq += 1
        return seq

    def rewind(self, stage: str, step: int) -> None:
        """Forget the stage's events after `step`: those steps will be taken again."""
        events = read_events(self._path)
        kept = [e for e in events if e.get("stage") != stage or e.get("step", 0) <= step]
        if len(kept) < len(events):
            self._rewrite(kept)
            self._next_seq = len(kept) + 1

    def _rewrite(self, events: list[dict[str, Any]]) -> None:
        lines = [json.dumps(e | {"seq": seq}) + "\n" for seq, e in enumerate(events, start=1)]
        hidden = self._path.with_name(f".{self._path.name}")
        with hidden.open("w", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(self._path)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read the whole events of a log; a last line that is cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    events = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: is not an event ({error}); remove the line"
            ) from None
    return events
