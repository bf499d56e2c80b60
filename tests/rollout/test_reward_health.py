"""A step's figures equal those worked by hand, and what is wrong is reported."""

import pytest

from rollout.reward_health import findings, gap_level, reward_health, update_baseline
from rollout.types import FinishReason, Problem, Rollout, RolloutGroup, Turn, Verdict


def rollout(text: str, num_tokens: int, finish: FinishReason = "end") -> Rollout:
    """A one-turn rollout of so many tokens."""
    tokens = tuple(range(num_tokens))
    return Rollout("p", (Turn((1,), tokens, (0.0,) * num_tokens, text, finish, ()),))


def verdict(reward: float, exact: float, near: float, format_error: bool = False) -> Verdict:
    """A multi grader's verdict."""
    return Verdict(reward, format_error, {"grader/exact": exact, "grader/near": near, "x": 9.0})


# Eight rollouts: 2 cut off, 1 without a verdict, 2 format errors among 7 verdicts, 3 repeats.
GROUPS = [
    RolloutGroup(
        Problem("a", ""),
        (rollout("x", 10), rollout("x", 10), rollout("x", 20), rollout("y", 40, "length")),
        (verdict(1, 1, 1), verdict(1, 1, 1), verdict(0.5, 0, 1), verdict(0, 0, 0, True)),
    ),
    RolloutGroup(
        Problem("b", ""),
        (rollout("x", 10), rollout("z", 10), rollout("z", 20), rollout("w", 40, "length")),
        (verdict(1, 1, 1), None, verdict(0, 0, 0), verdict(0, 0, 0, True)),
    ),
]


def test_a_steps_figures_are_those_worked_by_hand():
    health = reward_health(
        GROUPS,
        grader_name="multi",
        errors={"exact": 1},
        length_baseline=16.0,
        train_mean=0.5,
        validation_mean=0.44,
    )
    assert health.num_rollouts == 8
    assert health.truncation_rate == 2 / 8
    assert health.format_error_rate == 2 / 7
    assert health.no_verdict_rate == 1 / 8
    assert health.duplicate_rate == 3 / 8  # two of "x" in the first group, one of "z"
    assert health.mean_tokens == 20.0  # 160 / 8
    assert health.length_growth == 1.25
    assert health.train_validation_gap == pytest.approx(0.06)
    assert health.gap_level == "warn"
    assert health.graders["multi"].mean_reward == pytest.approx(3.5 / 7)
    assert health.graders["exact"].mean_reward == pytest.approx(3 / 7)
    assert health.graders["near"].mean_reward == pytest.approx(4 / 7)
    assert health.graders["exact"].error_rate == 1 / 8
    assert health.graders["near"].error_rate == 0.0
    assert "x" not in health.graders


def test_without_counted_errors_missing_verdicts_are_the_jobs_graders():
    health = reward_health(GROUPS, grader_name="multi")
    assert health.graders["multi"].error_rate == 1 / 8
    assert (health.length_growth, health.train_validation_gap, health.gap_level) == (
        None,
        None,
        "ok",
    )


def test_a_grader_that_only_failed_has_no_mean():
    health = reward_health([], grader_name="g", errors={"g": 3}, length_baseline=5.0)
    assert health.graders["g"].mean_reward is None
    assert health.graders["g"].error_rate == 1.0
    assert (health.truncation_rate, health.mean_tokens, health.length_growth) == (0.0, 0.0, None)


@pytest.mark.parametrize(
    ("gap", "level"),
    [
        (None, "ok"),
        (-0.5, "ok"),
        (0.05, "ok"),
        (0.051, "warn"),
        (0.10, "warn"),
        (0.101, "alarm"),
        (1.0, "alarm"),
    ],
)
def test_the_gap_warns_above_five_and_alarms_above_ten_hundredths(gap, level):
    assert gap_level(gap) == level


def test_the_baseline_runs_after_the_mean_length():
    assert update_baseline(None, 40.0) == 40.0
    assert update_baseline(40.0, 60.0) == pytest.approx(41.0)  # 0.95 * 40 + 0.05 * 60


def test_what_is_wrong_is_reported_worst_first_with_its_figures():
    health = reward_health(
        GROUPS,
        grader_name="multi",
        errors={"near": 3},
        length_baseline=10.0,
        train_mean=0.9,
        validation_mean=0.6,
    )
    found = findings(health)
    assert [finding.level for finding in found] == ["alarm", "warn", "warn"]
    assert "0.300 above validation" in found[0].message
    assert "'near' gave no verdict in 30%" in found[1].message
    assert found[2].data == {"length_growth": 2.0}
    repeated = RolloutGroup(Problem("c", ""), (rollout("x", 1),) * 4, (Verdict(1.0),) * 4)
    assert ["75%" in f.message for f in findings(reward_health([repeated], grader_name="g"))] == [
        True
    ]


def test_a_healthy_step_reports_nothing():
    group = RolloutGroup(
        Problem("c", ""), (rollout("x", 5), rollout("y", 5)), (Verdict(1.0), Verdict(0.0))
    )
    health = reward_health(
        [group], grader_name="g", length_baseline=5.0, train_mean=0.5, validation_mean=0.5
    )
    assert findings(health) == []


def test_a_step_closed_by_its_end_was_not_cut_off():
    closed = RolloutGroup(Problem("a", ""), (rollout("x", 10, "step_end"),), (verdict(1, 1, 1),))
    health = reward_health([closed], grader_name="step_similarity")
    assert health.truncation_rate == 0.0


def test_completions_that_are_mostly_malformed_or_cut_off_are_reported():
    group = RolloutGroup(
        Problem("a", ""),
        tuple(rollout(text, 40, "length") for text in "abc"),
        (verdict(0, 0, 0, True), verdict(0, 0, 0, True), verdict(1, 1, 1)),
    )
    found = findings(reward_health([group], grader_name="multi"))
    assert [next(iter(f.data)) for f in found] == ["format_error_rate", "truncation_rate"]
    assert "67% of completions have a wrong form" in found[0].message
    assert "100% of completions were cut off" in found[1].message
