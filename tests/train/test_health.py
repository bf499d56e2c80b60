"""Warnings come when something begins, and survive a restart without being repeated."""

import json

import pytest

from rollout.types import Problem, Rollout, RolloutGroup, Turn, Verdict
from train.health import HealthWatch


def step(reward: float, num_tokens: int = 4) -> list[RolloutGroup]:
    """One group of two rollouts that say different things, both with this reward."""
    rollouts = tuple(
        Rollout("p", (Turn((1,), (2,) * num_tokens, (-0.5,) * num_tokens, t, "end", ((0, 1),)),))
        for t in "ab"
    )
    return [RolloutGroup(Problem("p", ""), rollouts, (Verdict(reward), Verdict(reward)))]


def levels(findings) -> list[tuple[str, list[str]]]:
    return [(finding.level, list(finding.data)) for finding in findings]


def test_a_gap_is_warned_of_once_and_again_when_it_becomes_an_alarm():
    watch = HealthWatch("answer", compares_with_validation=True)
    assert watch.observe(step(0.5), None, 1)[1] == []  # nothing to compare with yet
    figures, found = watch.observe(step(0.5), 0.43, 1)
    assert figures["train_validation_gap"] == pytest.approx(0.07)
    assert levels(found) == [("warn", ["train_validation_gap"])]
    assert watch.observe(step(0.5), None, 1)[1] == []  # it lasts
    assert levels(watch.observe(step(0.6), None, 1)[1]) == [("alarm", ["train_validation_gap"])]
    assert watch.observe(step(0.4), None, 1)[1] == []
    assert levels(watch.observe(step(0.5), None, 1)[1]) == [("warn", ["train_validation_gap"])]


def test_a_stage_with_a_reward_of_its_own_is_not_compared_with_validation():
    watch = HealthWatch("step_similarity", compares_with_validation=False)
    figures, found = watch.observe(step(0.9), 0.1, 1)
    assert (figures["train_validation_gap"], found) == (None, [])


def test_growing_lengths_are_warned_of_also_after_a_restart():
    watch = HealthWatch("answer", compares_with_validation=True)
    watch.observe(step(0.5, num_tokens=4), None, 1)
    again = HealthWatch("answer", compares_with_validation=True)
    again.restore(json.loads(json.dumps(watch.snapshot())))
    figures, found = again.observe(step(0.5, num_tokens=8), None, 1)
    assert figures["length_growth"] == pytest.approx(2.0)
    assert levels(found) == [("warn", ["length_growth"])]


def test_figures_are_json():
    figures, _ = HealthWatch("answer", compares_with_validation=True).observe(step(0.5), 0.5, 1)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_steps_that_teach_nothing_are_told_of_when_they_begin():
    watch = HealthWatch("answer", compares_with_validation=True)
    assert levels(watch.observe(step(0.5), None, 0)[1]) == [("warn", ["groups_kept"])]
    assert watch.observe(step(0.5), None, 0)[1] == []
    assert watch.observe(step(0.5), None, 1)[1] == []


@pytest.mark.parametrize(
    ("compares", "told"), [(True, [("warn", ["duplicate_rate"])]), (False, [])]
)
def test_repeated_completions_matter_for_whole_problems_and_not_for_single_steps(compares, told):
    turn = Turn((1,), (2,), (-0.5,), "same", "end", ((0, 1),))
    same = RolloutGroup(Problem("p", ""), (Rollout("p", (turn,)),) * 4, (Verdict(0.5),) * 4)
    watch = HealthWatch("answer", compares_with_validation=compares)
    assert levels(watch.observe([same], None, 1)[1]) == told
