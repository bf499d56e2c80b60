"""What follows when an attempt has ended on its own: another one, or the end of the job.

A pure function of the attempts that stand in the store, so every manager decides alike, and a
restart forgets neither the budget nor how long to wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serve_app.store.tables import Attempt

COUNTED = ("failed", "lost")  # ends that use the budget up
MAX_BUSY = 40  # attempts in a row that found their folder in use: hours, with the delays below


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, when, and the numbers behind it in words."""

    action: Literal["retry", "fail"]
    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries what the cluster did to a job; does not retry a job that is wrong."""

    max_attempts: int  # in a row that get no further than the one before
    base_delay_s: float = 5.0  # doubles with each of them
    max_delay_s: float = 300.0

    def decide(self, attempts: Sequence[Attempt], steps_done: int) -> Decision:
        """Decide after the end of the last of `attempts`, with `steps_done` steps behind the job.

        An attempt that got further than where it began resets the budget.
        """
        last = attempts[-1]
        if last.status == "refused":
            return Decision("fail", 0.0, "the job itself is wrong, and would fail again")
        if last.status == "busy":
            return self._after_busy(attempts)
        failures = num_failures_without_progress(attempts, steps_done)
        numbers = f"failure {failures} of {self.max_attempts} without progress"
        if failures >= self.max_attempts:
            return Decision("fail", 0.0, numbers)
        delay_s = self._delay_s(failures)
        numbers += f", {steps_done} steps done; the next attempt starts in {delay_s:g} s"
        return Decision("retry", delay_s, numbers)

    def due_at(self, attempts: Sequence[Attempt], steps_done: int) -> float:
        """Unix time before which a queued job's next attempt does not start; 0: at once."""
        if not attempts or attempts[-1].status not in (*COUNTED, "busy"):
            return 0.0
        decision = self.decide(attempts, steps_done)
        return (attempts[-1].ended_at or 0) + decision.delay_s

    def _after_busy(self, attempts: Sequence[Attempt]) -> Decision:
        busy = 0
        while busy < len(attempts) and attempts[-1 - busy].status == "busy":
            busy += 1
        numbers = f"the job's folder was in use {busy} times in a row"
        if busy >= MAX_BUSY:
            return Decision("fail", 0.0, numbers)
        delay_s = self._delay_s(busy)
        return Decision("retry", delay_s, f"{numbers}; the next attempt starts in {delay_s:g} s")

    def _delay_s(self, count: int) -> float:
        return min(self.max_delay_s, self.base_delay_s * 2.0 ** (count - 1))


def num_failures_without_progress(attempts: Sequence[Attempt], steps_done: int) -> int:
    """How many attempts failed since one got further or the job was last stopped; at least 1."""
    failures, reached = 0, steps_done
    for attempt in reversed(attempts):
        if attempt.status == "busy":
            continue
        if attempt.status not in COUNTED or reached > attempt.steps_done_at_start:
            break
        failures += 1
        reached = attempt.steps_done_at_start
    return max(1, failures)
