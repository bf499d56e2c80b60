"""Which checkpoints of a stage are kept: the best by validation reward, and the last."""

from typing import TypedDict

NUM_BEST = 3


class Validated(TypedDict):
    """A validated step. JSON values: checkpoints hold it."""

    step: int
    reward: float  # mean over validation rows


def rank(best: list[Validated], step: int, reward: float) -> list[Validated]:
    """Enter a validated step; return the NUM_BEST best, the best one first.

    Of two equals the later one is better: greedy decoding does not see how surely a policy samples
    what it has learnt, and that goes on rising after greedy accuracy has reached its top.
    """
    entered = [*best, Validated(step=step, reward=reward)]
    return sorted(entered, key=lambda v: (v["reward"], v["step"]), reverse=True)[:NUM_BEST]
