"""Keeps a service up: for init systems, which start one process and expect it to stay."""

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from serve_app.cluster import down, state
from serve_app.record import ClusterError

INTERVAL_S = 5.0
_LOG = logging.getLogger(__name__)


def watch(data: Path, start: Callable[[], object]) -> None:
    """Call `start` whenever the service of this folder has ended, and stop it on SIGTERM or Ctrl-C.

    Returns when the service is down by somebody's `down`. Runs on the main thread.
    """
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    while not asked.wait(INTERVAL_S):
        what, _ = state(data)
        if what == "down":
            return
        if what == "broken":
            _LOG.warning("The service on %s does not answer: starting it again", data)
            try:
                start()
            except ClusterError as error:  # tried again: what is missing may come back
                _LOG.warning("It did not start: %s", error)
    down(data)
