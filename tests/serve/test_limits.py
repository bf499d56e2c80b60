"""A key may send so many requests in a minute, and so many at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve.conftest import make_client, make_service
from serve_app.errors import ApiError
from serve_app.limits import RateLimiter
from serve_app.settings import Settings


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


def limiter(clock: Clock, **limits) -> RateLimiter:
    """A limiter of a service that has these limits."""
    return RateLimiter(Settings(data=Path("unused"), **limits), clock)


def send(limits: RateLimiter, key: str = "key_1") -> ApiError | None:
    """One request; the error when it was refused."""
    try:
        with limits.hold(key):
            return None
    except ApiError as error:
        return error


def test_the_request_above_the_minutes_limit_is_a_429_that_says_when(clock):
    limits = limiter(clock, requests_per_minute=6)
    assert [send(limits) for _ in range(6)] == [None] * 6
    error = send(limits)
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    assert "6 requests per minute" in error.message
    assert send(limits, "key_2") is None, "another key has its own limit"
    wait = int(error.headers["retry-after"])
    assert 10 <= wait <= 11, "six a minute is one in ten seconds"
    clock.now += wait
    assert send(limits) is None
    assert send(limits) is not None


def test_a_refused_request_costs_nothing(clock):
    limits = limiter(clock, requests_per_minute=2)
    for _ in range(50):
        send(limits)
    clock.now += 30
    assert send(limits) is None


def test_a_pause_earns_no_more_than_one_minute(clock):
    limits = limiter(clock, requests_per_minute=3)
    send(limits)
    clock.now += 86400
    answers = [send(limits) for _ in range(5)]
    assert [answer is None for answer in answers] == [True, True, True, False, False]


def test_requests_at_the_same_time_are_limited_and_give_their_place_back(clock):
    limits = limiter(clock, max_concurrent_requests=2)
    with limits.hold("key_1"), limits.hold("key_1"):
        error = send(limits)
        assert (error.status, error.code) == (429, "too_many_concurrent_requests")
        assert int(error.headers["retry-after"]) >= 1
        assert send(limits, "key_2") is None
    assert send(limits) is None


def test_a_request_that_fails_gives_its_place_back(clock):
    limits = limiter(clock, max_concurrent_requests=1)
    with pytest.raises(ZeroDivisionError), limits.hold("key_1"):
        raise ZeroDivisionError
    assert send(limits) is None


def test_replicas_together_grant_about_the_whole_limit(clock):
    one = limiter(clock, requests_per_minute=10, num_api_replicas=4)
    assert [send(one) is None for _ in range(4)] == [True, True, True, False]


def test_threads_together_get_exactly_the_limit(clock):
    limits = limiter(clock, requests_per_minute=500, max_concurrent_requests=64)
    barrier = threading.Barrier(8)

    def hammer(_: int) -> int:
        barrier.wait()
        return sum(send(limits) is None for _ in range(100))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(hammer, range(8))) == 500


def test_over_http_the_answer_has_the_envelope_and_retry_after(settings, database):
    few = settings.model_copy(update={"requests_per_minute": 2})
    client = make_client(make_service(few, database))
    assert [client.get("/v1/files").status_code for _ in range(3)] == [200, 200, 429]
    response = client.get("/v1/files")
    assert 1 <= int(response.headers["retry-after"]) <= 31
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert client.get("/healthz").status_code == 200, "health needs no key"


def test_over_http_a_place_is_free_again_after_each_response(settings, database):
    one = settings.model_copy(update={"max_concurrent_requests": 1})
    client = make_client(make_service(one, database))
    assert [client.get("/v1/files").status_code for _ in range(3)] == [200] * 3
    assert client.get("/v1/files/file-none").status_code == 404
    assert client.get("/v1/files").status_code == 200
