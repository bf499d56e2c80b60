"""The clipped loss and the importance weight against numbers worked by hand."""

import math

import pytest
import torch

from train.loss import clip_fraction, clipped_token_loss, kl_k3, tis_weight

# One token per case: (rho, A, w, loss) with clip_low 0.2 and clip_high 0.28.
CASES = [
    (2.0, 1.0, 1.0, -1.28),  # min(2, 1.28): the upper side clips
    (0.5, -1.0, 1.0, 0.8),  # min(-0.5, -0.8): the lower side clips
    (2.0, -1.0, 1.0, 2.0),  # min(-2, -1.28): a bad token grown likelier is not spared
    (0.5, 1.0, 1.0, -0.5),  # min(0.5, 0.8): a good token grown rarer is not spared
    (1.25, 2.0, 1.0, -2.5),  # between 1.2 and 1.28: clip-higher leaves it alone
    (0.75, -2.0, 0.5, 0.8),  # half of min(-1.5, -1.6)
    (1.0, 3.0, 0.25, -0.75),
]


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities (a leaf), old ones, advantages and weights of CASES."""
    rho, advantages, weights, _ = (
        torch.tensor(c, dtype=torch.float64) for c in zip(*CASES, strict=True)
    )
    old = torch.linspace(-3.0, -0.5, len(CASES), dtype=torch.float64)
    return (old + rho.log()).requires_grad_(), old, advantages, weights


def test_the_token_loss_clips_both_sides_and_weighs_its_tokens():
    loss = clipped_token_loss(*tensors(), 0.2, 0.28)
    assert loss.tolist() == pytest.approx([case[3] for case in CASES])


def test_clipped_tokens_have_no_gradient_and_the_others_have_minus_w_rho_a():
    logprobs, *rest = tensors()
    clipped_token_loss(logprobs, *rest, 0.2, 0.28).sum().backward()
    expected = [0.0, 0.0, 2.0, -0.5, -2.5, 0.0, -0.75]
    assert logprobs.grad.tolist() == pytest.approx(expected)


def test_the_clip_count_is_the_number_of_tokens_without_gradient():
    logprobs, old, advantages, _ = tensors()
    assert clip_fraction(logprobs, old, advantages, 0.2, 0.28).item() == 3
    # A symmetric clip of 0.2 also stops the token whose rho is 1.25.
    assert clip_fraction(logprobs, old, advantages, 0.2, 0.2).item() == 4


def test_on_policy_the_loss_is_minus_the_advantage_and_its_gradient_too():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    advantages = torch.tensor([0.5, -1.5])
    loss = clipped_token_loss(logprobs, logprobs.detach(), advantages, torch.ones(2), 0.2, 0.28)
    loss.sum().backward()
    assert loss.tolist() == [-0.5, 1.5]
    assert logprobs.grad.tolist() == [-0.5, 1.5]


def test_the_importance_weight_is_the_ratio_to_the_sampler_up_to_the_cap():
    sampler = torch.tensor([-1.0, -2.0, -3.0, -4.0])
    ratio = torch.tensor([0.25, 1.0, 1.5, 3.0])
    weights = tis_weight(sampler + ratio.log(), sampler, cap=2.0)
    assert weights.tolist() == pytest.approx([0.25, 1.0, 1.5, 2.0], rel=1e-5)


def test_the_importance_weight_carries_no_gradient():
    old = torch.tensor([-1.0], requires_grad=True)
    weight = tis_weight(old, torch.tensor([-1.0 - math.log(1.5)]), cap=2.0)
    assert not weight.requires_grad
    assert weight.item() == pytest.approx(1.5)


def test_k3_over_the_samplers_tokens_is_the_kl_from_sampler_to_learner():
    sampler, learner = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    k3 = kl_k3(learner.log() - sampler.log())
    kl = 0.5 * math.log(0.5 / 0.2) + 0.2 * math.log(0.2 / 0.5)
    assert (sampler * k3).sum().item() == pytest.approx(kl)
    assert (k3 >= 0).all()
