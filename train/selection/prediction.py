"""Seconds and money of work that was counted, from work that was measured; the Pareto front.

seconds = a * FLOPs + b * tokens + c * steps, with a, b, c >= 0, fitted for each phase (sampling,
training) to the least sum of squared *relative* errors: a long job must not drown a short one.
Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

SECONDS_PER_HOUR = 3600
MILLION = 1_000_000


@dataclass(frozen=True)
class Run:
    """A phase of a job as measured."""

    flops: float
    tokens: float
    steps: float
    seconds: float


@dataclass(frozen=True)
class TimeModel:
    """Seconds of a phase."""

    per_flop: float
    per_token: float
    per_step: float
    num_runs: int  # that it was fitted on

    def seconds(self, flops: float, tokens: float, steps: float) -> float:
        """Predicted seconds on the device that the runs were measured on."""
        return self.per_flop * flops + self.per_token * tokens + self.per_step * steps


def fit(runs: Sequence[Run]) -> TimeModel:
    """Fit the time model. Raises ValueError without runs, or for a run that took no time."""
    if not runs or any(run.seconds <= 0 for run in runs):
        raise ValueError("a time model needs at least one run, each of more than 0 seconds")
    values = np.array([[run.flops, run.tokens, run.steps] for run in runs], dtype=float)  # [R, 3]
    relative = values / np.array([[run.seconds] for run in runs])
    scale = relative.max(axis=0)  # operations are 1e9 times the steps: alike for the solver
    usable = [i for i in range(3) if scale[i] > 0]
    best, least = np.zeros(3), float("inf")
    # Three columns have seven subsets: the least squares of each give the exact optimum.
    for size in range(1, len(usable) + 1):
        for columns in combinations(usable, size):
            part = relative[:, columns] / scale[list(columns)]
            found, _, rank, _ = np.linalg.lstsq(part, np.ones(len(runs)), rcond=None)
            error = float(((part @ found - 1) ** 2).sum())
            # A part that the runs cannot tell from another is left out; the smaller set wins ties.
            if rank == size and (found >= 0).all() and error < least - 1e-12:
                least, best = error, np.zeros(3)
                best[list(columns)] = found / scale[list(columns)]
    return TimeModel(*(float(value) for value in best), num_runs=len(runs))


def device_price(seconds: float, num_devices: float, price_per_hour: float) -> float:
    """Money for devices held for so long."""
    return seconds / SECONDS_PER_HOUR * num_devices * price_per_hour


def serving_price_per_million(tokens_per_s: float, price_per_hour: float) -> float:
    """Money for a million generated tokens of a device that is busy. Raises ValueError at 0."""
    if tokens_per_s <= 0:
        raise ValueError(f"tokens_per_s is {tokens_per_s}; it must be above 0")
    return price_per_hour / (tokens_per_s * SECONDS_PER_HOUR) * MILLION


@dataclass(frozen=True)
class Point:
    """A candidate's benefit and cost."""

    name: str
    benefit: float  # larger is better
    cost: float  # smaller is better


def pareto_front(points: Sequence[Point]) -> tuple[list[str], dict[str, str]]:
    """(names that nothing beats, cheapest first; of every other one what beats it)."""
    front: list[Point] = []
    losers: dict[str, str] = {}
    for point in sorted(points, key=lambda p: (p.cost, -p.benefit, p.name)):
        better = [p for p in points if _dominates(p, point)]
        if not better:
            front.append(point)
            continue
        best = max(better, key=lambda p: (p.benefit, -p.cost))
        losers[point.name] = (
            f"{best.name} has a benefit of {best.benefit:.3g} against {point.benefit:.3g}, "
            f"at a cost of {best.cost:.3g} against {point.cost:.3g}"
        )
    return [point.name for point in front], losers


def _dominates(one: Point, other: Point) -> bool:
    no_worse = one.benefit >= other.benefit and one.cost <= other.cost
    return no_worse and (one.benefit > other.benefit or one.cost < other.cost)
