"""How a batch is cut into rows, micro-batches and workers' shares changes no loss and no gradient.

One share with every sequence in a padded row of its own is the reference.
"""

import random
from dataclasses import dataclass

import pytest
import torch
from conftest import MODEL

from train.batch import MicroBatch, TrainSequence, _to_tensors, attention_mask, pack
from train.loss import BatchTotals, policy_loss
from train.policy import Policy, load_model
from train.spec import StageSpec

LENGTHS = [(5, 9), (1, 1), (3, 4), (2, 2), (7, 7), (4, 1), (1, 6), (6, 3), (2, 11)]
STAGES = {
    "dapo": StageSpec(loss="dapo", tis_mode="token_mask", tis_floor=0.8, tis_cap=1.2),
    "grpo": StageSpec(loss="grpo"),
    "dr_grpo": StageSpec(loss="dr_grpo", dr_grpo_length=16, tis_mode="sequence_truncate"),
    "gspo": StageSpec(loss="gspo", tis_mode="sequence_mask", tis_floor=0.5, tis_cap=2.0),
    "cispo": StageSpec(loss="cispo", cispo_cap=1.1),
    "rloo": StageSpec(loss="rloo"),
}


@dataclass(frozen=True)
class Result:
    """What a batch gave in all."""

    loss: float
    num_clipped: int
    gradients: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def policies() -> tuple[Policy, Policy]:
    """The learner's policy and pi_old, which differ."""
    policy, old = (Policy(load_model(str(MODEL), "float32")) for _ in range(2))
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            spread = parameter.std(correction=0)
            parameter += 0.03 * spread * torch.randn(parameter.shape, generator=noise)
    policy.temperature = old.temperature = 4.0
    return policy, old


@pytest.fixture(scope="module")
def sequences(policies) -> list[TrainSequence]:
    """Unequal lengths, both signs of advantage; the sampler is near pi_old, not at it."""
    rng = random.Random(2)
    found = []
    for i, (num_prompt, num_sampled) in enumerate(LENGTHS):
        prompt, sampled = (
            tuple(rng.choices(range(5, 103), k=k)) for k in (num_prompt, num_sampled)
        )
        blank = TrainSequence(prompt, sampled, (0.0,) * num_sampled, rng.uniform(-1, 1))
        with torch.no_grad():
            exact = forward(policies[1], _to_tensors([[blank]])).tolist()
        noisy = tuple(value + rng.gauss(0, 0.2) for value in exact)
        found.append(TrainSequence(prompt, sampled, noisy, [-1.0, 0.0, 0.5, 2.0][i % 4]))
    return found


def forward(policy: Policy, batch: MicroBatch) -> torch.Tensor:
    """Log-probabilities of the loss tokens."""
    mask = attention_mask(batch.segments)
    return policy(batch.input_ids, batch.position_ids, mask, batch.predicts, batch.targets)[0]


def learn(policies: tuple[Policy, Policy], stage: StageSpec, shares: list[list[MicroBatch]]):
    """The loss and the gradients, summed over all micro-batches of all shares."""
    policy, old = policies
    policy.zero_grad()
    batches = [batch for share in shares for batch in share]
    totals = BatchTotals(
        num_tokens=sum(len(b.targets) for b in batches),
        num_sequences=sum(b.num_sequences for b in batches),
    )
    loss, num_clipped = 0.0, 0
    for batch in batches:
        with torch.no_grad():
            old_logprobs = forward(old, batch)
        losses, clipped = policy_loss(
            stage,
            totals,
            forward(policy, batch),
            old_logprobs,
            batch.sampler_logprobs,
            batch.advantages,
            batch.sequence_ids,
        )
        losses.sum().backward()
        loss, num_clipped = loss + losses.sum().item(), num_clipped + int(clipped.sum())
    gradients = {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}
    return Result(loss, num_clipped, gradients)


def padded(sequences: list[TrainSequence]) -> list[MicroBatch]:
    """One micro-batch, in which every sequence has a row of its own."""
    return [_to_tensors([[s] for s in sequences])]


def assert_same(found: Result, expected: Result) -> None:
    """Loss, clip count and gradients agree to float32's rounding."""
    assert found.loss == pytest.approx(expected.loss, abs=1e-6)
    assert found.num_clipped == expected.num_clipped
    assert found.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        difference = found.gradients[name] - gradient
        assert difference.norm() <= 3e-5 * gradient.norm() + 1e-7, name


@pytest.mark.parametrize("loss", STAGES)
def test_packed_equals_padded_in_any_number_of_micro_batches(policies, sequences, loss):
    expected = learn(policies, STAGES[loss], [padded(sequences)])
    assert abs(expected.loss) > 1e-3
    for micro_batch_tokens, num_micro_batches in ((10_000, 1), (30, 3), (1, 6)):
        packed = pack(sequences, micro_batch_tokens)
        assert len(packed) == num_micro_batches
        assert_same(learn(policies, STAGES[loss], [packed]), expected)


@pytest.mark.parametrize("loss", STAGES)
def test_two_unequal_shares_sum_to_the_whole(policies, sequences, loss):
    expected = learn(policies, STAGES[loss], [padded(sequences)])
    shares = [pack(sequences[:3], 30), pack(sequences[3:], 30)]
    assert_same(learn(policies, STAGES[loss], shares), expected)


@pytest.mark.parametrize("loss", STAGES)
def test_the_order_of_the_sequences_does_not_matter(policies, sequences, loss):
    expected = learn(policies, STAGES[loss], [padded(sequences)])
    assert_same(learn(policies, STAGES[loss], [padded(sequences[::-1])]), expected)
