"""Intervals, pass@k and the ledger against numbers worked by hand."""

from itertools import combinations

import pytest

from rollout.types import Problem, Rollout, RolloutGroup, Turn, Verdict
from train.evaluate import Ledger, num_solved, pass_at_k, wilson_interval


def test_the_wilson_interval_has_the_textbook_values():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_the_wilson_interval_stays_within_0_and_1_at_the_ends():
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    for n in (1, 7, 500):
        assert wilson_interval(0, n)[0] >= 0.0
        assert wilson_interval(n, n)[1] <= 1.0


def test_the_wilson_interval_narrows_with_more_problems_and_holds_the_proportion():
    (low_few, high_few), (low_many, high_many) = wilson_interval(3, 10), wilson_interval(300, 1000)
    assert low_few < low_many < 0.3 < high_many < high_few


def test_pass_at_k_is_the_share_of_choices_that_hold_a_right_sample():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                choices = list(combinations(range(n), k))
                hits = sum(any(i < c for i in choice) for choice in choices)
                assert pass_at_k(n, c, k) == pytest.approx(hits / len(choices)), (n, c, k)


def test_pass_at_k_of_known_values():
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)
    assert pass_at_k(8, 0, 8) == 0.0
    assert pass_at_k(8, 1, 8) == 1.0


def group(*scored: tuple[int, float | None]) -> RolloutGroup:
    """A group of rollouts, each (number of turns, reward or None)."""
    turn = Turn((1,), (2,), (-0.5,), "", "end", ((0, 1),))
    rollouts = tuple(Rollout("p", (turn,) * turns) for turns, _ in scored)
    verdicts = tuple(None if reward is None else Verdict(reward) for _, reward in scored)
    return RolloutGroup(Problem("p", ""), rollouts, verdicts)


def test_a_rollout_solves_its_problem_above_a_half_and_only_with_a_verdict():
    assert num_solved(group((1, 1.0), (1, 0.5), (1, 0.51), (1, None), (1, 0.0))) == 2


def test_the_ledger_counts_generations_by_what_became_of_them():
    start = Ledger(scored=1, dropped=1)
    assert start.add([group((3, 1.0), (2, None)), group((4, 0.0))]) == Ledger(8, 3)
    assert start == Ledger(1, 1)
