"""The selector against a full evaluation: Kendall's tau, the top, and what each cost. Pure."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from benchmarks.selection.bank import K, measured
from train.selection.catalogue import Entry, Limits
from train.selection.selector import DynamicModelSelector


@dataclass(frozen=True)
class Selection:
    """One run of the selector, or a second full evaluation, against the full evaluation."""

    chosen: str
    tau: float  # Kendall's tau-b of the two orders
    regret: float  # pass@k that the full evaluation gives its best, less that of the one chosen
    share: float  # operations, of a full evaluation's
    told_apart: bool


def pass_at_k(cell: Mapping[str, Any]) -> float:
    """Of a whole draw."""
    return sum(count > 0 for count in cell["solved"]) / len(cell["solved"])


def full_scores(bank: Mapping[str, Sequence[Mapping[str, Any]]], draw: int = 0) -> dict[str, float]:
    """pass@k of every checkpoint on all problems."""
    return {name: pass_at_k(cells[draw]) for name, cells in bank.items()}


def select(bank: Mapping[str, Sequence[dict[str, Any]]], draw: int) -> Selection:
    """Run the selector on a draw, its problems in an order of its own."""
    cells = {name: draws[draw] for name, draws in bank.items()}
    num_problems = len(next(iter(cells.values()))["solved"])
    order = list(range(num_problems))
    random.Random(draw).shuffle(order)
    entries = [
        Entry(name=name, path=name, num_parameters=cell["num_parameters"])
        for name, cell in cells.items()
    ]
    choice = DynamicModelSelector(entries, Limits()).choose(
        lambda name, first, last: measured(cells[name], order, first, last),
        num_problems=num_problems,
        k=K,
    )
    ranked = [candidate.model_id for candidate in choice.candidates]
    scores = full_scores(bank)
    return Selection(
        chosen=ranked[0],
        tau=kendall_tau({name: -place for place, name in enumerate(ranked)}, scores),
        regret=max(scores.values()) - scores[ranked[0]],
        share=choice.halved.flops / sum(sum(cells[name]["mflops"]) * 1e6 for name in cells),
        told_apart=choice.halved.told_apart,
    )


def kendall_tau(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Kendall's tau-b of two scores of the same names; ties count in neither direction."""

    def sign(scores: Mapping[str, float], a: str, b: str) -> int:
        return (scores[a] > scores[b]) - (scores[a] < scores[b])

    pairs = [(sign(one, a, b), sign(other, a, b)) for a, b in combinations(one, 2)]
    untied = [sum(pair[side] != 0 for pair in pairs) for side in (0, 1)]
    return sum(x * y for x, y in pairs) / math.sqrt(untied[0] * untied[1])
