"""One project's long calls leave threads for the others."""

import threading

import pytest

from serve_app.fair_threads import FairThreads

PATIENCE_S = 30


def test_a_project_that_asks_for_much_leaves_half_of_the_threads():
    threads, release = FairThreads(4, "test"), threading.Event()
    started = threading.Semaphore(0)

    def hang() -> str:
        started.release()
        assert release.wait(PATIENCE_S)
        return "ours"

    ours = [threads.submit("ours", hang) for _ in range(10)]
    try:
        for _ in range(2):
            assert started.acquire(timeout=PATIENCE_S)
        assert threads.submit("theirs", lambda: "theirs").result(PATIENCE_S) == "theirs"
        assert sum(future.running() for future in ours) == 2
    finally:
        release.set()
    assert [future.result(PATIENCE_S) for future in ours] == ["ours"] * 10


def test_an_error_is_the_callers_and_a_call_that_was_given_up_does_not_run():
    threads, release, ran = FairThreads(2, "test"), threading.Event(), []
    first = threads.submit("ours", lambda: release.wait(PATIENCE_S))
    second = threads.submit("ours", lambda: ran.append("second"))
    third = threads.submit("ours", lambda: 1 / 0)
    assert second.cancel()
    release.set()
    assert first.result(PATIENCE_S)
    with pytest.raises(ZeroDivisionError):
        third.result(PATIENCE_S)
    assert ran == []
