"""Threads for calls that take long, of which one project never holds more than its share."""

from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class FairThreads:
    """Runs calls of one owner in order, at most half of the threads at a time; the rest waits."""

    def __init__(self, num_threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._share = max(1, num_threads // 2)
        self._waiting: dict[Hashable, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        self._running: Counter[Hashable] = Counter()
        self._lock = Lock()

    def submit(self, owner: Hashable, call: Callable[[], T]) -> "Future[T]":
        """Run `call` when it is the owner's turn. A future that is cancelled until then does not
        run."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(owner, deque()).append((future, call))
            self._start(owner)
        return future

    def _start(self, owner: Hashable) -> None:
        """Give the pool what the owner may run now. The lock is held."""
        waiting = self._waiting[owner]
        while waiting and self._running[owner] < self._share:
            self._running[owner] += 1
            self._pool.submit(self._run, owner, *waiting.popleft())
        if not waiting and not self._running[owner]:
            del self._waiting[owner], self._running[owner]

    def _run(self, owner: Hashable, future: Future[Any], call: Callable[[], Any]) -> None:
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(call())
        except BaseException as error:
            # Not swallowed: whoever waits for the future raises it.
            future.set_exception(error)
        finally:
            with self._lock:
                self._running[owner] -= 1
                self._start(owner)
