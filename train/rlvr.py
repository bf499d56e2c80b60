"""RLVR: whole problems, judged by the job's grader on the answer alone."""

from collections.abc import Sequence

from rollout.types import Problem
from train.data import Row
from train.prompts import PromptRenderer


def rlvr_problems(rows: Sequence[Row], renderer: PromptRenderer) -> list[Problem]:
    """Return one problem per row that has a reference answer. Also used to evaluate."""
    return [
        Problem(row.id, renderer.render(row), reference_answer=row.reference_answer, item=row.item)
        for row in rows
        if row.reference_answer is not None
    ]
