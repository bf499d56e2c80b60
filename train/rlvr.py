"""RLVR: whole problems, judged by the job's grader on the answer alone."""

from collections.abc import Sequence

from rollout.types import Problem, Verifier
from train.data import Row
from train.prompts import PromptRenderer


def rlvr_problems(rows: Sequence[Row], renderer: PromptRenderer, grader: Verifier) -> list[Problem]:
    """Return one problem per row that the grader can judge. Also used to evaluate.

    A grader that compares with `reference_answer` leaves out the rows that have none.
    """
    needs_answer = getattr(grader, "needs_reference_answer", False)
    return [
        Problem(row.id, renderer.render(row), reference_answer=row.reference_answer, item=row.item)
        for row in rows
        if row.reference_answer is not None or not needs_answer
    ]
