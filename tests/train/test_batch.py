"""Packing changes no result, and every loss token keeps its own numbers."""

import random
from dataclasses import FrozenInstanceError

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rollout.types import Problem, Rollout, RolloutGroup, Turn, Verdict
from train.batch import (
    MicroBatch,
    TrainSequence,
    _to_tensors,
    attention_mask,
    empty_batch,
    pack,
    to_sequences,
)
from train.policy import Policy

VOCABULARY = 61
LENGTHS = [(5, 9), (1, 1), (3, 4), (2, 2), (7, 7), (4, 1), (1, 6), (6, 3), (2, 11), (3, 3)]


@pytest.fixture(scope="module")
def policy() -> Policy:
    """A tiny random Qwen3 whose distributions are far from uniform."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.25,
        attn_implementation="sdpa",
        dtype="float32",
    )
    return Policy(Qwen3ForCausalLM(config).float().eval())


def sequences() -> list[TrainSequence]:
    """Sequences told apart by advantage i, with sampler log-probabilities -(i + t / 64)."""
    rng = random.Random(3)
    return [
        TrainSequence(
            tuple(rng.choices(range(VOCABULARY), k=prompt)),
            tuple(rng.choices(range(VOCABULARY), k=sampled)),
            tuple(-(i + t / 64) for t in range(sampled)),
            float(i),
        )
        for i, (prompt, sampled) in enumerate(LENGTHS)
    ]


def run(policy: Policy, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The policy's forward pass over a micro-batch."""
    mask = attention_mask(batch.segments)
    return policy(batch.input_ids, batch.position_ids, mask, batch.predicts, batch.targets)


def plain_logprobs(policy: Policy, sequence: TrainSequence) -> torch.Tensor:
    """The sampled tokens' log-probabilities by the model alone: no packing, no mask."""
    ids = torch.tensor([sequence.prompt_ids + sequence.token_ids])
    logprobs = policy.model(input_ids=ids).logits[0].log_softmax(dim=-1)
    start = len(sequence.prompt_ids)
    rows = [logprobs[start + t - 1, token] for t, token in enumerate(sequence.token_ids)]
    return torch.stack(rows)


def by_sequence(batches: list[MicroBatch], values: list[torch.Tensor]) -> dict[int, torch.Tensor]:
    """Values of the loss tokens by sequence, which the advantage names."""
    advantages, flat = torch.cat([b.advantages for b in batches]), torch.cat(values)
    return {i: flat[advantages == i] for i in range(len(LENGTHS))}


@pytest.mark.parametrize("micro_batch_tokens", [1, 32, 1000])
def test_packed_log_probabilities_equal_those_of_each_sequence_alone(policy, micro_batch_tokens):
    batches = pack(sequences(), micro_batch_tokens)
    with torch.no_grad():
        packed = by_sequence(batches, [run(policy, batch)[0] for batch in batches])
        for i, sequence in enumerate(sequences()):
            torch.testing.assert_close(
                packed[i], plain_logprobs(policy, sequence), atol=1e-5, rtol=1e-5
            )


def test_packed_and_padded_batches_give_the_same_values_and_gradients(policy):
    packed, padded = pack(sequences(), 1000), [_to_tensors([[s] for s in sequences()])]
    assert len(packed) == 1
    assert packed[0].input_ids.shape[0] < len(LENGTHS) == padded[0].input_ids.shape[0]
    results = []
    for batches in (packed, padded):
        policy.zero_grad()
        logprobs, entropies = run(policy, batches[0])
        (logprobs * batches[0].advantages).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in policy.parameters()])
        results.append(
            (by_sequence(batches, [logprobs.detach()]), by_sequence(batches, [entropies]), gradient)
        )
    for i in range(len(LENGTHS)):
        torch.testing.assert_close(results[0][0][i], results[1][0][i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(results[0][1][i], results[1][1][i], atol=1e-5, rtol=1e-5)
    scale = results[1][2].abs().max().item()
    assert scale > 1
    torch.testing.assert_close(results[0][2], results[1][2], atol=1e-5 * scale, rtol=1e-4)


def test_without_the_segments_packing_would_change_the_result(policy):
    batch = pack(sequences(), 1000)[0]
    one = torch.ones_like(batch.segments)
    with torch.no_grad():
        right = run(policy, batch)[0]
        wrong = policy(
            batch.input_ids, batch.position_ids, attention_mask(one), batch.predicts, batch.targets
        )[0]
    assert (right - wrong).abs().max() > 0.1


def test_the_temperature_divides_the_logits_and_entropy_is_that_of_the_distribution(policy):
    sequence = sequences()[0]
    batch = pack([sequence], 1000)[0]
    policy.temperature = 0.5
    try:
        with torch.no_grad():
            logprobs, entropies = run(policy, batch)
    finally:
        policy.temperature = 1.0
    with torch.no_grad():
        logits = policy.model(input_ids=batch.input_ids).logits[0, 4:-1] / 0.5
    probabilities = logits.softmax(dim=-1)
    expected = probabilities[range(9), list(sequence.token_ids)].log()
    torch.testing.assert_close(logprobs, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        entropies, torch.special.entr(probabilities).sum(-1), atol=1e-4, rtol=1e-4
    )
    assert not entropies.requires_grad


@pytest.mark.parametrize("micro_batch_tokens", [1, 20, 32, 1000])
def test_targets_sampler_log_probabilities_and_advantages_stay_with_their_tokens(
    micro_batch_tokens,
):
    batches = pack(sequences(), micro_batch_tokens)
    targets = by_sequence(batches, [b.targets for b in batches])
    logprobs = by_sequence(batches, [b.sampler_logprobs for b in batches])
    for i, sequence in enumerate(sequences()):
        assert tuple(targets[i].tolist()) == sequence.token_ids
        assert tuple(logprobs[i].tolist()) == sequence.sampler_logprobs
    for batch in batches:
        next_ids = batch.input_ids.roll(-1, dims=1)
        assert next_ids[batch.predicts].tolist() == batch.targets.tolist()
        next_segments = batch.segments.roll(-1, dims=1)
        assert torch.equal(next_segments[batch.predicts], batch.segments[batch.predicts])


@pytest.mark.parametrize("micro_batch_tokens", [1, 20, 32, 1000])
def test_a_micro_batch_holds_no_more_tokens_than_allowed_or_a_single_row(micro_batch_tokens):
    batches = pack(sequences(), micro_batch_tokens)
    for batch in batches:
        assert batch.input_ids.numel() <= micro_batch_tokens or batch.input_ids.shape[0] == 1
    tokens = sum(int((batch.segments > 0).sum()) for batch in batches)
    assert tokens == sum(a + b for a, b in LENGTHS)


def test_short_sequences_share_rows_as_wide_as_the_longest():
    batch = pack(sequences(), 1000)[0]
    # 14, 14, 13, 9, 7, 7, 6, 5, 4, 2 tokens: first-fit decreasing into rows of 14.
    assert batch.input_ids.shape == (6, 14)
    assert sorted(batch.segments.max(dim=1).values.tolist()) == [1, 1, 1, 2, 2, 3]


def test_positions_begin_anew_in_every_sequence():
    two = [TrainSequence((1, 2), (3,), (-0.5,), 1.0), TrainSequence((4,), (5,), (-0.25,), 2.0)]
    batch = _to_tensors([two, two[:1]])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 0, 0]]
    assert batch.segments.tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 0, 0]]
    assert batch.predicts.int().tolist() == [[0, 1, 0, 1, 0], [0, 1, 0, 0, 0]]
    assert batch.targets.tolist() == [3, 5, 3]
    assert batch.advantages.tolist() == [1.0, 2.0, 1.0]
    assert batch.sequence_ids.tolist() == [0, 1, 2]
    assert batch.num_sequences == 3
    whole = (batch.input_ids, batch.position_ids, batch.segments, batch.targets, batch.sequence_ids)
    assert {tensor.dtype for tensor in whole} == {torch.int64}
    assert (batch.sampler_logprobs.dtype, batch.advantages.dtype) == (torch.float32, torch.float32)


def test_numbers_are_float32_whatever_torchs_default():
    torch.set_default_dtype(torch.float64)
    try:
        batch = pack(sequences(), 1000)[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert (batch.sampler_logprobs.dtype, batch.advantages.dtype) == (torch.float32, torch.float32)


def test_loss_tokens_carry_their_sequence_and_an_empty_sequence_counts():
    long, empty = (
        TrainSequence((1,), (2, 3), (-0.5, -0.5), 1.0),
        TrainSequence((4, 5), (), (), 1.0),
    )
    batch = _to_tensors([[long, empty], [long]])
    assert batch.sequence_ids.tolist() == [0, 0, 2, 2]
    assert batch.num_sequences == 3


def test_a_masked_rollout_counts_in_its_group_but_is_not_learnt_from():
    def rollout(token: int, *finishes: str) -> Rollout:
        turns = [Turn((1,), (token,), (-0.5,), "", finish, ((0, 1),)) for finish in finishes]
        return Rollout("p", tuple(turns))

    rollouts = (
        rollout(2, "end"),
        rollout(3, "step_end", "length"),  # both of its turns go
        rollout(4, "length", "end"),  # its last turn ended by itself
    )
    verdicts = (Verdict(1.0), Verdict(0.0), Verdict(0.5))
    group = RolloutGroup(Problem("p", ""), rollouts, verdicts)

    def tokens_and_advantages(truncation: str) -> list[tuple[int, float]]:
        sequences = to_sequences([group], "dr_grpo", truncation)
        return [(s.token_ids[0], s.advantage) for s in sequences]

    assert tokens_and_advantages("mask") == [(2, 0.5), (4, 0.0), (4, 0.0)]
    kept = [(2, 0.5), (3, -0.5), (3, -0.5), (4, 0.0), (4, 0.0)]
    assert tokens_and_advantages("keep") == kept
    assert to_sequences([group], "dr_grpo") == to_sequences([group], "dr_grpo", "keep")


def test_the_mask_is_causal_and_keeps_sequences_and_padding_apart():
    mask = attention_mask(torch.tensor([[1, 1, 2, 0, 0]]))
    assert mask.shape == (1, 1, 5, 5)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


def test_the_mask_is_made_where_the_segments_are():
    assert attention_mask(torch.ones(1, 3, dtype=torch.int64, device="meta")).device.type == "meta"


def test_the_empty_batch_has_no_loss_tokens_and_a_gradient_of_zero(policy):
    batch = empty_batch()
    assert batch.input_ids.shape == (1, 2)
    assert batch.num_sequences == 0
    assert not batch.predicts.any()
    assert (batch.targets.dtype, batch.sequence_ids.dtype) == (torch.int64, torch.int64)
    assert len(batch.targets) == len(batch.advantages) == len(batch.sampler_logprobs) == 0
    policy.zero_grad()
    run(policy, batch)[0].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in policy.parameters())


def test_a_batch_and_its_sequences_are_frozen():
    sequence = sequences()[0]
    with pytest.raises(FrozenInstanceError):
        sequence.advantage = 1.0
    with pytest.raises(FrozenInstanceError):
        pack([sequence], 100)[0].num_sequences = 0


def test_packing_nothing_gives_nothing():
    assert pack([], 100) == []


def test_all_turns_of_a_rollout_carry_its_advantage_and_unscored_rollouts_are_left_out():
    def turn(token: int) -> Turn:
        return Turn((1,), (token,), (-0.5,), "", "end", ((0, 1),))

    rollouts = (
        Rollout("p", (turn(2), turn(3))),
        Rollout("p", (turn(4),)),
        Rollout("p", (turn(5),)),
    )
    group = RolloutGroup(Problem("p", ""), rollouts, (Verdict(1.0), None, Verdict(0.0)))
    found = [(s.token_ids, s.advantage) for s in to_sequences([group], "dr_grpo")]
    assert found == [((2,), 0.5), ((3,), 0.5), ((5,), -0.5)]
    assert to_sequences([group], "rloo")[0].advantage == 1.0
