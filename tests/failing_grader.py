"""A grader that fails for one rollout in five, always the same ones, and what is left without them.

`drops_add_up` and `statistics` state what must hold of a training batch whatever failed.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.collector import CollectorCounters
from rollout.types import Problem, Rollout, RolloutGroup, Verdict
from rollout.verifiers.base import ModelGraderServerError
from train.batch import to_sequences
from train.step_metrics import group_metrics

FAIL_ONE_IN = 5
REASONS = ("model_grader_server_error", "ConnectionError", "ValueError")


def digest(rollout: Rollout) -> int:
    """A number that depends on nothing but the rollout's problem and text."""
    text = rollout.problem_id + "|" + "|".join(turn.text for turn in rollout.turns)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def reason(rollout: Rollout) -> str | None:
    """Why this rollout gets no verdict; None when it gets one."""
    number = digest(rollout)
    return REASONS[number // FAIL_ONE_IN % len(REASONS)] if number % FAIL_ONE_IN == 0 else None


@dataclass(frozen=True)
class FailingGrader:
    """Rewards in quarters. With `fails`, one rollout in five has no verdict."""

    fails: bool = True

    def verify(self, problem: Problem, rollout: Rollout) -> Verdict:
        """Return the reward, or fail as graders do: by an error of ours, a server's, or NaN."""
        fault = reason(rollout) if self.fails else None
        if fault == "model_grader_server_error":
            raise ModelGraderServerError("502")
        if fault == "ConnectionError":
            raise ConnectionError("the grader is gone")
        value = digest(rollout) // 100 % 5 / 4
        return Verdict(math.nan if fault else value, format_error=value == 0)


def statistics(batch: Sequence[RolloutGroup], seen: Sequence[RolloutGroup]) -> dict[str, object]:
    """All that training learns from and reports: the loss's inputs and the step's metrics."""
    return {
        "sequences": {name: to_sequences(batch, name) for name in ("grpo", "dr_grpo", "rloo")},
        "kept": [group.problem.id for group in batch],
        "metrics": group_metrics(seen),
    }


def without_failures(
    seen: Sequence[RolloutGroup], kept: Sequence[RolloutGroup]
) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
    """(batch, seen) had only the other rollouts been sampled, and no grader failed."""
    grader, ids = FailingGrader(fails=False), {group.problem.id for group in kept}
    rest = []
    for group in seen:
        rollouts = tuple(r for r in group.rollouts if reason(r) is None)
        verdicts = tuple(grader.verify(group.problem, r) for r in rollouts)
        rest.append(RolloutGroup(group.problem, rollouts, verdicts))
    return [group for group in rest if group.problem.id in ids], rest


def check_drops(
    counters: CollectorCounters, seen: Sequence[RolloutGroup], failed_calls: Counter[str]
) -> None:
    """Asked = scored + dropped, and each dropped one failed twice, for its own reason."""
    rollouts = [r for group in seen for r in group.rollouts]
    dropped = Counter(fault for r in rollouts if (fault := reason(r)) is not None)
    scored = sum(len(group.scored()) for group in seen)
    assert len(rollouts) == scored + dropped.total()
    assert counters.rollouts_dropped == dropped.total()
    assert failed_calls == Counter({name: 2 * count for name, count in dropped.items()})
    assert set(dropped) == set(REASONS)
    groups = counters.groups_kept + counters.groups_filtered + counters.groups_dropped
    assert counters.groups_sampled == groups == len(seen)
    assert 0.15 < dropped.total() / len(rollouts) < 0.25
