"""From problems to a batch of groups that carry a learning signal.

`Collector` is a pure state machine: it says which problems to roll out next, is offered the
scored groups, and hands over a batch. It starts no process and samples nothing, so its whole
state is a small snapshot that a checkpoint holds. `collect_batch` drives it with real samplers.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import pstdev
from typing import Any

from rollout.types import GenerateFn, Problem, RolloutGroup, SamplingSpec, ScoreFn

# Of a group's rollouts, the share that must have a verdict for the group to be used.
MIN_SCORED_SHARE = 0.5
# The first round asks for at most this many times the groups wanted, however few are kept.
MAX_OVERSAMPLING = 2.0
KEEP_RATE_MEMORY = 0.8  # weight of the past in the running share of groups kept


@dataclass
class CollectorCounters:
    """Totals since the stage began."""

    groups_sampled: int = 0
    groups_kept: int = 0
    groups_filtered: int = 0  # no learning signal: rewards too much alike
    groups_dropped: int = 0  # too few verdicts
    rollouts_dropped: int = 0  # without a verdict, in whatever group


class Collector:
    """Chooses problems in seeded epochs and keeps groups whose rewards differ.

    Dynamic sampling (arXiv 2503.14476, section 3.2; arXiv 2510.25992): a group is kept when the
    population standard deviation of its rewards exceeds `std_threshold`; rounds go on until
    `groups_per_batch` are kept or `max_rounds` are done. A batch may hold more groups than asked:
    what was sampled on-policy and carries a signal is not thrown away.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        *,
        groups_per_batch: int,
        std_threshold: float,
        max_rounds: int,
        seed: int,
    ) -> None:
        if not problems:
            raise ValueError("the collector was given no problems")
        self._problems = problems
        self._groups_per_batch = groups_per_batch
        self._std_threshold = std_threshold
        self._max_rounds = max_rounds
        self._seed = seed
        self._cursor = 0  # problems handed out since the beginning, over all epochs
        self._keep_rate = 1.0
        self._round = 0
        self._kept: list[RolloutGroup] = []
        self._order: tuple[int, list[int]] = (-1, [])
        self.counters = CollectorCounters()

    def next_problems(self) -> list[Problem]:
        """Return what to roll out in the next round; empty when the batch is ready."""
        missing = self._groups_per_batch - len(self._kept)
        if missing <= 0 or self._round >= self._max_rounds:
            return []
        self._round += 1
        factor = min(MAX_OVERSAMPLING, 1 / max(self._keep_rate, 1e-3))
        return [self._draw() for _ in range(round(missing * factor))]

    def offer(self, groups: Sequence[RolloutGroup]) -> None:
        """Take a round's scored groups; keep, filter or drop each."""
        kept = 0
        for group in groups:
            self.counters.groups_sampled += 1
            rewards = [verdict.reward for _, verdict in group.scored()]
            self.counters.rollouts_dropped += len(group.rollouts) - len(rewards)
            if len(rewards) < max(2, MIN_SCORED_SHARE * len(group.rollouts)):
                self.counters.groups_dropped += 1
            elif pstdev(rewards) > self._std_threshold:
                self._kept.append(group)
                kept += 1
            else:
                self.counters.groups_filtered += 1
        self.counters.groups_kept += kept
        if groups:
            past = self._keep_rate * KEEP_RATE_MEMORY
            self._keep_rate = past + (1 - KEEP_RATE_MEMORY) * kept / len(groups)

    def next_batch(self) -> list[RolloutGroup]:
        """Hand over the kept groups (possibly none) and begin the next batch."""
        batch, self._kept, self._round = self._kept, [], 0
        return batch

    def snapshot(self) -> dict[str, Any]:
        """The state between two batches, as JSON values."""
        if self._kept or self._round:
            raise RuntimeError("a snapshot was asked for in the middle of a batch")
        return {
            "cursor": self._cursor,
            "keep_rate": self._keep_rate,
            "counters": asdict(self.counters),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Continue from a snapshot: the same problems follow in the same order."""
        self._cursor = snapshot["cursor"]
        self._keep_rate = snapshot["keep_rate"]
        self.counters = CollectorCounters(**snapshot["counters"])
        self._kept, self._round = [], 0

    def _draw(self) -> Problem:
        epoch, position = divmod(self._cursor, len(self._problems))
        if self._order[0] != epoch:
            order = list(range(len(self._problems)))
            random.Random(f"{self._seed}/{epoch}").shuffle(order)
            self._order = (epoch, order)
        self._cursor += 1
        return self._problems[self._order[1][position]]


def collect_batch(
    collector: Collector,
    generate: GenerateFn,
    score: ScoreFn,
    *,
    group_size: int,
    sampling: SamplingSpec,
    seed: int,
    observe: Callable[[Sequence[RolloutGroup]], None] = lambda groups: None,
) -> list[RolloutGroup]:
    """Run rounds until the batch is ready. `observe` sees every scored group, kept or not.

    A rollout without a verdict is scored once more; if that fails too it stays without one.
    """
    round_number = 0
    while problems := collector.next_problems():
        rollouts = generate(problems, group_size, sampling, seed + round_number)
        groups = score_groups(problems, rollouts, score)
        observe(groups)
        collector.offer(groups)
        round_number += 1
    return collector.next_batch()


def score_groups(
    problems: Sequence[Problem], rollouts: Sequence[Sequence[Any]], score: ScoreFn
) -> list[RolloutGroup]:
    """Join problems, their rollouts and the verdicts into groups; re-ask once for missing ones."""
    pairs = [(p, r) for p, group in zip(problems, rollouts, strict=True) for r in group]
    verdicts = score(pairs)
    missing = [i for i, verdict in enumerate(verdicts) if verdict is None]
    if missing:
        for i, verdict in zip(missing, score([pairs[i] for i in missing]), strict=True):
            verdicts[i] = verdict
    flat = iter(verdicts)
    return [
        RolloutGroup(problem, tuple(group), tuple(next(flat) for _ in group))
        for problem, group in zip(problems, rollouts, strict=True)
    ]
