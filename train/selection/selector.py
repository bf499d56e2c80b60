"""Chooses among models: limits, then measured benefit by halving, then the Pareto front.

What measures is handed in, so that the choice itself needs no engine.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from train.selection.catalogue import Entry, Limits, Removed, within_limits
from train.selection.halving import Halved, ProbeError, Seen, halve
from train.selection.prediction import Point, pareto_front
from train.selection.ranking import Candidate, Measurement, combine
from train.selection.srl_probe import SRLGain

# probe(name, first, last) -> the measurement of problems [first, last)
Probe = Callable[[str, int, int], Measurement]
# srl_probe(name) -> what a short SRL run did; None where no row allows one. Raises ProbeError.
SRLProbe = Callable[[str], SRLGain | None]


@dataclass(frozen=True)
class Choice:
    """Every candidate, best first, those that a limit removed last; and what choosing took."""

    candidates: tuple[Candidate, ...]
    halved: Halved

    def cost_json(self) -> dict[str, Any]:
        """What the selection took, for the answer; the share is of halving, without SRL probes."""
        found = self.halved
        gains = [one.gain for one in self.candidates if one.gain is not None]
        return {
            "told_apart": found.told_apart,
            "seconds": round(found.seconds + sum(gain.seconds for gain in gains), 1),
            "flops": float(f"{found.flops:.4g}"),
            "srl_probe_flops": float(f"{sum(gain.flops for gain in gains):.4g}"),
            "full_evaluation_flops": float(f"{found.full_flops:.4g}"),
            "share_of_full_evaluation": round(found.share_of_flops, 4),
        }


class DynamicModelSelector:
    """Ranks catalogue entries on a user's problems."""

    def __init__(self, entries: Sequence[Entry], limits: Limits) -> None:
        """Raises NoCandidateError when the limits leave none."""
        self.entries, self.removed = within_limits(entries, limits)
        self.sizes = {entry.name: entry.num_parameters for entry in entries}

    def choose(
        self,
        probe: Probe,
        *,
        num_problems: int,
        k: int,
        among: Collection[str] | None = None,
        srl_probe: SRLProbe | None = None,
    ) -> Choice:
        """Measure the candidates that are left, or those of them in `among`, and rank them.

        Where no candidate solves any problem, those that went through every round are trained by
        `srl_probe`, and the reward of their steps after it comes first.
        A candidate whose probe raises ProbeError is left out with its reason. Raises
        NothingMeasuredError when every one does.
        """
        names = [e.name for e in self.entries if among is None or e.name in among]
        parts: dict[str, list[Measurement]] = {name: [] for name in names}

        def measure(name: str, first: int, last: int) -> Seen:
            part = probe(name, first, last)
            parts[name].append(part)
            flops = part.flops_per_problem * part.num_problems
            return Seen(part.solved, flops, part.seconds, part.step_rewards)

        halved = halve(names, measure, num_problems=num_problems, k=k)
        ranked = [
            Candidate(
                s.name,
                self.sizes[s.name],
                combine(parts[s.name]),
                interval=s.interval,
                lost=s.left,
            )
            for s in halved.ranking
        ]
        if srl_probe is not None and not any(s.pass_at_k for s in halved.ranking):
            ranked = _by_gain(ranked, srl_probe)
        removed = [self._left_out(one) for one in self.removed]
        failed = [
            Candidate(name, self.sizes[name], reason=f"not measured: {why}")
            for name, why in halved.failures.items()
        ]
        return Choice((*_with_losses(ranked), *failed, *removed), halved)

    def _left_out(self, one: Removed) -> Candidate:
        return Candidate(one.name, self.sizes[one.name], reason=f"left out: {one.reason}")


def _by_gain(ranked: Sequence[Candidate], srl_probe: SRLProbe) -> list[Candidate]:
    """Probe those that did not leave early; better trained steps first, then as they were."""
    probed, others = [], []
    for candidate in ranked:
        if candidate.lost is not None:
            others.append(candidate)
            continue
        try:
            gain = srl_probe(candidate.model_id)
        except ProbeError as error:
            # Acceptable: what was measured before stands; the answer says why it comes after.
            others.append(replace(candidate, lost=f"its SRL probe failed: {error}"))
            continue
        # Without a gain no row allows a probe, of whatever candidate: nothing to order by.
        probed.append((gain.after if gain else 0.0, replace(candidate, gain=gain)))
    ordered = sorted(probed, key=lambda one: one[0], reverse=True)
    return [*(candidate for _, candidate in ordered), *others]


def _with_losses(ranked: Sequence[Candidate]) -> list[Candidate]:
    """Say of each candidate that another beats by benefit and by counted work, which.

    Those that left early were measured on fewer problems, and are not compared.
    """
    points = [
        Point(
            c.model_id,
            c.gain.after if c.gain is not None else c.measured.pass_at_k,
            c.measured.flops_per_problem,
        )
        for c in ranked
        if c.measured is not None and c.lost is None
    ]
    _, losers = pareto_front(points)
    return [replace(c, lost=c.lost or losers.get(c.model_id)) for c in ranked]
