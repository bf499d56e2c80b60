"""Is the reward still to be trusted? Figures of one training step, and which of them to report.

Pure: the training loop hands over a step's groups and keeps the running baseline; a caller turns
`findings` into job events. A policy that found a hole in its grader shows here first: training
reward that validation does not follow, lengths that grow, completions that repeat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from rollout.types import Rollout, RolloutGroup

GAP_WARN, GAP_ALARM = 0.05, 0.10  # train mean reward above validation's
LENGTH_WARN = 1.5  # mean length over its baseline
ERROR_RATE_WARN = 0.10  # of one grader's calls
FORMAT_ERROR_WARN = 0.5  # of verdicts
TRUNCATION_WARN = 0.5  # of completions
DUPLICATE_WARN = 0.5  # of completions within their groups
BASELINE_MEMORY = 0.95  # weight of the past in the running mean length
PREFIX = "grader/"  # `Grade.verdict` names a multi grader's parts so

Level = Literal["ok", "warn", "alarm"]


@dataclass(frozen=True, slots=True)
class GraderHealth:
    """One grader over one step."""

    num_scored: int
    num_errors: int  # calls that gave no verdict
    mean_reward: float | None  # None when nothing was scored

    @property
    def error_rate(self) -> float:
        """Errors among all calls; 0 without calls."""
        calls = self.num_scored + self.num_errors
        return self.num_errors / calls if calls else 0.0


@dataclass(frozen=True, slots=True)
class RewardHealth:
    """A step's figures. Rates are shares of the step's rollouts; a rate of none is 0."""

    graders: dict[str, GraderHealth]
    num_rollouts: int
    truncation_rate: float  # rollouts whose last generation was cut off by its length
    format_error_rate: float  # of rollouts with a verdict
    no_verdict_rate: float
    duplicate_rate: float  # completions that repeat an earlier one of their group
    mean_tokens: float
    length_growth: float | None  # mean_tokens over the baseline; None without a baseline
    train_validation_gap: float | None  # None before the first validation
    gap_level: Level


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to report: the level, a sentence, and the figures behind it."""

    level: Literal["warn", "alarm"]
    message: str
    data: dict[str, float] = field(default_factory=dict)


def gap_level(gap: float | None) -> Level:
    """Warn above 0.05, alarm above 0.10; validation above training is no fault."""
    if gap is None or gap <= GAP_WARN:
        return "ok"
    return "alarm" if gap > GAP_ALARM else "warn"


def update_baseline(baseline: float | None, mean_tokens: float) -> float:
    """The running mean length after a step: b <- 0.95 b + 0.05 x, from the first step's mean."""
    if baseline is None:
        return mean_tokens
    return BASELINE_MEMORY * baseline + (1 - BASELINE_MEMORY) * mean_tokens


def reward_health(
    groups: Sequence[RolloutGroup],
    *,
    grader_name: str,
    errors: Mapping[str, int] | None = None,
    length_baseline: float | None = None,
    train_mean: float | None = None,
    validation_mean: float | None = None,
) -> RewardHealth:
    """Measure a step.

    `groups` are all that were scored, kept or not. `grader_name` is the job's grader; the parts of
    a multi grader are found in the verdicts' details. `errors` counts calls without a verdict by
    grader name; None counts the missing verdicts for the job's grader. `train_mean` and
    `validation_mean` are rewards of the same grader; the gap is their difference.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    verdicts = [verdict for group in groups for _, verdict in group.scored()]
    missing = len(rollouts) - len(verdicts)
    rewards = {grader_name: [verdict.reward for verdict in verdicts]}
    for verdict in verdicts:
        for key, value in verdict.details.items():
            if key.startswith(PREFIX):
                rewards.setdefault(key.removeprefix(PREFIX), []).append(value)
    counted = {grader_name: missing} if errors is None else dict(errors)
    mean_tokens = fmean(r.num_tokens for r in rollouts) if rollouts else 0.0
    gap = None
    if train_mean is not None and validation_mean is not None:
        gap = train_mean - validation_mean
    return RewardHealth(
        graders={
            name: GraderHealth(
                len(values := rewards.get(name, [])),
                counted.get(name, 0),
                fmean(values) if values else None,
            )
            for name in dict.fromkeys([*rewards, *counted])
        },
        num_rollouts=len(rollouts),
        truncation_rate=_share(sum(_is_cut_off(r) for r in rollouts), len(rollouts)),
        format_error_rate=_share(sum(v.format_error for v in verdicts), len(verdicts)),
        no_verdict_rate=_share(missing, len(rollouts)),
        duplicate_rate=_share(sum(map(_num_duplicates, groups)), len(rollouts)),
        mean_tokens=mean_tokens,
        length_growth=mean_tokens / length_baseline if length_baseline and rollouts else None,
        train_validation_gap=gap,
        gap_level=gap_level(gap),
    )


def _is_cut_off(rollout: Rollout) -> bool:
    return rollout.turns[-1].finish == "length"


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0


def _num_duplicates(group: RolloutGroup) -> int:
    def said(rollout: Rollout) -> tuple[str, ...]:
        return tuple(turn.text for turn in rollout.turns)

    return len(group.rollouts) - len({said(rollout) for rollout in group.rollouts})


def findings(health: RewardHealth) -> list[Finding]:
    """What to report of a step, worst first."""
    found = []
    gap = health.train_validation_gap
    if health.gap_level != "ok" and gap is not None:
        message = (
            f"training reward is {gap:.3f} above validation reward: the policy may have found a "
            "hole in the grader; read some of its completions"
        )
        found.append(Finding(health.gap_level, message, {"train_validation_gap": gap}))
    for name, grader in health.graders.items():
        if grader.error_rate > ERROR_RATE_WARN:
            message = f"grader {name!r} gave no verdict in {grader.error_rate:.0%} of its calls"
            found.append(Finding("warn", message, {"error_rate": grader.error_rate}))
    growth = health.length_growth
    if growth is not None and growth > LENGTH_WARN:
        message = f"completions are {growth:.2f} times as long as they were"
        found.append(Finding("warn", message, {"length_growth": growth}))
    if health.format_error_rate > FORMAT_ERROR_WARN:
        message = (
            f"{health.format_error_rate:.0%} of completions have a wrong form: compare the prompt, "
            "prompt.step_end and the grader with what the policy writes"
        )
        found.append(Finding("warn", message, {"format_error_rate": health.format_error_rate}))
    if health.truncation_rate > TRUNCATION_WARN:
        message = (
            f"{health.truncation_rate:.0%} of completions were cut off: raise sampling.max_tokens, "
            "or compare prompt.step_end with what the policy writes"
        )
        found.append(Finding("warn", message, {"truncation_rate": health.truncation_rate}))
    if health.duplicate_rate > DUPLICATE_WARN:
        message = (
            f"{health.duplicate_rate:.0%} of completions repeat another of their group: they carry "
            "little signal; raise the temperature or take harder problems"
        )
        found.append(Finding("warn", message, {"duplicate_rate": health.duplicate_rate}))
    return sorted(found, key=lambda finding: finding.level != "alarm")
