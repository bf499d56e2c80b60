"""DynamicExampleGenerator: expert solutions where the policy needs them.

    rows -> without duplicates, held-out rows and what lies outside the learnable band
         -> shares per skill -> the orchestrator asks the teacher, or the solver writes
         -> accepted rows with provenance

Shares are uniform over skills unless `weakness` is asked for; `benchmarks/generation` compares.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from train.data import Row
from train.experts.allocation import allocate, weights
from train.experts.collected import Asked, Collected
from train.experts.duplicates import DuplicateIndex, common_shingles
from train.experts.families import Solution
from train.experts.outcomes import Outcomes
from train.experts.source import TrajectorySource
from train.experts.teachers import TokenPrice
from train.experts.weakness import Standing, named_skills, standings
from train.spec import AllocationMode

MOST_SAMPLES = 8  # the k of pass@k, or fewer where fewer were drawn
MIN_BAND_SAMPLES = 4  # of a row, before its pass rate says that it is too easy or too hard


@dataclass
class Generated:
    """What came of one call. asked = accepted + rejected + dropped, as the orchestrator counts."""

    mode: AllocationMode
    planned: dict[str, int]  # examples by skill
    left_out: dict[str, int]  # rows that were not to be asked, by reason
    standings: dict[str, Standing]
    asked: list[Asked] = field(default_factory=list)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)  # by row id, accepted rows
    stopped: str | None = None  # why the rest was not asked
    writer: str = "the teacher"  # as a sentence begins with it

    @property
    def collected(self) -> Collected:
        """All that was asked, the accepted ones with their whole provenance."""
        told = [
            replace(one, provenance=self.provenance.get(one.row_id, one.provenance))
            for one in self.asked
        ]
        return Collected(told, self.stopped, self.left_out, self.writer)

    @property
    def solutions(self) -> dict[str, Solution]:
        """The accepted ones, by row id."""
        return self.collected.solutions


class DynamicExampleGenerator:
    """Chooses rows, has them solved, and says of each where it comes from."""

    def __init__(
        self,
        source: TrajectorySource,
        *,
        mode: AllocationMode = "uniform",
        price: TokenPrice | None = None,
        seed: int = 0,
        ask_unsolved: bool = True,
    ) -> None:
        """`ask_unsolved`: also ask for rows that the policy never solves, from which SRL learns.

        RLVR alone learns nothing from them.
        """
        self._mode: AllocationMode = mode
        self._source = source
        self._price, self._seed, self._ask_unsolved = price, seed, ask_unsolved

    def generate(
        self,
        rows: Sequence[Row],
        count: int,
        *,
        outcomes: Outcomes | None = None,
        held_out: Sequence[Row] = (),
        journal: Path | None = None,
        tell: Callable[[Generated], None] | None = None,
        deadline_s: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Generated:
        """Have at most `count` of `rows` solved; rows with steps count as the set that is there.

        `outcomes` are the policy's on `rows`: without them there is no band, and `weakness` shares
        as `uniform` does. `journal` keeps over a kill what is known, and the same call goes
        on there; skills after the first have a file of their own beside it. `tell` hears of every
        answer; what it raises ends the call. After `deadline_s`, or
        when `cancelled` says True, nothing more is asked.
        """
        ends_s = None if deadline_s is None else time.monotonic() + deadline_s
        known = outcomes or Outcomes()
        most = max((one.num_samples for one in known.by_row.values()), default=0)
        found = standings(rows, known, k=min(MOST_SAMPLES, most) or MOST_SAMPLES)
        chosen, left_out = candidates(
            rows, held_out, known, self._seed, ask_unsolved=self._ask_unsolved
        )
        groups = by_weakest_skill(chosen, found)
        available = {skill: len(members) for skill, members in groups.items()}
        planned = allocate(count, available, weights(available, found, self._mode))
        made = Generated(self._mode, planned, left_out, found)
        for number, skill in enumerate(sorted(groups)):
            file = journal and beside(journal, number)
            self._ask(made, skill, groups[skill], planned[skill], file, tell, ends_s, cancelled)
        missing = min(count, len(chosen)) - len(made.solutions)
        asked = {one.row_id for one in made.asked}
        if rest := [row for row in chosen if row.id not in asked]:
            # Some skill ran out of rows that the teacher can solve: the others make up for it.
            file = journal and beside(journal, len(groups))
            self._ask(made, None, rest, missing, file, tell, ends_s, cancelled)
        self._trace(made, chosen, known)
        return made

    def _ask(
        self,
        made: Generated,
        skill: str | None,
        rows: Sequence[Row],
        count: int,
        journal: Path | None,
        tell: Callable[[Generated], None] | None,
        ends_s: float | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        if count <= 0 or made.stopped:
            return
        left_s = None if ends_s is None else max(0.0, ends_s - time.monotonic())
        before = list(made.asked)

        def heard(collected: Collected) -> None:
            made.asked = before + collected.asked
            if tell is not None:
                tell(made)

        collected = self._source.collect(rows, count, journal, heard, left_s, cancelled)
        made.asked, made.stopped = before + collected.asked, collected.stopped
        made.writer = collected.writer
        for one in collected.asked:
            if one.solution is not None:
                made.provenance[one.row_id] = {
                    **one.provenance,
                    "verdict": "accepted",
                    "cost": self._price
                    and self._price.cost(one.prompt_tokens, one.completion_tokens),
                    "asked_for": skill,
                }

    def _trace(self, made: Generated, rows: Sequence[Row], outcomes: Outcomes) -> None:
        by_id = {row.id: row for row in rows}
        for row_id, told in made.provenance.items():
            one = outcomes.by_row.get(row_id)
            told["skills"] = list(named_skills(by_id[row_id]))
            told["policy_pass_rate"] = one.pass_rate if one and one.num_samples else None
            told["allocation"] = self._mode


def candidates(
    rows: Sequence[Row],
    held_out: Sequence[Row],
    outcomes: Outcomes,
    seed: int,
    *,
    ask_unsolved: bool = True,
) -> tuple[list[Row], dict[str, int]]:
    """The rows to choose from, in an order that the seed fixes; why others are none of them."""
    kept, left_out = [], Counter()
    common = common_shingles(row.problem_text for row in (*rows, *held_out))
    hidden = DuplicateIndex((row.problem_text for row in held_out), common)
    seen = DuplicateIndex((row.problem_text for row in rows if row.expert_steps), common)
    order = [row for row in rows if not row.expert_steps]
    random.Random(seed).shuffle(order)
    for row in order:
        if kind := hidden.find(row.problem_text):
            left_out[f"held out ({kind})"] += 1
        elif kind := seen.find(row.problem_text):
            left_out[f"duplicate ({kind})"] += 1
        elif reason := outside_band(row, outcomes, ask_unsolved=ask_unsolved):
            left_out[reason] += 1
        else:
            kept.append(row)
            seen.add(row.problem_text)
    return kept, dict(left_out)


def beside(journal: Path, number: int) -> Path:
    """The file of the group at `number`, from 0: of the first one, `journal` itself."""
    return journal.with_name(f"{journal.stem}-{number}{journal.suffix}") if number else journal


def outside_band(row: Row, outcomes: Outcomes, *, ask_unsolved: bool = True) -> str | None:
    """Why the policy has nothing to learn from the row now; None: it may have.

    Only MIN_BAND_SAMPLES samples or more say so. A row that was solved never is left in with
    `ask_unsolved`, and where its steps were rewarded in part: SRL learns from such rows.
    """
    one = outcomes.by_row.get(row.id)
    if one is None or one.num_samples < MIN_BAND_SAMPLES:
        return None
    if one.num_solved == one.num_samples:
        return "too easy (always solved)"
    rewarded = one.step_reward is not None and one.step_reward > 0
    if one.num_solved == 0 and not (ask_unsolved or rewarded):
        return "too hard (never solved)"
    return None


def by_weakest_skill(rows: Sequence[Row], known: Mapping[str, Standing]) -> dict[str, list[Row]]:
    """Each row under one of its skills: the one with the lowest pass rate, of equals the first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        skills = named_skills(row)
        rates = [known[skill].pass_rate if skill in known else 1.0 for skill in skills]
        groups.setdefault(skills[rates.index(min(rates))], []).append(row)
    return groups
