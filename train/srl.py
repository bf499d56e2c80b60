"""SRL: an expert solution of N steps becomes N one-step problems (arXiv 2510.25992, section 3)."""

from collections.abc import Sequence

from rollout.types import Problem
from rollout.verifiers.step_similarity import StepSimilarityVerifier
from train.data import Row
from train.prompts import PromptRenderer
from train.spec import SRLSpec


def srl_problems(rows: Sequence[Row], renderer: PromptRenderer, spec: SRLSpec) -> list[Problem]:
    """Return one problem per target step: context x + step_1..step_(k-1), target step_k.

    `targets="all"` makes N problems, the last of which teaches the policy to end its turn;
    `"all_but_last"` makes the paper's N-1. With `title_context` a step "Title: text" puts its
    title into the prompt and leaves the text as the target.
    """
    problems = []
    for row in rows:
        steps = row.expert_steps
        last = len(steps) - 1
        for k, step in enumerate(steps):
            if k == last and spec.targets == "all_but_last":
                continue
            title, body = row.titled_step(k) if spec.title_context else (None, step)
            problems.append(
                Problem(
                    id=f"{row.id}/step-{k + 1}",
                    prompt=renderer.render(row, steps[:k], title),
                    expert_step=body,
                    expert_step_is_last=k == last,
                )
            )
    return problems


def srl_verifier(spec: SRLSpec) -> StepSimilarityVerifier:
    """SRL's reward."""
    return StepSimilarityVerifier(autojunk=spec.autojunk)
