"""What a step says of itself: metrics of its groups, and its rollouts for people to read."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from rollout.types import RolloutGroup

ROLLOUTS_FOLDER = "rollouts"
MAX_LOGGED_GROUPS = 8  # of a step


def group_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float | None]:
    """Metrics of a step's scored groups, kept or filtered, in the names that TRL uses."""
    scored = [pair for group in groups for pair in group.scored()]
    if not scored:  # every verdict is missing: there is no reward, not a reward of 0
        return {
            "reward": None,
            "train_mean_reward": None,
            "completion_tokens_mean": None,
            "num_rollouts": 0,
        }
    rewards = [verdict.reward for _, verdict in scored]
    lengths = [rollout.num_tokens for rollout, _ in scored]
    stds = [pstdev([v.reward for _, v in g.scored()]) for g in groups if g.scored()]
    return {
        "reward": fmean(rewards),
        "train_mean_reward": fmean(rewards),
        "reward_std": fmean(stds),
        "format_error_rate": fmean(float(v.format_error) for _, v in scored),
        "completion_tokens_mean": fmean(lengths),
        "completions/mean_length": fmean(lengths),
        "completions/clipped_ratio": fmean(r.turns[-1].finish == "length" for r, _ in scored),
        "num_rollouts": len(scored),
        "num_tokens": sum(lengths),
        "staleness": 0.0,  # synchronous: every rollout is of the published policy
    }


def write_rollouts(out: Path, stage: str, step: int, groups: Sequence[RolloutGroup]) -> None:
    """Write the step's first groups to `out/rollouts/<stage>-<step>.jsonl`, a rollout a line.

    A step that is taken again replaces its file.
    """
    folder = out / ROLLOUTS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage}-{step:06d}.jsonl"
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in _records(groups)]
    hidden = path.with_name(f".{path.name}")
    hidden.write_text("".join(lines), encoding="utf-8")
    hidden.replace(path)


def forget_rollouts(out: Path, stage: str, step: int) -> None:
    """Remove the rollouts of the stage's steps after `step`: those will be taken again."""
    for path in (out / ROLLOUTS_FOLDER).glob(f"{stage}-*.jsonl"):
        if int(path.stem.rpartition("-")[2]) > step:
            path.unlink()


def _records(groups: Sequence[RolloutGroup]) -> Iterator[dict[str, Any]]:
    for group in groups[:MAX_LOGGED_GROUPS]:
        problem = group.problem
        for rollout, verdict in zip(group.rollouts, group.verdicts, strict=True):
            yield {
                "problem_id": problem.id,
                "prompt": problem.prompt,
                "turns": [turn.text for turn in rollout.turns],
                "finish": rollout.turns[-1].finish,
                "reward": verdict.reward if verdict else None,  # None: there is no verdict
                "format_error": verdict.format_error if verdict else None,
                "reference_answer": problem.reference_answer,
                "expert_step": problem.expert_step,
            }
