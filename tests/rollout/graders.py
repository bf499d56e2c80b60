"""Rollouts and problems for the tests of graders."""

from typing import Any

from rollout.types import FinishReason, Problem, Rollout, Turn


def rollout(*texts: str, finish: FinishReason = "end") -> Rollout:
    """A rollout whose turns have these texts; the last one finishes by `finish`."""
    reasons: list[FinishReason] = ["step_end"] * (len(texts) - 1) + [finish]
    turns = (
        Turn((1,), (2,), (-0.1,), text, reason, ((0, 1),))
        for text, reason in zip(texts, reasons, strict=True)
    )
    return Rollout("train:7", tuple(turns))


def problem(answer: str | None = None, /, **item: Any) -> Problem:
    """A problem with a reference answer and the row's own fields."""
    return Problem("train:7", "prompt", reference_answer=answer, item=item)
