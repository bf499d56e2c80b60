"""Grading the reply gives the verdict of grading the rollout, whatever the grader reads."""

import random

import pytest

from rollout.live import Update
from rollout.types import FinishReason, Problem, Rollout, Turn
from rollout.verifiers.grader_run import as_rollout
from rollout.verifiers.registry import parse_grader
from serve_app.chat import reading
from serve_app.chat.reading import compare, reads_last_turn, same_reading
from serve_app.chat.reply import Reply, ReplyForm

PROGRAM = "```python\nprint(1)\n```"
STEPS = ["a=12", "12", "", PROGRAM, '{"x": 1}', "<answer>12</answer>", "so 12.", "\\boxed{12}", "3"]
SCHEMA = {"type": "object", "required": ["x"]}
LAST_TURN = [
    {"type": "answer"},
    {"type": "answer", "pattern": r"=(\d+)$"},
    {"type": "answer", "pattern": r"^(\d+)$"},
    {"type": "answer", "pattern": r"(?s)^(.*)$", "normalise": False},
    {"type": "math"},
    {"type": "json_schema", "json_schema": SCHEMA},
]
ALL_TURNS = [
    {
        "type": "string_check",
        "name": "s",
        "input": "{{ sample.output_text }}",
        "reference": "a=12\n12",
        "operation": "eq",
    },
    {
        "type": "text_similarity",
        "name": "t",
        "input": "{{ sample.output_text }}",
        "reference": "a=12 so 3",
        "evaluation_metric": "fuzzy_match",
    },
]
BOTH_LAST = {
    "type": "multi",
    "graders": {"a": LAST_TURN[0], "m": LAST_TURN[1]},
    "calculate_output": "(a + m) / 2",
}
# These run a user's program to judge; what they read of the rollout decides as well.
READ_ONLY = [
    {"type": "code_tests"},
    {"type": "python", "name": "p", "source": "def grade(sample, item):\n    return 1.0"},
    {"type": "reasoning_gym"},
]


def rollout_of(rng: random.Random) -> Rollout:
    steps = rng.choices(STEPS, k=rng.randint(1, 4))
    finish: FinishReason = rng.choice(["end", "end", "end", "length"])
    finishes: list[FinishReason] = ["step_end"] * (len(steps) - 1) + [finish]
    turns = (
        Turn((1,), (2,), (-0.5,), f"<think>t</think>{step}", ended, ((0, 1),))
        for step, ended in zip(steps, finishes, strict=True)
    )
    return Rollout("p", tuple(turns))


def reply_to(rollout: Rollout, grader: dict) -> tuple[str, str | None]:
    """(content, finish reason) as the chat endpoint answers."""
    form = ReplyForm(separator="\n\n", hold=True) if reads_last_turn(grader) else ReplyForm()
    reply = Reply(0, 1, form, ())
    for turn in rollout.turns:
        last = turn is rollout.turns[-1]
        reply.add(Update(0, turn.text, 1, (), turn, rollout if last else None))
    if texts := reply.in_question():
        same = compare({"grader": grader, "joined": texts[0], "last": texts[1]}, print)
        reply.settle(texts[0] if same else texts[1])
    chunk = reply.take()
    assert chunk is not None
    return chunk.content, chunk.finish_reason


@pytest.mark.parametrize("grader", [*LAST_TURN, *ALL_TURNS, BOTH_LAST], ids=str)
def test_the_reply_gets_the_rollouts_verdict(grader):
    rng, verifier = random.Random(str(grader)), parse_grader(grader)
    problem = Problem("p", "", reference_answer="12", item={"reference_answer": "12"})
    rewards = set()
    for _ in range(40 if grader["type"] in ("math", "json_schema") else 300):
        rollout = rollout_of(rng)
        content, finish = reply_to(rollout, grader)
        wanted = verifier.verify(problem, rollout).reward
        got = verifier.verify(problem, as_rollout(content)).reward if finish == "stop" else 0.0
        assert got == wanted, (rollout, content)
        rewards.add(wanted)
    assert len(rewards) > 1, "the rollouts tell nothing about this grader"


@pytest.mark.parametrize("grader", READ_ONLY, ids=str)
def test_a_grader_that_runs_programs_reads_the_same_from_the_reply(grader):
    rng, verifier = random.Random(str(grader)), parse_grader(grader)
    for _ in range(300):
        rollout = rollout_of(rng)
        content, finish = reply_to(rollout, grader)
        if finish == "stop":
            wanted = verifier.read_last_turn(rollout.turns[-1].text)
            assert verifier.read_last_turn(content) == wanted


def test_all_turns_are_shown_where_that_changes_nothing():
    turns = [("a=12", "step_end"), ("b=12", "end")]
    rollout = Rollout("p", tuple(Turn((1,), (2,), (0.0,), t, f, ()) for t, f in turns))
    assert reply_to(rollout, {"type": "answer"}) == ("a=12\n\nb=12", "stop")
    assert reply_to(rollout, {"type": "answer", "pattern": "^(.*)$"}) == ("b=12", "stop")


def test_one_grader_that_reads_all_turns_decides_for_a_multi_grader():
    mixed = {
        "type": "multi",
        "graders": {"a": LAST_TURN[0], "s": ALL_TURNS[0]},
        "calculate_output": "a + s",
    }
    assert reads_last_turn(BOTH_LAST)
    assert not reads_last_turn(mixed)
    assert not reads_last_turn(None)


def test_a_pattern_that_never_comes_to_an_end_costs_its_deadline_and_shows_the_last_turn(
    monkeypatch,
):
    monkeypatch.setattr(reading, "DEADLINE_S", 1.0)
    trap = {"type": "answer", "pattern": r"^((?:a+)+)$"}
    assert same_reading({"type": "answer"}, "b\na", "a")
    assert not same_reading({"type": "answer"}, "b\na", "b")
    assert not same_reading(trap, "x\n" + "a" * 60 + "!", "a" * 60 + "!")
