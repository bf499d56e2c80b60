"""Expert solutions for rows of known families, each verified before it is used.

A solution is kept when the grader calls it right; without a grader, when its answer is the row's
reference answer, where the row has one. What is rejected is dropped and counted.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rollout.steps import THINK_CLOSE, THINK_OPEN
from rollout.types import InferenceProtocol, Problem, Rollout, Turn, Verifier
from rollout.verifiers.answer import normalise_answer
from rollout.verifiers.base import passes
from train.data import Row
from train.experts.families import FAMILIES, Solution, solve

MAX_REASONS = 5  # of rejections, kept for a message


class UnknownFamilyError(ValueError):
    """No row is of a family that the solver knows."""


@dataclass
class Solved:
    """What the solver made of some rows."""

    solutions: dict[str, Solution] = field(default_factory=dict)  # by row id
    num_unknown: int = 0  # rows of no known family
    num_rejected: int = 0  # solutions that were not verified
    reasons: list[str] = field(default_factory=list)  # of the first rejections

    @property
    def families(self) -> dict[str, int]:
        """How many solutions each family wrote."""
        return dict(Counter(solution.family for solution in self.solutions.values()))

    def reject(self, row: Row, reason: str) -> None:
        """Count a solution that was not verified."""
        self.num_rejected += 1
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(f"line {row.line}: {reason}")

    def describe(self) -> str:
        """One sentence for people."""
        wrote = ", ".join(f"{count} of family {name}" for name, count in self.families.items())
        text = f"the solver wrote {len(self.solutions)} verified solutions ({wrote or 'none'})"
        if self.num_rejected:
            text += f"; {self.num_rejected} were rejected ({'; '.join(self.reasons)})"
        return text


def solve_rows(
    rows: Sequence[Row],
    count: int | None = None,
    *,
    grader: Verifier | None = None,
    protocol: InferenceProtocol = "stepwise",
    seed: int = 0,
) -> Solved:
    """Solve at most `count` rows, drawn in an order that the seed fixes; None: all of them.

    Raises UnknownFamilyError when no row is of a known family.
    """
    order = list(rows)
    if count is not None:
        random.Random(seed).shuffle(order)
    solved = Solved()
    for row in order:
        if count is not None and len(solved.solutions) >= count:
            break
        solution = solve(row.problem_text)
        if solution is None:
            solved.num_unknown += 1
        elif reason := fault(row, solution, grader, protocol):
            solved.reject(row, reason)
        else:
            solved.solutions[row.id] = solution
    if not solved.solutions and not solved.num_rejected:
        raise UnknownFamilyError(
            f"no problem is of a family that the solver knows ({', '.join(FAMILIES)}): give rows "
            "`expert_steps`, or `reference_answer` to train without them"
        )
    return solved


def fault(
    row: Row, solution: Solution, grader: Verifier | None, protocol: InferenceProtocol
) -> str | None:
    """Why a solution must not be used; None when it is verified."""
    reference = row.reference_answer
    if grader is None:  # nobody else to say that 0.5 is as good as 1/2: the text must agree
        if reference is None or normalise_answer(reference) == normalise_answer(solution.answer):
            return None
        return f"its answer {solution.answer!r} is not the reference answer {reference!r}"
    problem = Problem(
        row.id, row.problem_text, reference_answer=reference or solution.answer, item=row.item
    )
    try:
        verdict = grader.verify(problem, as_rollout(row.id, solution, protocol))
    except Exception as error:
        # Acceptable: a user's grader may fail in any way; the solution is dropped and counted.
        return f"the grader failed: {error}"
    if not passes(grader, verdict.reward):
        return f"the grader gives {solution.steps[-1]!r} only {verdict.reward:g}"
    return None


def as_rollout(row_id: str, solution: Solution, protocol: InferenceProtocol) -> Rollout:
    """The solution as a policy would have written it; without tokens."""
    thoughts = solution.thoughts or ("",) * len(solution.steps)
    texts = [
        f"{THINK_OPEN}{thought}{THINK_CLOSE}{step}"
        for thought, step in zip(thoughts, solution.steps, strict=True)
    ]
    if protocol == "single":
        texts = ["\n".join(texts)]
    last = len(texts) - 1
    turns = tuple(
        Turn((), (), (), text, "end" if k == last else "step_end", ())
        for k, text in enumerate(texts)
    )
    return Rollout(row_id, turns)


def with_solution(row: Row, solution: Solution, *, steps: bool = True) -> Row:
    """The row with the solution's steps where it has none, and with the solver's answer likewise.

    A teacher's answer becomes no reference answer: a grader that needs none may not have read it.
    """
    extra: dict[str, Any] = {}
    if row.reference_answer is None and solution.family in FAMILIES:
        extra["reference_answer"] = solution.answer
    if steps and not row.expert_steps:
        extra["expert_steps"] = solution.steps
        if solution.thoughts:
            extra["expert_thoughts"] = solution.thoughts
    item = row.item | {k: list(v) if isinstance(v, tuple) else v for k, v in extra.items()}
    return replace(row, **extra, item=item)
