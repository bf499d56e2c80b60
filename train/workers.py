"""What the learner's workers tell each other, besides gradients."""

from typing import Any, TypeVar

import torch

from train import checkpoint
from train.batch import TrainSequence

T = TypeVar("T")


def same_everywhere(
    found: checkpoint.Checkpoint | None, world_size: int
) -> checkpoint.Checkpoint | None:
    """Rank 0's checkpoint in every worker: file systems may show them different ones."""
    chosen = of_rank_0(found, world_size)
    return checkpoint.load(chosen.path) if chosen is not None and world_size > 1 else chosen


def of_rank_0(value: T, world_size: int) -> T:
    """Rank 0's value, in every worker."""
    if world_size == 1:
        return value
    values: list[Any] = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def scatter(sequences: list[TrainSequence] | None, world_size: int) -> list[TrainSequence] | None:
    """Give every worker its share of rank 0's batch; None from rank 0 reaches all as None."""
    if world_size == 1:
        return sequences
    shares: list[Any] | None = None
    if torch.distributed.get_rank() == 0:
        shares = [
            None if sequences is None else sequences[rank::world_size] for rank in range(world_size)
        ]
    received: list[Any] = [None]
    torch.distributed.scatter_object_list(received, shares, src=0)
    return received[0]
