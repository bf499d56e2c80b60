"""Sweeps the files' storage in the background: at the manager's start, and then every hour."""

import logging
import threading

from serve_app.files import FileStorage

INTERVAL_S = 3600.0
_log = logging.getLogger(__name__)


class Janitor:
    """One thread over one storage. Ends with the process, or when it is stopped."""

    def __init__(self, files: FileStorage, interval_s: float = INTERVAL_S) -> None:
        self._files, self._interval_s = files, interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="janitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the sweep under way."""
        self._stopped.set()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            try:
                self._files.sweep()
            # Acceptable: what is left lies until the next sweep; nobody waits for it.
            except Exception:
                _log.exception(
                    "the files were not swept; the next sweep is in %s s", self._interval_s
                )
            if self._stopped.wait(self._interval_s):
                return
