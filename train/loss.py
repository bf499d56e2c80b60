"""The policy losses: pure functions over the N loss tokens of a micro-batch.

Letters: rho = pi / pi_old, A advantage, w importance weight; L tokens of a sequence; of the whole
batch S sequences and T tokens.

Every loss is a sum over tokens of a token loss times a factor that depends on nothing but the whole
batch's totals and the length of the token's own sequence. Hence the sum over micro-batches and
workers is the loss of one large batch, as long as no sequence is split between micro-batches. A
sequence is one turn. Nothing here talks to other workers: `train.learner` brings the totals.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.spec import ImportanceMode, LossName, StageSpec


@dataclass(frozen=True)
class BatchTotals:
    """What the normalisers need of the whole batch: all micro-batches of all workers."""

    num_tokens: float  # T
    num_sequences: float  # S


def policy_loss(
    stage: StageSpec,
    totals: BatchTotals,
    logprobs: Tensor,
    old_logprobs: Tensor,
    sampler_logprobs: Tensor,
    advantages: Tensor,
    sequence_ids: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return (normalised token losses `[N]`, tokens that the clip acts on `[N]` bool).

    The first, summed over all micro-batches of all workers, is the loss. All arguments are `[N]`;
    `sequence_ids` are from 0 in the micro-batch.
    """
    rho = ratio(stage.loss, logprobs, old_logprobs, sequence_ids)
    if stage.loss == "cispo":
        losses = cispo(rho, logprobs, advantages, stage.cispo_cap)
        clipped = rho > stage.cispo_cap
    else:
        losses = clipped_surrogate(rho, advantages, stage.clip_low, stage.clip_high)
        clipped = is_clipped(rho, advantages, stage.clip_low, stage.clip_high)
    if stage.tis_cap is not None:
        losses = losses * importance_weights(
            stage.tis_mode,
            old_logprobs,
            sampler_logprobs,
            sequence_ids,
            floor=stage.tis_floor,
            cap=stage.tis_cap,
        )
    return losses / normaliser(stage.loss, totals, sequence_ids, stage.dr_grpo_length), clipped


def ratio(loss: LossName, logprobs: Tensor, old_logprobs: Tensor, sequence_ids: Tensor) -> Tensor:
    """Return rho at every token, `[N]`.

    gspo: (pi / pi_old)^(1/L) of the sequence, arXiv 2507.18071 equation 7. rloo: pi / pi_old of the
    sequence, which is one action to it (arXiv 2402.14740). The others: pi / pi_old of the token.
    """
    log_rho = logprobs - old_logprobs
    if loss == "gspo":
        log_rho = sequence_sum(log_rho, sequence_ids) / sequence_length(sequence_ids)
    elif loss == "rloo":
        log_rho = sequence_sum(log_rho, sequence_ids)
    return log_rho.exp()


def clipped_surrogate(rho: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """-min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), `[N]`.

    PPO's clipped surrogate, arXiv 1707.06347 equation 7, with clip-higher, arXiv 2503.14476 (DAPO)
    equation 10.
    """
    clipped = rho.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(rho * advantages, clipped * advantages)


def is_clipped(rho: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Tokens whose gradient the clip removes, `[N]` bool."""
    too_high = (rho > 1 + clip_high) & (advantages > 0)
    too_low = (rho < 1 - clip_low) & (advantages < 0)
    return too_high | too_low


def cispo(rho: Tensor, logprobs: Tensor, advantages: Tensor, cap: float) -> Tensor:
    """-sg(min(rho, cap)) A log pi, `[N]`: a capped token keeps its gradient.

    arXiv 2506.13585 (MiniMax-M1), without a lower bound. `cap` bounds rho itself, as
    in TRL and ScaleRL (arXiv 2510.13786); elsewhere a cap of c means 1 + c.
    """
    return -rho.detach().clamp(max=cap) * advantages * logprobs


def importance_weights(
    mode: ImportanceMode,
    old_logprobs: Tensor,
    sampler_logprobs: Tensor,
    sequence_ids: Tensor,
    *,
    floor: float | None,
    cap: float,
) -> Tensor:
    """Correct for the sampler, whose kernels are not the learner's; `[N]`, without gradient.

    w = pi_old / pi_sampler of the token, or (`sequence_*`) the product over its sequence.
    `*_truncate` puts w between floor and cap: truncated importance sampling (Yao et al., "Your
    efficient RL framework secretly brings you off-policy RL training", 2025). `*_mask` puts 0 where
    w lies outside: per token that is IcePop, arXiv 2510.18855.
    """
    log_weights = (old_logprobs - sampler_logprobs).detach()
    if mode.startswith("sequence"):
        log_weights = sequence_sum(log_weights, sequence_ids)
    weights = log_weights.exp()
    if mode.endswith("truncate"):
        return weights.clamp(min=floor, max=cap)
    outside = (weights > cap) | (weights < (0.0 if floor is None else floor))
    return weights.masked_fill(outside, 0.0)


def normaliser(
    loss: LossName, totals: BatchTotals, sequence_ids: Tensor, dr_grpo_length: int | None
) -> Tensor | float:
    """Return what divides each token's loss: `[N]`, or one number.

    dapo, cispo: T, every token weighs the same (arXiv 2503.14476 equation 8). grpo, gspo, rloo:
    S L, every sequence weighs the same (arXiv 2402.03300 equation 3). dr_grpo: S times a constant
    (arXiv 2503.20783).
    """
    if loss in ("dapo", "cispo"):
        return totals.num_tokens
    if loss == "dr_grpo":
        assert dr_grpo_length is not None, "StageSpec sees to it"
        return totals.num_sequences * dr_grpo_length
    return totals.num_sequences * sequence_length(sequence_ids)


def sequence_length(sequence_ids: Tensor) -> Tensor:
    """L of each token's own sequence, `[N]`."""
    return torch.bincount(sequence_ids).index_select(0, sequence_ids)


def sequence_sum(values: Tensor, sequence_ids: Tensor) -> Tensor:
    """The sum of `values` `[N]` over each token's own sequence, `[N]`."""
    sums = values.new_zeros(len(torch.bincount(sequence_ids)))
    return sums.index_add(0, sequence_ids, values).index_select(0, sequence_ids)


def kl_k3(diff: Tensor) -> Tensor:
    """k3 = exp(diff) - 1 - diff, `[N]`, with diff = log pi_learner - log pi_sampler.

    Its mean over the sampler's tokens estimates KL(sampler || learner) without bias and is never
    negative (Schulman, "Approximating KL Divergence", 2020).
    """
    return diff.exp() - 1 - diff
