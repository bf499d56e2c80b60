"""Sweeps what nobody needs any more: at the manager's start, and then every hour."""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from serve_app.files import FileStorage
from serve_app.store.database import Database
from serve_app.store.idempotency import forget_older

INTERVAL_S = 3600.0
TASK_IDLE_S = 24 * 3600.0  # longer than any call beside jobs may take
KEYS_KEPT_S = 7 * 24 * 3600.0  # a create may be repeated by its key so long
_log = logging.getLogger(__name__)


class Janitor:
    """One thread over some sweeps. Ends with the process, or when it is stopped."""

    def __init__(self, sweeps: list[Callable[[], object]], interval_s: float = INTERVAL_S) -> None:
        self._sweeps, self._interval_s = sweeps, interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="janitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the sweep under way."""
        self._stopped.set()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            for sweep in self._sweeps:
                try:
                    sweep()
                # Acceptable: what is left lies until the next sweep; nobody waits for it.
                except Exception:
                    _log.exception("a sweep failed; the next is in %s s", self._interval_s)
            if self._stopped.wait(self._interval_s):
                return


def sweeps_of(files: FileStorage, database: Database, tasks: Path) -> list[Callable[[], object]]:
    """Every sweep of a service. `tasks` is the folder of calls beside jobs."""
    return [
        files.sweep,
        lambda: remove_idle_tasks(tasks),
        lambda: forget_older(database, time.time() - KEYS_KEPT_S),
    ]


def remove_idle_tasks(tasks: Path, idle_s: float = TASK_IDLE_S) -> int:
    """Remove folders that calls killed half-way have left, and old journals; return how many."""
    left = [p for p in tasks.glob("task-*") if time.time() - p.stat().st_mtime > idle_s]
    for folder in left:
        shutil.rmtree(folder)
    kept = tasks.glob("journals/*")  # journals, and what was measured for their shares
    old = [p for p in kept if time.time() - p.stat().st_mtime > idle_s]
    for journal in old:
        journal.unlink()
    return len(left) + len(old)
