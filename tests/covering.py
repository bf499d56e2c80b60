"""Few combinations that hold every pair of values: all-pairs testing."""

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

CANDIDATES = 50  # rows tried for each one taken

Pair = tuple[tuple[str, Any], tuple[str, Any]]


def pairs_of(row: Mapping[str, Any]) -> set[Pair]:
    """The pairs of (factor, value) that a row holds."""
    return set(combinations(sorted(row.items()), 2))


def all_pairs(factors: Mapping[str, Sequence[Any]]) -> set[Pair]:
    """Every pair of values of two different factors."""
    return {
        ((a, x), (b, y))
        for a, b in combinations(sorted(factors), 2)
        for x in factors[a]
        for y in factors[b]
    }


def covering_rows(factors: Mapping[str, Sequence[Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Rows with one value per factor that together hold every pair.

    Greedy: each row begins with a pair that is still missing and is completed, in a random order of
    the factors, by the value that covers most; the best of CANDIDATES such rows is taken.
    """
    rng = random.Random(seed)
    missing, rows = all_pairs(factors), []
    while missing:
        begun = sorted(missing, key=repr)
        candidates = [
            _complete(dict(rng.choice(begun)), factors, missing, rng) for _ in range(CANDIDATES)
        ]
        best = max(candidates, key=lambda row: len(pairs_of(row) & missing))
        missing -= pairs_of(best)
        rows.append({name: best[name] for name in factors})
    return rows


def _complete(
    row: dict[str, Any],
    factors: Mapping[str, Sequence[Any]],
    missing: set[Pair],
    rng: random.Random,
) -> dict[str, Any]:
    left = [name for name in factors if name not in row]
    rng.shuffle(left)
    for name in left:
        values = list(factors[name])
        rng.shuffle(values)
        row[name] = max(values, key=lambda v: len(pairs_of(row | {name: v}) & missing))
    return row
