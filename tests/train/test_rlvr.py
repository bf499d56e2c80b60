"""RLVR's problems: every row that the job's grader can judge."""

import json

import pytest
from conftest import JOB

from rollout.types import Problem, Verdict
from rollout.verifiers.answer import AnswerVerifier
from train.data import read_rows
from train.prompts import PromptRenderer, load_tokenizer
from train.rlvr import rlvr_problems
from train.spec_file import load_spec


class AnyRow:
    """A verifier that compares with nothing."""

    def verify(self, problem, rollout) -> Verdict:
        """The same for all."""
        return Verdict(1.0)


@pytest.fixture(scope="module")
def renderer() -> PromptRenderer:
    spec = load_spec(JOB)
    return PromptRenderer(load_tokenizer(spec), spec.prompt)


@pytest.fixture
def rows(tmp_path):
    """One row with an answer, one without."""
    first = {"messages": [{"role": "user", "content": "9:s"}], "reference_answer": "9", "k": 1}
    second = {"messages": [{"role": "user", "content": "8:r"}], "k": 2}
    (tmp_path / "train.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    return read_rows(tmp_path / "train.jsonl")


def test_a_row_becomes_a_whole_problem_with_its_answer_and_fields(renderer, rows):
    item = {"reference_answer": "9", "k": 1}
    expected = Problem("train:1", renderer.render(rows[0]), reference_answer="9", item=item)
    assert "9:s" in expected.prompt
    assert rlvr_problems(rows, renderer, AnyRow())[0] == expected


def test_only_a_grader_that_compares_with_the_answer_leaves_out_rows_without_one(renderer, rows):
    assert [p.id for p in rlvr_problems(rows, renderer, AnswerVerifier())] == ["train:1"]
    assert [p.id for p in rlvr_problems(rows, renderer, AnyRow())] == ["train:1", "train:2"]
