"""The best three validated steps of a stage, and how ties fall."""

from train.ranking import Validated, rank


def ranked(*rewards: float) -> list[tuple[int, float]]:
    """(step, reward) of what is kept when steps 1, 2, ... were validated with `rewards`."""
    best: list[Validated] = []
    for step, reward in enumerate(rewards, start=1):
        best = rank(best, step, reward)
    return [(entry["step"], entry["reward"]) for entry in best]


def test_the_best_three_are_kept_the_best_one_first():
    assert ranked(0.1, 0.5, 0.3, 0.2, 0.4) == [(2, 0.5), (5, 0.4), (3, 0.3)]


def test_of_two_equals_the_later_one_is_better_also_at_the_edge():
    assert ranked(0.5, 0.5) == [(2, 0.5), (1, 0.5)]
    assert ranked(0.5, 0.5, 0.5, 0.5) == [(4, 0.5), (3, 0.5), (2, 0.5)]


def test_a_reward_below_the_three_best_changes_nothing():
    assert ranked(0.5, 0.6, 0.7, -1.0) == [(3, 0.7), (2, 0.6), (1, 0.5)]
