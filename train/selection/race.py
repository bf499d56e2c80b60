"""Successive halving over models: all are looked at briefly, the promising ones closely.

A model is left behind when the intervals leave no doubt, or when it is in the worse half of those
that look alike; what it was measured by then stays in the answer. So a poor candidate costs a
fraction of a full look. Pure: measuring is the caller's.
"""

from collections.abc import Callable, Sequence
from typing import Any

from train.selection.ranking import Candidate, pareto_front, rank, surely_worse, why_not

FIRST_SHARE, FEWEST = 8, 8  # of the problems in the first round; never fewer than so many

Look = Callable[[str, int], Candidate]  # (model, number of problems) -> what was seen


def rounds(num_problems: int) -> list[int]:
    """Problems a model is measured on in each round: doubling, the last one on all."""
    sizes, size = [], max(FEWEST, num_problems // FIRST_SHARE)
    while size < num_problems:
        sizes.append(size)
        size *= 2
    return [*sizes, num_problems]


def race(models: Sequence[str], look: Look, num_problems: int) -> list[Candidate]:
    """Look at every model, and closer at those that may still win; best first."""
    standing, settled = list(models), []
    for size in rounds(num_problems) if len(models) > 1 else [num_problems]:
        seen = rank([look(model, size) for model in standing])
        measured = [c for c in seen if c.measured is not None]
        settled = [c for c in settled if c.model_id not in standing] + seen
        if not measured:
            break
        best = measured[0].measured
        assert best is not None, "it was measured"
        keep = max(2, (len(measured) + 1) // 2)
        standing = [
            c.model_id
            for c in measured[:keep]
            if c.measured is not None and not surely_worse(c.measured, best)
        ]
        if len(standing) == 1:
            break
    return _final_order(settled, standing)


def _final_order(settled: list[Candidate], standing: list[str]) -> list[Candidate]:
    """Those that were looked at longest come first: a short look may have been lucky."""
    last = rank([c for c in settled if c.model_id in standing])
    return last + rank([c for c in settled if c.model_id not in standing])


def as_answer(ranked: Sequence[Candidate]) -> list[dict[str, Any]]:
    """The candidates as JSON values, with why each lost and who is on the Pareto front."""
    front = pareto_front(ranked)
    return [
        candidate.as_json()
        | {"reason": why_not(candidate, ranked[0]), "pareto": candidate.model_id in front}
        for candidate in ranked
    ]
