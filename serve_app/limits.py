"""How much one key may ask for: requests per minute, and requests at the same time.

Counted in one replica's memory. Each replica grants its share of the limit, so that all together
grant about the whole, and no request waits for a counter elsewhere.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from serve_app.errors import too_many
from serve_app.settings import Settings

_PLACE_RETRY_AFTER_S = 1.0


@dataclass
class _Bucket:
    tokens: float
    filled_at: float
    num_running: int = 0


class RateLimiter:
    """A token bucket and a count of running requests for each key. Threads share it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = _share(settings.requests_per_minute, settings.num_api_replicas)
        self._concurrent = _share(settings.max_concurrent_requests, settings.num_api_replicas)
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}  # as many as there are keys in use
        self._lock = Lock()

    @contextmanager
    def hold(self, key_id: str) -> Iterator[None]:
        """Count one request of a key, which runs as long as the block. Raises ApiError 429."""
        self._enter(key_id)
        try:
            yield
        finally:
            with self._lock:
                self._buckets[key_id].num_running -= 1

    def _enter(self, key_id: str) -> None:
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault(key_id, _Bucket(self._per_minute, now))
            per_second = self._per_minute / 60
            gained = (now - bucket.filled_at) * per_second
            bucket.tokens = min(self._per_minute, bucket.tokens + gained)
            bucket.filled_at = now
            if bucket.num_running >= self._concurrent:
                raise too_many(
                    f"This key has {bucket.num_running} requests running, and may have "
                    f"{self._concurrent}: wait for one to end",
                    _PLACE_RETRY_AFTER_S,
                    code="too_many_concurrent_requests",
                )
            if bucket.tokens < 1:
                raise too_many(
                    f"This key may send {self._per_minute} requests per minute: send fewer",
                    (1 - bucket.tokens) / per_second,
                )
            bucket.tokens -= 1
            bucket.num_running += 1


def _share(limit: int, num_replicas: int) -> int:
    return -(-limit // num_replicas)
