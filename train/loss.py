"""The policy loss: pure functions over tokens.

Letters: N loss tokens of a micro-batch, rho = pi / pi_old, A advantage, w importance weight.
"""

import torch
from torch import Tensor


def tis_weight(old_logprobs: Tensor, sampler_logprobs: Tensor, cap: float) -> Tensor:
    """w = min(pi_old / pi_sampler, cap), `[N]`, without gradient.

    Truncated importance sampling: the sampler's kernels are not the learner's, so tokens were
    drawn from a slightly different policy (Yao et al., "Your efficient RL framework secretly
    brings you off-policy RL training", 2025).
    """
    return (old_logprobs - sampler_logprobs).exp().clamp(max=cap).detach()


def clipped_token_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """-w min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), `[N]`.

    PPO's clipped surrogate per token, arXiv 1707.06347 equation 7, with clip-higher,
    arXiv 2503.14476 (DAPO) equation 10. The caller sums it and divides by the number of loss
    tokens of the *whole* batch (token-level aggregation): no answer's length weighs its tokens.
    """
    rho = (logprobs - old_logprobs).exp()
    clipped = rho.clamp(1 - clip_low, 1 + clip_high)
    return -weights * torch.minimum(rho * advantages, clipped * advantages)


def clip_fraction(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """Number of tokens whose gradient the clip removes (a scalar tensor)."""
    rho = (logprobs - old_logprobs).exp()
    too_high = (rho > 1 + clip_high) & (advantages > 0)
    too_low = (rho < 1 - clip_low) & (advantages < 0)
    return (too_high | too_low).sum()


def kl_k3(diff: Tensor) -> Tensor:
    """k3 = exp(diff) - 1 - diff, `[N]`, with diff = log pi_learner - log pi_sampler.

    Its mean over the sampler's tokens estimates KL(sampler || learner) without bias and is never
    negative (Schulman, "Approximating KL Divergence", 2020).
    """
    return diff.exp() - 1 - diff
