"""Batches: from scored groups to packed tensors.

Shape legend, used throughout `train/`: P problems (groups), G rollouts in a group, S training
sequences (one per turn), R rows of a micro-batch, T tokens in a row, N loss tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rollout.types import RolloutGroup
from train.advantages import ADVANTAGES
from train.spec import Truncation


@dataclass(frozen=True)
class TrainSequence:
    """One turn, ready to learn from: every sampled token carries the rollout's advantage."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]  # one per sampled token
    advantage: float

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass(frozen=True)
class MicroBatch:
    """Sequences packed into rows. Loss tokens are in row-major order."""

    input_ids: Tensor  # [R, T] int64
    position_ids: Tensor  # [R, T] int64, from 0 in every sequence
    segments: Tensor  # [R, T] int64, equal inside a sequence; 0 is padding
    predicts: Tensor  # [R, T] bool: the position whose next token is a loss token
    targets: Tensor  # [N] int64, the loss tokens
    sampler_logprobs: Tensor  # [N]
    advantages: Tensor  # [N]
    sequence_ids: Tensor  # [N] int64, from 0 in the micro-batch; no sequence is split between two
    num_sequences: int


def to_sequences(
    groups: Sequence[RolloutGroup], advantage: str, truncation: Truncation = "keep"
) -> list[TrainSequence]:
    """Flatten groups; one terminal reward gives one advantage to all turns of its rollout.

    Rollouts without a verdict are left out, and the group's mean and std are those of the rest.
    With `truncation="mask"` a rollout that was cut off by length counts in its group's mean and
    std, but is not learnt from (arXiv 2503.14476, overlong filtering).
    """
    sequences = []
    for group in groups:
        scored = group.scored()
        advantages_G = ADVANTAGES[advantage]([verdict.reward for _, verdict in scored])
        for (rollout, _), value in zip(scored, advantages_G, strict=True):
            if truncation == "mask" and rollout.turns[-1].finish == "length":
                continue
            sequences += [
                TrainSequence(turn.prompt_ids, turn.token_ids, turn.logprobs, value)
                for turn in rollout.turns
            ]
    return sequences


def pack(sequences: Sequence[TrainSequence], micro_batch_tokens: int) -> list[MicroBatch]:
    """Pack into micro-batches of at most `micro_batch_tokens` tokens, padding included.

    First-fit decreasing into rows as wide as the longest sequence; rows keep sequences apart by
    `segments`, so packing changes no result. A single longer row is a micro-batch of its own.
    """
    if not sequences:
        return []
    ordered = sorted(sequences, key=len, reverse=True)
    width = len(ordered[0])
    rows: list[list[TrainSequence]] = []
    room: list[int] = []
    for sequence in ordered:
        fits = next((i for i, left in enumerate(room) if left >= len(sequence)), None)
        if fits is None:
            rows.append([])
            room.append(width)
            fits = len(rows) - 1
        rows[fits].append(sequence)
        room[fits] -= len(sequence)
    rows_per_micro_batch = max(1, micro_batch_tokens // width)
    return [
        _to_tensors(rows[start : start + rows_per_micro_batch])
        for start in range(0, len(rows), rows_per_micro_batch)
    ]


def empty_batch() -> MicroBatch:
    """A micro-batch of two tokens that counts for nothing: its gradient is zero everywhere."""
    return replace(_to_tensors([[TrainSequence((0, 0), (), (), 0.0)]]), num_sequences=0)


def attention_mask(segments: Tensor) -> Tensor:
    """Block-diagonal causal mask `[R, 1, T, T]` (True: may attend) from `segments` `[R, T]`.

    Padding attends to padding, so that no row of the softmax is empty.
    """
    same = segments[:, :, None] == segments[:, None, :]
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return (same & causal)[:, None]


def _to_tensors(rows: Sequence[Sequence[TrainSequence]]) -> MicroBatch:
    width = max(sum(len(s) for s in row) for row in rows)
    shape = (len(rows), width)
    input_ids = torch.zeros(shape, dtype=torch.int64)
    position_ids = torch.zeros(shape, dtype=torch.int64)
    segments = torch.zeros(shape, dtype=torch.int64)
    predicts = torch.zeros(shape, dtype=torch.bool)
    targets: list[int] = []
    logprobs: list[float] = []
    advantages: list[float] = []
    sequence_ids: list[int] = []
    num_sequences = 0
    for r, row in enumerate(rows):
        start = 0
        for segment, s in enumerate(row, start=1):
            end = start + len(s)
            input_ids[r, start:end] = torch.tensor(s.prompt_ids + s.token_ids)
            position_ids[r, start:end] = torch.arange(len(s))
            segments[r, start:end] = segment
            predicts[r, start + len(s.prompt_ids) - 1 : end - 1] = True
            targets += s.token_ids
            logprobs += s.sampler_logprobs
            advantages += [s.advantage] * len(s.token_ids)
            sequence_ids += [num_sequences] * len(s.token_ids)
            num_sequences += 1
            start = end
    return MicroBatch(
        input_ids,
        position_ids,
        segments,
        predicts,
        torch.tensor(targets, dtype=torch.int64),
        torch.tensor(logprobs, dtype=torch.float32),
        torch.tensor(advantages, dtype=torch.float32),
        torch.tensor(sequence_ids, dtype=torch.int64),
        num_sequences,
    )
