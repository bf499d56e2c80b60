"""The python grader: its number is the reward; its failures are no verdict."""

import dataclasses

import pytest
from pydantic import ValidationError

from rollout.types import Problem, Rollout, Turn
from rollout.verifiers import python_grader
from rollout.verifiers.python_grader import PythonGrader, PythonGraderError, sample_of

PROBLEM = Problem("train:1", "", item={"answer": "4", "weights": [0.5]})


def reward(source: str, text: str = "4", finish="end") -> float:
    rollout = Rollout("train:1", (Turn((), (), (), text, finish, ()),))
    return PythonGrader(source=source).verify(PROBLEM, rollout).reward


def test_the_graders_number_is_the_reward():
    source = """
def grade(sample, item):
    return item["weights"][0] * (sample["output_text"] == item["answer"])
"""
    assert reward(source) == 0.5
    assert reward(source, "5") == 0.0


def test_the_sample_has_the_contracts_fields_and_no_thinks():
    source = """
def grade(sample, item):
    assert sorted(sample) == ["choices", "output_json", "output_text", "output_tools"]
    assert sample["choices"][0]["message"]["content"] == sample["output_text"]
    assert sample["output_tools"] == []
    return sample["output_json"]["x"]
"""
    assert reward(source, '<think>{"x": 1}</think>{"x": -2}') == -2.0


@pytest.mark.parametrize("text", ["no json", '{"x": NaN}', '{"x": 1, "x": 2}', "[" * 10**5])
def test_an_output_that_is_no_strict_json_has_none(text):
    assert sample_of(text)["output_json"] is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", "ZeroDivisionError"),
        ("return float('nan')", "exit code 1"),
        ("return 10 ** 400", "not finite"),
        ("return '1'", "returned '1', not a number"),
        ("return True", "returned True, not a number"),
        ("return None", "returned None, not a number"),
        ("import os; os._exit(0)", "not a number"),
        ("import sys; sys.exit(0)", "not a number"),
        ("return bytearray(1 << 33)", "exceeded its memory limit"),
        ("import socket; socket.create_connection(('127.0.0.1', 1))", "PermissionError"),
        ("while True: pass", "exceeded its cpu limit"),
        ("import time; time.sleep(100)", "exceeded its wall limit"),
    ],
)
def test_a_grader_that_fails_gives_no_verdict_and_says_why(monkeypatch, body, message):
    limits = dataclasses.replace(python_grader.LIMITS, cpu_s=1.0, wall_s=3.0)
    monkeypatch.setattr(python_grader, "LIMITS", limits)
    if "cpu" in message:  # on a loaded machine it takes longer to get there
        monkeypatch.setattr(python_grader, "LIMITS", dataclasses.replace(limits, wall_s=60.0))
    with pytest.raises(PythonGraderError, match=message):
        reward(f"def grade(sample, item):\n    {body}")


def test_a_grader_may_use_two_gigabytes_and_one_cpu():
    source = """
import os
def grade(sample, item):
    block = bytearray(600 << 20)
    return len(os.sched_getaffinity(0)) + len(block) * 0
"""
    assert reward(source) == 1.0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def grade(sample, item:", "no Python program"),
        ("def score(sample, item): return 1", "defines no `grade`"),
        ("def grade(s, i): return 1\n" + "#" * 256_000, "less than 256000"),
        ("\0", "no Python program"),
    ],
)
def test_a_source_that_cannot_grade_is_refused(source, message):
    with pytest.raises(ValidationError, match=message):
        PythonGrader(source=source)


def test_an_image_is_refused_not_ignored():
    with pytest.raises(ValidationError, match="Leave `image_tag` out"):
        PythonGrader(source="def grade(sample, item): return 1", image_tag="2025-05-08")
