"""What became of every problem that a teacher was asked, written when it was known.

One JSON object a line, flushed to the disk before anything else is told of it. A process that is
killed loses what was under way and nothing that was accepted; the next one reads the file and asks
for the rest. The first line says what the run was: another run's journal is refused. Who opens a
journal that another process writes waits until it is done.
"""

import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any


class JournalError(ValueError):
    """The file belongs to another run."""


class Journal:
    """Append-only. Several threads may add."""

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.entries: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._file = path.open("a+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # ends with the file, or with the process
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]  # a torn last line is dropped
        if whole:
            header = json.loads(whole[0])
            if header != {"run": run}:
                self._file.close()
                raise JournalError(
                    f"{path} is of another run ({json.dumps(header.get('run'))}); give this one "
                    "another file, or remove it"
                )
            self.entries = [json.loads(line) for line in whole[1:]]
        self._file.truncate(sum(map(len, whole)))
        self._file.seek(0, os.SEEK_END)
        if not whole:
            self._write({"run": run})

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry; it is on the disk when this returns."""
        with self._lock:
            self._write(entry)
            self.entries.append(entry)

    def last_by(self, name: str) -> list[dict[str, Any]]:
        """The entries, of those with the same value of `name` the last one."""
        return list({entry[name]: entry for entry in self.entries}.values())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
