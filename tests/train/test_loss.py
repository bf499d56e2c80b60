"""Every loss, ratio, normaliser and importance weight against numbers worked by hand."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch

from train.loss import (
    BatchTotals,
    cispo,
    clipped_surrogate,
    importance_weights,
    is_clipped,
    kl_k3,
    normaliser,
    policy_loss,
    ratio,
    sequence_length,
    sequence_sum,
)
from train.spec import StageSpec

# One token per case: (rho, A, loss, d loss / d rho) with clip_low 0.2 and clip_high 0.28.
CASES = [
    (2.0, 1.0, -1.28, 0.0),  # min(2, 1.28): the upper side clips
    (0.5, -1.0, 0.8, 0.0),  # min(-0.5, -0.8): the lower side clips
    (2.0, -1.0, 2.0, 1.0),  # min(-2, -1.28): a bad token grown likelier is not spared
    (0.5, 1.0, -0.5, -1.0),  # min(0.5, 0.8): a good token grown rarer is not spared
    (1.25, 2.0, -2.5, -2.0),  # between 1.2 and 1.28: clip-higher leaves it alone
    (0.75, -2.0, 1.6, 0.0),  # min(-1.5, -1.6)
    (1.0, 3.0, -3.0, -3.0),
    (2.0, 0.0, 0.0, 0.0),  # no advantage, nothing to clip
    (0.5, 0.0, 0.0, 0.0),
]
# Three sequences of 3, 1 and 2 tokens.
IDS = torch.tensor([0, 0, 0, 1, 2, 2])
TOTALS = BatchTotals(num_tokens=10.0, num_sequences=4.0)  # this micro-batch is not all there is


def logs(*values: float) -> torch.Tensor:
    """Natural logarithms, in float64."""
    return torch.tensor(values, dtype=torch.float64).log()


def columns() -> list[torch.Tensor]:
    """The columns of CASES."""
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*CASES, strict=True)]


def test_the_surrogate_clips_both_sides():
    rho, advantages, losses, _ = columns()
    assert clipped_surrogate(rho, advantages, 0.2, 0.28).tolist() == pytest.approx(losses.tolist())


def test_clipped_tokens_have_no_gradient_and_the_others_have_minus_the_advantage():
    rho, advantages, _, slopes = columns()
    rho.requires_grad_()
    clipped_surrogate(rho, advantages, 0.2, 0.28).sum().backward()
    assert rho.grad.tolist() == pytest.approx(slopes.tolist())


def test_the_clip_marks_the_tokens_without_gradient():
    rho, advantages, _, _ = columns()
    marked = is_clipped(rho, advantages, 0.2, 0.28)
    assert marked.nonzero().flatten().tolist() == [0, 1, 5]
    # A symmetric clip of 0.2 also stops the token whose rho is 1.25.
    assert is_clipped(rho, advantages, 0.2, 0.2).nonzero().flatten().tolist() == [0, 1, 4, 5]


def test_a_ratio_on_the_bound_is_not_clipped():
    rho = torch.tensor([1.25, 0.75])
    assert not is_clipped(rho, torch.tensor([1.0, -1.0]), 0.25, 0.25).any()


def test_on_policy_the_loss_is_minus_the_advantage_and_its_gradient_too():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    ids, advantages = torch.tensor([0, 1]), torch.tensor([0.5, -1.5])
    rho = ratio("dapo", logprobs, logprobs.detach(), ids)
    loss = clipped_surrogate(rho, advantages, 0.2, 0.28)
    loss.sum().backward()
    assert loss.tolist() == [-0.5, 1.5]
    assert logprobs.grad.tolist() == [-0.5, 1.5]


def test_cispo_keeps_the_gradient_of_capped_tokens_and_gives_the_ratio_none():
    rho = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
    logprobs = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    losses = cispo(rho, logprobs, torch.tensor([1.0, -4.0]), cap=2.0)
    # -0.5 x 1 x -1 and -2 x -4 x -2: the cap is 2 itself, not 1 + 2.
    assert losses.tolist() == [0.5, -16.0]
    losses.sum().backward()
    assert logprobs.grad.tolist() == [-0.5, 8.0]
    assert rho.grad is None


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "cispo"])
def test_a_tokens_ratio_is_its_own(loss):
    old = torch.linspace(-3.0, -0.5, 6, dtype=torch.float64)
    rho = [2.0, 0.5, 1.0, 4.0, 0.25, 3.0]
    assert ratio(loss, old + logs(*rho), old, IDS).tolist() == pytest.approx(rho)


def test_gspos_ratio_is_the_geometric_mean_over_the_sequence():
    old = torch.linspace(-3.0, -0.5, 6, dtype=torch.float64)
    found = ratio("gspo", old + logs(2.0, 4.0, 8.0, 3.0, 0.5, 0.125), old, IDS)
    # 64^(1/3), 3, (1/16)^(1/2)
    assert found.tolist() == pytest.approx([4.0, 4.0, 4.0, 3.0, 0.25, 0.25])


def test_rloos_ratio_is_the_product_over_the_sequence():
    old = torch.linspace(-3.0, -0.5, 6, dtype=torch.float64)
    found = ratio("rloo", old + logs(2.0, 4.0, 8.0, 3.0, 0.5, 0.125), old, IDS)
    assert found.tolist() == pytest.approx([64.0, 64.0, 64.0, 3.0, 0.0625, 0.0625])


def test_lengths_and_sums_are_those_of_the_tokens_own_sequence_even_when_there_is_none():
    assert sequence_length(IDS).tolist() == [3, 3, 3, 1, 2, 2]
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert sequence_sum(values, IDS).tolist() == [7.0, 7.0, 7.0, 8.0, 48.0, 48.0]
    nothing = torch.tensor([], dtype=torch.int64)
    assert sequence_length(nothing).tolist() == []
    assert sequence_sum(torch.tensor([]), nothing).tolist() == []


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("dapo", [10.0] * 6),  # T
        ("cispo", [10.0] * 6),
        ("grpo", [12.0, 12.0, 12.0, 4.0, 8.0, 8.0]),  # S L
        ("gspo", [12.0, 12.0, 12.0, 4.0, 8.0, 8.0]),
        ("rloo", [12.0, 12.0, 12.0, 4.0, 8.0, 8.0]),
        ("dr_grpo", [28.0] * 6),  # S times the constant
    ],
)
def test_a_token_is_divided_by_totals_of_the_whole_batch_and_its_own_sequences_length(
    loss, expected
):
    found = normaliser(loss, TOTALS, IDS, 7) * torch.ones(6)
    assert found.tolist() == expected


# Learner over sampler, per token; products per sequence: 3 x 1 x 0.5 = 1.5, 0.25, 2 x 2 = 4.
RATIOS = (3.0, 1.0, 0.5, 0.25, 2.0, 2.0)


@pytest.mark.parametrize(
    ("mode", "floor", "cap", "expected"),
    [
        ("token_truncate", None, 2.0, [2.0, 1.0, 0.5, 0.25, 2.0, 2.0]),
        ("token_truncate", 0.5, 1.5, [1.5, 1.0, 0.5, 0.5, 1.5, 1.5]),
        ("token_mask", None, 1.5, [0.0, 1.0, 0.5, 0.25, 0.0, 0.0]),
        ("token_mask", 0.4, 2.5, [0.0, 1.0, 0.5, 0.0, 2.0, 2.0]),  # IcePop
        ("sequence_truncate", None, 3.0, [1.5, 1.5, 1.5, 0.25, 3.0, 3.0]),
        ("sequence_truncate", 0.5, 1.25, [1.25, 1.25, 1.25, 0.5, 1.25, 1.25]),
        ("sequence_mask", None, 3.0, [1.5, 1.5, 1.5, 0.25, 0.0, 0.0]),
        ("sequence_mask", 0.5, 5.0, [1.5, 1.5, 1.5, 0.0, 4.0, 4.0]),
    ],
)
def test_importance_weights_are_truncated_or_masked_per_token_or_per_sequence(
    mode, floor, cap, expected
):
    sampler = torch.linspace(-4.0, -1.0, 6, dtype=torch.float64)
    found = importance_weights(mode, sampler + logs(*RATIOS), sampler, IDS, floor=floor, cap=cap)
    assert found.tolist() == pytest.approx(expected)


def test_a_weight_on_the_bound_is_not_masked():
    old = torch.tensor([0.0, 0.0])  # the weights are exactly 1
    ids = torch.tensor([0, 1])
    for floor, cap in ((None, 1.0), (1.0, 2.0)):
        found = importance_weights("token_mask", old, old, ids, floor=floor, cap=cap)
        assert found.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("mode", ["token_truncate", "sequence_mask"])
def test_importance_weights_carry_no_gradient(mode):
    old = torch.tensor([-1.0], requires_grad=True)
    sampler = torch.tensor([-1.0 - math.log(1.5)])
    weight = importance_weights(mode, old, sampler, torch.tensor([0]), floor=None, cap=2.0)
    assert not weight.requires_grad
    assert weight.item() == pytest.approx(1.5)


def test_k3_over_the_samplers_tokens_is_the_kl_from_sampler_to_learner():
    sampler, learner = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    k3 = kl_k3(learner.log() - sampler.log())
    kl = 0.5 * math.log(0.5 / 0.2) + 0.2 * math.log(0.2 / 0.5)
    assert (sampler * k3).sum().item() == pytest.approx(kl)
    assert (k3 >= 0).all()


def whole_loss(loss: str, **changes) -> tuple[list[float], list[bool]]:
    """`policy_loss` of two sequences of 2 and 1 tokens; of the whole batch, T = 5 and S = 2."""
    sampler = torch.tensor([-2.0, -1.0, -3.0], dtype=torch.float64)
    old = sampler + logs(4.0, 0.5, 1.0)  # capped at 2: w = 2, 0.5, 1
    losses, clipped = policy_loss(
        StageSpec(loss=loss, clip_low=0.2, clip_high=0.28, **changes),
        BatchTotals(num_tokens=5.0, num_sequences=2.0),
        logprobs=old + logs(2.0, 0.5, 0.5),
        old_logprobs=old,
        sampler_logprobs=sampler,
        advantages=torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64),
        sequence_ids=torch.tensor([0, 0, 1]),
    )
    return losses.tolist(), clipped.tolist()


@pytest.mark.parametrize(
    ("loss", "changes", "losses", "clipped"),
    [
        # -w min(...) = -2 x 1.28, -0.5 x 0.5, 0.8; over T = 5
        ("dapo", {}, [-2.56 / 5, -0.25 / 5, 0.8 / 5], [True, False, True]),
        ("dapo", {"tis_cap": None}, [-1.28 / 5, -0.5 / 5, 0.8 / 5], [True, False, True]),
        # Over S L: 4, 4, 2
        ("grpo", {}, [-0.64, -0.0625, 0.4], [True, False, True]),
        # Over S x 10
        ("dr_grpo", {"dr_grpo_length": 10}, [-0.128, -0.0125, 0.04], [True, False, True]),
        # The sequences' ratios are 1 and 0.5 (2 x 0.5 is 1, under gspo and rloo alike).
        ("gspo", {}, [-0.5, -0.125, 0.4], [False, False, True]),
        ("rloo", {}, [-0.5, -0.125, 0.4], [False, False, True]),
        # Masked by sequence: 4 x 0.5 = 2 lies outside 0.9 .. 1.9, 1 inside.
        (
            "dapo",
            {"tis_mode": "sequence_mask", "tis_floor": 0.9, "tis_cap": 1.9},
            [0.0, 0.0, 0.8 / 5],
            [True, False, True],
        ),
        # Masked by token: 4 and 0.5 lie outside, 1 inside.
        (
            "dapo",
            {"tis_mode": "token_mask", "tis_floor": 0.9},
            [0.0, 0.0, 0.8 / 5],
            [True, False, True],
        ),
    ],
)
def test_the_whole_loss_is_ratio_clip_weight_and_normaliser_together(
    loss, changes, losses, clipped
):
    found, marked = whole_loss(loss, **changes)
    assert found == pytest.approx(losses)
    assert marked == clipped


def test_the_whole_loss_clips_each_side_at_its_own_bound():
    old = torch.tensor([-2.0, -2.0], dtype=torch.float64)
    losses, marked = policy_loss(
        StageSpec(loss="dapo", clip_low=0.2, clip_high=0.28, tis_cap=None),
        BatchTotals(num_tokens=1.0, num_sequences=1.0),
        old + logs(1.25, 0.75),
        old,
        old,
        advantages=torch.tensor([1.0, -1.0], dtype=torch.float64),
        sequence_ids=torch.tensor([0, 0]),
    )
    # 1.25 lies below 1.28, 0.75 below 0.8.
    assert losses.tolist() == pytest.approx([-1.25, 0.8])
    assert marked.tolist() == [False, True]


def test_the_whole_cispo_loss_is_the_capped_ratio_on_the_log_probability():
    found, marked = whole_loss("cispo", cispo_cap=1.5)
    log4, log2 = math.log(4), math.log(2)
    # log pi = -2 + log 4 + log 2, -1 - log 2 - log 2, -3 - log 2; min(rho, cap) = 1.5, 0.5, 0.5
    expected = [
        -2 * 1.5 * (-2 + log4 + log2) / 5,
        -0.5 * 0.5 * (-1 - 2 * log2) / 5,
        0.5 * (-3 - log2) / 5,
    ]
    assert found == pytest.approx(expected)
    assert marked == [True, False, False]
    assert whole_loss("cispo", cispo_cap=2.5)[1] == [False, False, False]


def test_totals_are_frozen():
    with pytest.raises(FrozenInstanceError):
        TOTALS.num_tokens = 1.0


def test_a_ratio_on_cispos_cap_is_not_counted_as_capped():
    on_policy = torch.tensor([-1.0])
    losses, marked = policy_loss(
        StageSpec(loss="cispo", cispo_cap=1.0, tis_cap=None),
        TOTALS,
        on_policy,
        on_policy,
        on_policy,
        advantages=torch.tensor([1.0]),
        sequence_ids=torch.tensor([0]),
    )
    assert losses.tolist() == pytest.approx([0.1])  # -1 x 1 x -1 over T
    assert marked.tolist() == [False]
