"""Whether a solution may be used: the job's grader decides."""

import math
from collections.abc import Callable, Sequence

from rollout.types import InferenceProtocol, Problem, Verifier
from rollout.verifiers.answer import normalise_answer
from rollout.verifiers.base import passes
from train.data import Row
from train.experts.families import Solution
from train.experts.solver import as_rollout

# verify(row, solution) -> why it must not be used, None when it may. Raises NoVerdictError.
Verify = Callable[[Row, Solution], str | None]


class NoVerdictError(RuntimeError):
    """The verifier itself failed: nothing is known about the solution."""


def verifier_of(grader: Verifier | None, protocol: InferenceProtocol) -> Verify:
    """The job's grader decides; without one, the final answer's text must be the row's.

    The reasons never name the reference answer: who is told it can write a way to it.
    """

    def verify(row: Row, solution: Solution) -> str | None:
        reference = row.reference_answer
        if grader is None:
            if reference is None:
                raise NoVerdictError("the row has no reference_answer, and there is no grader")
            return None if agrees(row, solution) else f"the answer {solution.answer!r} is wrong"
        problem = Problem(row.id, row.problem_text, reference_answer=reference, item=row.item)
        try:
            verdict = grader.verify(problem, as_rollout(row.id, solution, protocol))
        except Exception as error:
            # A user's grader may fail in any way; that is no verdict, and counted as such.
            raise NoVerdictError(f"the grader failed: {error}") from error
        if not math.isfinite(verdict.reward):
            raise NoVerdictError(f"the grader returned {verdict.reward!r}, no finite number")
        if passes(grader, verdict.reward):
            return None
        if getattr(grader, "needs_reference_answer", False):
            return f"the answer {solution.answer!r} is wrong"
        return f"the checker gives {solution.answer!r} only {verdict.reward:g}"

    return verify


def verifiable(rows: Sequence[Row], grader: Verifier | None) -> list[Row]:
    """The rows on which `verifier_of(grader)` can tell right from wrong."""
    needs_answer = grader is None or getattr(grader, "needs_reference_answer", False)
    return [row for row in rows if row.reference_answer is not None or not needs_answer]


def agrees(row: Row, solution: Solution) -> bool:
    """True when the row has a reference answer and the solution's reads the same."""
    reference = row.reference_answer
    return reference is not None and normalise_answer(reference) == normalise_answer(
        solution.answer
    )
