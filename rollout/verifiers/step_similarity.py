"""SRL's reward: how like the expert's step is the policy's step?"""

from typing import Literal

from cydifflib import SequenceMatcher  # pyright: ignore[reportAttributeAccessIssue]
from pydantic import BaseModel, ConfigDict

from rollout.steps import parse_step
from rollout.types import Problem, Rollout, Verdict

FORMAT_ERROR_REWARD = -1.0
# One character that no tokenizer decodes to. Appended to a step that ends the turn, on either
# side, it makes stopping part of the action: a step that stops too early, or too late, scores less.
END_OF_TURN = "\x04"


def step_similarity(step: str, expert: str, *, autojunk: bool = False) -> float:
    """Return r = 2M/T of `difflib.SequenceMatcher(None, step, expert)`, in [0, 1].

    M is the number of matched characters, T the length of both texts together. The arguments'
    order is fixed (policy first), because the ratio is not symmetric. `autojunk=True` is
    difflib's own default and what a careless implementation uses: from 200 characters on it
    treats frequent characters as junk, and the reward collapses.

    Source: arXiv 2510.25992, section 3; the matcher is cydifflib, difflib's algorithm in C++.
    """
    return SequenceMatcher(None, step, expert, autojunk=autojunk).ratio()


class StepSimilarityVerifier(BaseModel):
    """Scores a one-turn rollout against `problem.expert_step`; -1 when its form is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["step_similarity"] = "step_similarity"
    autojunk: bool = False

    def verify(self, problem: Problem, rollout: Rollout) -> Verdict:
        """Return the similarity. Raises ValueError when the problem has no expert step."""
        if problem.expert_step is None:
            raise ValueError(f"problem {problem.id} has no expert step to compare with")
        turn = rollout.turns[-1]
        step = parse_step(turn.text)
        if step is None:
            return Verdict(FORMAT_ERROR_REWARD, format_error=True)
        policy = step + END_OF_TURN * (turn.finish == "end")
        expert = problem.expert_step.strip() + END_OF_TURN * problem.expert_step_is_last
        return Verdict(
            step_similarity(policy, expert, autojunk=self.autojunk),
            details={"exact": float(policy == expert), "step_characters": float(len(step))},
        )
