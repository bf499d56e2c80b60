"""A step's groups as figures, and its rollouts as a file for people."""

import json

import pytest

from rollout.types import Problem, Rollout, RolloutGroup, Turn, Verdict
from train.step_metrics import (
    MAX_LOGGED_GROUPS,
    forget_rollouts,
    group_metrics,
    write_rollouts,
)


def turn(text: str, num_tokens: int = 2, finish="end") -> Turn:
    ids = tuple(range(num_tokens))
    return Turn((1,), ids, (-0.5,) * num_tokens, text, finish, ((0, num_tokens),))


def group(number: int, *rewards: float | None) -> RolloutGroup:
    """A group of two-turn rollouts; None: no verdict."""
    problem = Problem(f"train:{number}", f"prompt {number}", reference_answer="4", expert_step="e")
    rollouts = tuple(
        Rollout(problem.id, (turn("a", 3, "step_end"), turn(f"é{k}"))) for k in range(len(rewards))
    )
    verdicts = tuple(None if r is None else Verdict(r, format_error=r < 0) for r in rewards)
    return RolloutGroup(problem, rollouts, verdicts)


def logged(folder, name):
    lines = (folder / "rollouts" / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_steps_metrics_are_means_over_its_scored_rollouts():
    metrics = group_metrics([group(1, 0.0, 1.0), group(2, -1.0, None)])
    assert metrics["train_mean_reward"] == metrics["reward"] == 0.0
    assert metrics["reward_std"] == pytest.approx(0.25)
    assert metrics["format_error_rate"] == pytest.approx(1 / 3)
    assert metrics["completion_tokens_mean"] == 5.0
    assert (metrics["num_rollouts"], metrics["num_tokens"]) == (3, 15)


def test_without_any_verdict_there_is_no_reward_rather_than_one_of_0():
    metrics = group_metrics([group(1, None, None)])
    assert metrics["train_mean_reward"] is None
    assert metrics["completion_tokens_mean"] is None
    assert metrics["num_rollouts"] == 0


def test_every_rollout_of_a_logged_group_is_a_line_with_its_texts_and_its_verdict(tmp_path):
    write_rollouts(tmp_path, "srl", 7, [group(1, 0.5, None)])
    first, second = logged(tmp_path, "srl-000007.jsonl")
    assert first == {
        "problem_id": "train:1",
        "prompt": "prompt 1",
        "turns": ["a", "é0"],
        "finish": "end",
        "reward": 0.5,
        "format_error": False,
        "reference_answer": "4",
        "expert_step": "e",
    }
    assert (second["turns"], second["reward"]) == (["a", "é1"], None)


def test_a_large_step_is_logged_up_to_its_bound(tmp_path):
    write_rollouts(tmp_path, "rlvr", 1, [group(n, 0.0, 1.0) for n in range(50)])
    problems = {record["problem_id"] for record in logged(tmp_path, "rlvr-000001.jsonl")}
    assert problems == {f"train:{n}" for n in range(MAX_LOGGED_GROUPS)}


def test_a_step_that_is_taken_again_replaces_its_file_and_leaves_no_other(tmp_path):
    write_rollouts(tmp_path, "srl", 1, [group(1, 0.5)])
    write_rollouts(tmp_path, "srl", 1, [group(2, 0.5)])
    assert [r["problem_id"] for r in logged(tmp_path, "srl-000001.jsonl")] == ["train:2"]
    assert [p.name for p in (tmp_path / "rollouts").iterdir()] == ["srl-000001.jsonl"]


def test_forgetting_removes_the_stages_later_steps_only(tmp_path):
    for stage, step in (("srl", 1), ("srl", 2), ("srl", 10), ("rlvr", 2)):
        write_rollouts(tmp_path, stage, step, [group(1, 0.5)])
    forget_rollouts(tmp_path, "srl", 1)
    left = sorted(p.name for p in (tmp_path / "rollouts").iterdir())
    assert left == ["rlvr-000002.jsonl", "srl-000001.jsonl"]
    forget_rollouts(tmp_path / "none", "srl", 1)
