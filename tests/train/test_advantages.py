"""Advantages against numbers worked by hand."""

import pytest

from train.advantages import ADVANTAGES, dr_grpo, grpo, rloo

REWARDS = [1.0, 0.0, 0.0, 3.0]  # mean 1, population variance (0 + 1 + 1 + 4) / 4 = 1.5


def test_grpo_divides_by_the_population_standard_deviation():
    std = 1.5**0.5
    assert grpo(REWARDS) == pytest.approx([0.0, -1 / std, -1 / std, 2 / std], rel=1e-5)
    # Two of four right: std is exactly a half, and epsilon takes a 500000th off.
    assert grpo([0.0, 0.0, 1.0, 1.0])[3] == pytest.approx(0.5 / 0.500001, rel=1e-12)


def test_grpo_gives_a_group_of_ties_no_advantage_instead_of_failing():
    assert grpo([0.7, 0.7, 0.7]) == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)


def test_dr_grpo_only_takes_the_mean_off():
    assert dr_grpo(REWARDS) == [0.0, -1.0, -1.0, 2.0]


def test_rloo_takes_the_mean_of_the_others_off():
    # The others' means: 3/3, 4/3, 4/3, 1/3.
    assert rloo(REWARDS) == pytest.approx([0.0, -4 / 3, -4 / 3, 8 / 3])


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_advantages_sum_to_nothing_and_do_not_move_with_the_rewards(name):
    advantages = ADVANTAGES[name](REWARDS)
    assert sum(advantages) == pytest.approx(0.0, abs=1e-9)
    assert ADVANTAGES[name]([r + 10 for r in REWARDS]) == pytest.approx(advantages)
    assert max(advantages) > 1
