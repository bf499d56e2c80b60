"""Intervals, pass@k and the ledger against numbers worked by hand."""

from itertools import combinations
from typing import Any

import pytest

from rollout.types import Problem, Rollout, RolloutGroup, SamplingSpec, Turn, Verdict
from rollout.verifiers.answer import AnswerVerifier
from train.evaluate import Ledger, evaluate, num_solved
from train.statistics import pass_at_k, wilson_interval


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


class FakePool:
    """Rollouts of one turn; the verdict of problem i is `rewards[i]`, None: the grader fails.

    Those with a reward of 0 are not of the required form.
    """

    def __init__(self, rewards: list[float | None]) -> None:
        self.rewards = rewards

    def generate(self, problems, num_rollouts, sampling, seed):
        turn = Turn((1,), (2,), (-0.5,), "text", "end", ((0, 1),))
        return [[Rollout(p.id, (turn,))] * num_rollouts for p in problems]

    def last_failures(self):
        return ["3: InvalidVariableError('no answr')"]

    def score(self, verifier, pairs):
        rewards = [self.rewards[int(problem.id)] for problem, _ in pairs]
        return [None if r is None else Verdict(r, format_error=r == 0.0) for r in rewards]


def evaluated(rewards: list[float | None]):
    problems = [Problem(str(i), "") for i in range(len(rewards))]
    sampling = SamplingSpec("single", 8)
    pool: Any = FakePool(rewards)
    return evaluate(pool, problems, AnswerVerifier(), sampling, pass_k=2, sampled=sampling)


def test_a_problem_without_a_verdict_is_left_out_of_every_number_and_counted():
    result = evaluated([1.0] * 6 + [0.4, 0.0, 0.0] + [None])
    assert (result.num_problems, result.num_without_verdict) == (9, 1)
    assert result.greedy == pytest.approx(6 / 9)
    assert result.mean_reward == pytest.approx(6.4 / 9)
    assert result.pass_at_k == result.sampled == pytest.approx(6 / 9)
    assert result.format_error_rate == pytest.approx(2 / 9)
    assert result.ci95 == wilson_interval(6, 9)
    assert len(result.samples) == 9
    assert (result.ledger.scored, result.ledger.dropped) == (27, 3)


def test_an_evaluation_with_few_verdicts_is_no_evaluation():
    with pytest.raises(RuntimeError, match=r"judged 8 of 10 problems.*no answr"):
        evaluated([1.0] * 8 + [None] * 2)
