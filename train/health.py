"""Follows a stage's reward health: figures for every step, a warning when something begins.

A warning is given when it appears, not at every step that it lasts. The loop owns one of these and
keeps its snapshot in the checkpoints.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from rollout.reward_health import Finding, findings, reward_health, update_baseline
from rollout.types import RolloutGroup

NO_SIGNAL = (
    "no group carried a learning signal: the rewards of every group were alike, and the policy did "
    "not change; see format errors and rewards, take easier problems, or run SRL first"
)


class HealthWatch:
    """The health of one stage's rewards, over its steps."""

    def __init__(self, grader_name: str, *, compares_with_validation: bool) -> None:
        self._grader_name = grader_name
        # SRL's reward is of single steps, validation's of whole problems: no gap between them.
        # Single steps are short, and repeat in a group that learns as it should.
        self._compares = compares_with_validation
        self._length_baseline: float | None = None
        self._valid_reward: float | None = None
        self._lasting: list[str] = []  # findings that were already told

    def observe(
        self, groups: Sequence[RolloutGroup], valid_reward: float | None, num_kept: int
    ) -> tuple[dict[str, Any], list[Finding]]:
        """Return a step's figures as JSON values, and the findings that are new.

        `groups` are all that were scored in the step, `num_kept` of them carry a learning signal;
        `valid_reward` is None between validations.
        """
        if valid_reward is not None:
            self._valid_reward = valid_reward
        rewards = [verdict.reward for group in groups for _, verdict in group.scored()]
        health = reward_health(
            groups,
            grader_name=self._grader_name,
            length_baseline=self._length_baseline,
            train_mean=fmean(rewards) if rewards else None,
            validation_mean=self._valid_reward if self._compares else None,
        )
        if health.num_rollouts:
            self._length_baseline = update_baseline(self._length_baseline, health.mean_tokens)
        told = [f for f in findings(health) if self._compares or "duplicate_rate" not in f.data]
        if groups and num_kept == 0:
            told.append(Finding("warn", NO_SIGNAL, {"groups_kept": 0.0}))
        # The same finding has other figures in every step.
        found = {f"{f.level}: {re.sub(r'[0-9.]+', '#', f.message)}": f for f in told}
        new = [finding for key, finding in found.items() if key not in self._lasting]
        self._lasting = list(found)
        return asdict(health), new

    def snapshot(self) -> dict[str, Any]:
        """The state between two steps, as JSON values."""
        return {
            "length_baseline": self._length_baseline,
            "valid_reward": self._valid_reward,
            "lasting": list(self._lasting),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Continue from a snapshot."""
        self._length_baseline = snapshot["length_baseline"]
        self._valid_reward = snapshot["valid_reward"]
        self._lasting = list(snapshot["lasting"])
