"""The one current that runs back: a job's append-only event log, as JSON Lines.

An actor on the driver's node writes it, so that workers anywhere can emit and an event that was
acknowledged is on disk. Steps that are redone after a restart replace their earlier events.
"""

import json
import time
from pathlib import Path
from typing import Any


class EventLog:
    """Writes `path`. Events are numbered without gaps, from 1."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        events = read_events(path)
        # A kill in the middle of a line leaves half an event, which was never acknowledged.
        self._rewrite(events)
        self._next_seq = len(events) + 1

    def emit(self, event: dict[str, Any]) -> int:
        """Append one event; return its number once it is flushed."""
        seq = self._next_seq
        line = json.dumps({"seq": seq, "created_at": int(time.time()), **event})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
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
        hidden.write_text("".join(lines), encoding="utf-8")
        hidden.replace(self._path)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read the whole events of a log; a last line that is cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
