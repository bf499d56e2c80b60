"""Successive halving: few problems for every candidate, more for those that do well on them.

Jamieson and Talwalkar, arXiv 1502.07943. What measures is handed in; benefit is pass@k of k
samples, so that a problem counts as solved or not and Wilson's interval holds. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from train.statistics import wilson_interval

FIRST_SHARE = 8  # the first round sees one in so many of the problems
MOST_SHARE = 1 / 3  # of the full evaluation's problems, over all candidates


@dataclass(frozen=True)
class Seen:
    """What measuring some problems showed and took."""

    solved: tuple[int, ...]  # of every problem's k samples
    flops: float
    seconds: float
    step_rewards: tuple[float, ...] = ()  # of single steps against the experts'

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(
            self.solved + other.solved,
            self.flops + other.flops,
            self.seconds + other.seconds,
            self.step_rewards + other.step_rewards,
        )


class ProbeError(RuntimeError):
    """A candidate could not be measured; the message says why. The others still are."""


class NothingMeasuredError(RuntimeError):
    """No candidate could be measured; `failures` says why, by name."""

    def __init__(self, failures: dict[str, str]) -> None:
        lines = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        super().__init__(f"no model can be measured: {lines}")
        self.failures = failures


# measure(name, first, last) -> what problems [first, last) showed; problems are in a fixed order.
# Raises ProbeError where the candidate is at fault.
Measure = Callable[[str, int, int], Seen]


@dataclass(frozen=True)
class Standing:
    """A candidate at the round in which it left, or at the end."""

    name: str
    seen: Seen
    k: int
    rounds: int
    left: str | None = None  # why it did not go on, while others did

    @property
    def pass_at_k(self) -> float:
        """Share of problems that one of k samples solves."""
        return fmean(count > 0 for count in self.seen.solved)

    @property
    def sampled(self) -> float:
        """Share of single samples that solve their problem."""
        return fmean(self.seen.solved) / self.k

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of `pass_at_k`."""
        return wilson_interval(sum(c > 0 for c in self.seen.solved), len(self.seen.solved))

    @property
    def order(self) -> tuple[int, float, float, float, float]:
        """Larger is better: rounds survived, pass@k, single samples, steps, then less work."""
        work = self.seen.flops / len(self.seen.solved)
        steps = fmean(self.seen.step_rewards) if self.seen.step_rewards else 0.0
        return (self.rounds, self.pass_at_k, self.sampled, steps, -work)


@dataclass(frozen=True)
class Halved:
    """The outcome; `ranking` is best first."""

    ranking: tuple[Standing, ...]
    told_apart: bool  # the best one's interval lies above every other's
    share_of_problems: float  # measured, of what a full evaluation measures
    flops: float
    full_flops: float  # of a full evaluation: estimated from each candidate's own mean
    seconds: float
    failures: dict[str, str]  # candidates that could not be measured, and why

    @property
    def share_of_flops(self) -> float:
        """Operations of the selection, of those of a full evaluation."""
        return self.flops / self.full_flops


def halve(
    names: Sequence[str],
    measure: Measure,
    *,
    num_problems: int,
    k: int,
    most_share: float = MOST_SHARE,
) -> Halved:
    """Rank the candidates. Raises ValueError for none, NothingMeasuredError when all of them fail.

    A candidate whose measurement fails is out, whatever it showed before. Rounds end when the best
    is told apart, when all problems are seen, or when the next round would take more than
    `most_share` of the full evaluation; the first round is always measured.
    """
    if not names:
        raise ValueError("there is no candidate to measure")
    full = len(names) * num_problems
    seen_to, spent = 0, 0
    target = max(1, num_problems // FIRST_SHARE)
    alive: list[Standing] = [Standing(name, Seen((), 0.0, 0.0), k, 0) for name in names]
    out: list[Standing] = []
    failures: dict[str, str] = {}
    wasted: list[Seen] = []  # what was measured of candidates before they failed
    while True:
        spent += len(alive) * (target - seen_to)
        going, alive = alive, []
        for s in going:
            try:
                seen = s.seen + measure(s.name, seen_to, target)
            except ProbeError as error:
                # Acceptable: the fault is this candidate's; the answer names it.
                failures[s.name] = str(error)
                wasted.append(s.seen)
                continue
            alive.append(Standing(s.name, seen, k, s.rounds + 1))
        if not alive:
            if not out:
                raise NothingMeasuredError(failures)
            # Those that went on failed, so that the last that left are the best there are.
            last = max(s.rounds for s in out)
            out = [replace(s, left=None) if s.rounds == last else s for s in out]
            break
        seen_to, target = target, min(num_problems, 2 * target)
        alive.sort(key=lambda s: s.order, reverse=True)
        if seen_to == num_problems or _told_apart(alive):
            break
        alive, left = _survivors(alive)
        following = spent + len(alive) * (target - seen_to)
        if following > most_share * full:
            alive += left
            break
        out += [replace(s, left=_why_left(s, alive)) for s in left]
    ranking = sorted([*alive, *out], key=lambda s: s.order, reverse=True)
    return Halved(
        ranking=tuple(ranking),
        told_apart=_told_apart(ranking),
        share_of_problems=spent / full,
        flops=sum(s.seen.flops for s in ranking) + sum(seen.flops for seen in wasted),
        full_flops=sum(s.seen.flops / len(s.seen.solved) * num_problems for s in ranking),
        seconds=sum(s.seen.seconds for s in ranking) + sum(seen.seconds for seen in wasted),
        failures=failures,
    )


def _survivors(ranked: list[Standing]) -> tuple[list[Standing], list[Standing]]:
    """The better half; never fewer than two, so that the best is compared to the end."""
    kept = max(2, (len(ranked) + 1) // 2)
    return ranked[:kept], ranked[kept:]


def _why_left(one: Standing, others: Sequence[Standing]) -> str:
    """What a candidate showed on the same problems as those that went on."""
    theirs = [other.pass_at_k for other in others]
    return (
        f"left after {len(one.seen.solved)} problems with pass@{one.k} {one.pass_at_k:.3g}; on "
        f"them the {len(theirs)} that went on had {min(theirs):.3g} to {max(theirs):.3g}"
    )


def _told_apart(ranked: Sequence[Standing]) -> bool:
    """True when every other's interval lies below the best's."""
    best, *others = ranked
    return all(other.interval[1] < best.interval[0] for other in others)
