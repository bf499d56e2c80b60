"""What follows the end of an attempt: decided from the store's rows alone."""

import pytest

from serve_app.attempts import end_of, error_text
from serve_app.ray_jobs import RayJob
from serve_app.retry import MAX_BUSY, RetryPolicy, num_failures_without_progress
from serve_app.store.tables import Attempt

POLICY = RetryPolicy(max_attempts=3, base_delay_s=5, max_delay_s=60)


def attempts(*ends: tuple[str, int]) -> list[Attempt]:
    """Attempts by (status, steps done at their start), the n-th ended at Unix time 100 n."""
    return [
        Attempt(number=n, status=status, steps_done_at_start=steps, ended_at=100 * n)
        for n, (status, steps) in enumerate(ends, start=1)
    ]


def test_a_lost_driver_is_tried_again_with_the_numbers_in_the_reason():
    decision = POLICY.decide(attempts(("lost", 0)), steps_done=0)
    assert (decision.action, decision.delay_s) == ("retry", 5)
    assert decision.reason == (
        "failure 1 of 3 without progress, 0 steps done; the next attempt starts in 5 s"
    )


def test_the_delay_doubles_and_is_capped():
    policy = RetryPolicy(max_attempts=100, base_delay_s=5, max_delay_s=60)
    ends = [("failed", 0)] * 6
    delays = [policy.decide(attempts(*ends[:n]), 0).delay_s for n in range(1, 7)]
    assert delays == [5, 10, 20, 40, 60, 60]


def test_attempts_that_get_no_further_use_the_budget_up():
    assert POLICY.decide(attempts(("failed", 0), ("lost", 0)), 0).action == "retry"
    decision = POLICY.decide(attempts(("failed", 0), ("lost", 0), ("failed", 0)), 0)
    assert decision.action == "fail"
    assert decision.reason == "failure 3 of 3 without progress"


@pytest.mark.parametrize(
    ("ends", "steps_done", "failures"),
    [
        ([("failed", 0), ("failed", 0), ("failed", 0)], 7, 1),  # the last one got to 7
        ([("failed", 0), ("failed", 5), ("failed", 5)], 5, 2),  # the first one got to 5
        ([("failed", 0), ("stopped", 0), ("failed", 0)], 0, 1),  # resumed by its owner
        ([("failed", 0), ("busy", 0), ("failed", 0)], 0, 2),  # waiting is no failure
    ],
)
def test_progress_and_a_pause_reset_the_budget_and_waiting_does_not_count(
    ends, steps_done, failures
):
    assert num_failures_without_progress(attempts(*ends), steps_done) == failures


def test_a_job_that_its_driver_refuses_is_not_tried_again():
    assert POLICY.decide(attempts(("lost", 0), ("refused", 0)), 0).action == "fail"


def test_a_folder_in_use_is_waited_for_long_but_not_for_ever():
    ends = [("lost", 0)] + [("busy", 0)] * MAX_BUSY
    decision = POLICY.decide(attempts(*ends[:-1]), 0)
    assert (decision.action, decision.delay_s) == ("retry", 60)
    assert POLICY.decide(attempts(*ends), 0).action == "fail"


def test_a_queued_job_is_due_after_the_delay_of_its_last_end():
    assert POLICY.due_at([], 0) == 0
    assert POLICY.due_at(attempts(("failed", 0), ("failed", 0)), 0) == 200 + 10
    assert POLICY.due_at(attempts(("failed", 0), ("stopped", 0)), 0) == 0


@pytest.mark.parametrize(
    ("ray_job", "status", "reason"),
    [
        (RayJob("j", "unknown"), "lost", "the cluster was started again"),
        (RayJob("j", "stopped"), "stopped", "stopped"),
        (RayJob("j", "failed", None, "node died"), "lost", "node died"),
        (RayJob("j", "failed", -9), "failed", "signal 9"),
        (RayJob("j", "failed", 137), "failed", "signal 9"),
        (RayJob("j", "failed", 143), "failed", "signal 15"),
        (RayJob("j", "failed", 1, "a\nOutOfMemoryError: 3 GB"), "failed", "OutOfMemoryError: 3 GB"),
        (RayJob("j", "failed", 255, "x"), "failed", "exit code 255: x"),
        (RayJob("j", "failed", 2, "error: srl.max_steps: is 0"), "refused", "srl.max_steps: is 0"),
        (RayJob("j", "failed", 75, "error: /o: another process"), "busy", "another process"),
    ],
)
def test_the_end_that_ray_tells_is_read_as_what_it_was(ray_job, status, reason):
    end = end_of(ray_job)
    assert end.status == status
    assert reason in end.reason


def test_a_drivers_error_is_its_last_one_with_all_its_lines():
    assert error_text("error: first\nerror: a: wrong\nb: wrong too\n") == "a: wrong\nb: wrong too"
    assert error_text("") == "it said nothing"
