"""Every grader is read from a mapping, wrong ones are answered with the fix, and multi combines."""

import importlib.metadata
import json
import subprocess
import sys
from typing import Literal

import pytest
from conftest import ROOT
from graders import problem, rollout
from pydantic import BaseModel, ConfigDict, ValidationError
from servers import Answer, completion, serve

from rollout.types import Verdict
from rollout.verifiers import registry
from rollout.verifiers.base import FormulaError, UnresponsiveRewardError
from rollout.verifiers.registry import GRADER_TYPES, AnyGrader, GraderSpecError, parse_grader

OUT = "{{ sample.output_text }}"
EXACT = {"type": "string_check", "name": "exact", "input": OUT, "reference": "{{ item.ref }}"}
EXACT["operation"] = "eq"
NEAR = {"type": "text_similarity", "name": "near", "input": OUT, "reference": "{{ item.ref }}"}
NEAR["evaluation_metric"] = "fuzzy_match"
WRONG = {"imput": "x", "operation": "same", "input": "{{ x }}"}
MINIMAL = {
    "answer": {},
    "code_tests": {},
    "endpoint": {"url": "http://127.0.0.1:9/x"},
    "json_schema": {"json_schema": {"required": ["a"]}},
    "label_model": {
        "model": "m",
        "input": [{"role": "user", "content": OUT}],
        "labels": ["a", "b"],
        "passing_labels": ["a"],
        "base_url": "http://127.0.0.1:9/v1",
    },
    "math": {},
    "multi": {"graders": EXACT, "calculate_output": "exact"},
    "python": {"source": "def grade(sample, item):\n    return 1.0\n"},
    "reasoning_gym": {},
    "score_model": {
        "model": "m",
        "input": [{"role": "user", "content": OUT}],
        "base_url": "http://127.0.0.1:9/v1",
    },
    "step_similarity": {},
    "string_check": {k: v for k, v in EXACT.items() if k not in ("type", "name")},
    "text_similarity": {k: v for k, v in NEAR.items() if k not in ("type", "name")},
}


class Spec(BaseModel):
    """A specification that holds any grader, as the job's does."""

    grader: AnyGrader | None = None


class Third(BaseModel):
    """A grader of another package."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["third"] = "third"
    bonus: float = 0.0

    def verify(self, problem, rollout):
        """Score the bonus."""
        return Verdict(self.bonus, details={"seen": 1.0})


@pytest.fixture
def third_party(monkeypatch):
    """An installed package that offers the grader `third`, and tries to replace `math`."""
    group = registry.ENTRY_POINT_GROUP
    entries = [
        importlib.metadata.EntryPoint("third", f"{__name__}:Third", group),
        importlib.metadata.EntryPoint("math", f"{__name__}:Third", group),
        importlib.metadata.EntryPoint("useless", "json:JSONDecoder", group),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


@pytest.mark.parametrize("name", sorted(GRADER_TYPES))
def test_every_type_is_read_frozen_strict_and_written_back_in_full(name):
    raw = {"type": name, **MINIMAL[name]}
    grader = parse_grader(raw)
    assert grader.type == name
    assert callable(grader.verify)
    with pytest.raises(ValidationError, match="frozen"):
        grader.type = "other"
    with pytest.raises(GraderSpecError, match="no_such_field: unknown field"):
        parse_grader({**raw, "no_such_field": 1})
    spec = Spec.model_validate({"grader": raw})
    again = Spec.model_validate(json.loads(spec.model_dump_json()))
    assert again == spec
    assert again.grader == grader


def test_an_unknown_type_is_answered_with_the_nearest_and_all_choices():
    with pytest.raises(GraderSpecError, match=r"'maths'; did you mean 'math'\?") as caught:
        parse_grader({"type": "maths"})
    assert all(name in str(caught.value) for name in GRADER_TYPES)
    assert caught.value.param == "type"
    with pytest.raises(GraderSpecError, match="type: is None; choose answer"):
        parse_grader({"name": "x"})
    with pytest.raises(GraderSpecError, match="is a list; write a mapping"):
        parse_grader([])


def test_errors_name_the_field_the_value_and_the_fix():
    with pytest.raises(GraderSpecError) as caught:
        parse_grader(
            {"type": "string_check", "imput": "x", "operation": "same", "input": "{{ x }}"}
        )
    text = str(caught.value)
    assert "imput: unknown field; did you mean 'input'?" in text
    assert "operation: is 'same'; choose 'eq', 'ne', 'like' or 'ilike'" in text
    assert "reference: is missing; add it" in text
    assert "input: {{ x }} is no variable: write" in text


def test_a_package_adds_a_grader_and_cannot_replace_one(third_party):
    grader = parse_grader({"type": "third", "bonus": 0.5})
    assert grader.verify(problem(), rollout("x")).reward == 0.5
    assert type(parse_grader({"type": "math"})).__name__ == "MathGrader"
    assert "third" in registry.grader_types()
    with pytest.raises(TypeError, match="'useless', is no pydantic model"):
        parse_grader({"type": "useless"})


def test_importing_the_registry_and_reading_graders_loads_no_heavy_library():
    heavy = ["sympy", "nltk", "httpx", "rapidfuzz", "reasoning_gym", "sacrebleu", "numpy"]
    code = (
        "import sys\nfrom rollout.verifiers.registry import parse_grader\n"
        "parse_grader({'type': 'math'}), parse_grader({'type': 'reasoning_gym'})\n"
        "parse_grader({'type': 'endpoint', 'url': 'http://h'})\n"
        "parse_grader({'type': 'text_similarity', 'input': '', 'reference': '',"
        " 'evaluation_metric': 'bleu'})\n"
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def multi(graders, formula: str):
    """A multi grader."""
    return parse_grader({"type": "multi", "graders": graders, "calculate_output": formula})


@pytest.mark.parametrize(
    ("graders", "formula", "expected"),
    [
        ({"e": EXACT, "n": NEAR}, "0.5 * e + 0.5 * n", 0.375),
        ([EXACT, NEAR], "max(exact, near)", 0.75),
        (NEAR, "near ^ 2", 0.5625),
    ],
)
def test_multi_takes_a_mapping_a_list_or_one_grader(graders, formula, expected):
    verdict = multi(graders, formula).verify(problem(ref="abce"), rollout("abcd"))
    assert verdict.reward == pytest.approx(expected)
    assert any(key.startswith("grader/") for key in verdict.details)


def test_multi_reports_each_graders_reward():
    verdict = multi([EXACT, NEAR], "exact + near").verify(problem(ref="abce"), rollout("abcd"))
    assert verdict.details == {"grader/exact": 0.0, "grader/near": 0.75}


@pytest.mark.parametrize(
    ("graders", "formula", "complaint"),
    [
        ([EXACT, EXACT], "exact", "two graders are named 'exact'"),
        ({}, "1", "0 graders"),
        ({"a-b": EXACT}, "1", "'a-b' cannot stand in a formula"),
        ({"min": EXACT}, "1", "'min' cannot stand in a formula"),
        ({"a": EXACT}, "a + b", "calculate_output: the formula uses 'b'; the graders are a"),
        ({"a": EXACT}, "a.real", "may not stand in a formula"),
        ({"a": {"type": "strng_check"}}, "a", "did you mean 'string_check'"),
        ({"a": {"type": "multi", **MINIMAL["multi"]}}, "a", "multi grader inside another"),
        ("x", "a", "write a mapping of graders"),
    ],
)
def test_a_multi_grader_that_cannot_work_is_refused(graders, formula, complaint):
    with pytest.raises(GraderSpecError, match=complaint):
        multi(graders, formula)


def test_one_grader_without_a_verdict_leaves_the_multi_without_one_and_is_named():
    with serve(Answer(b"", status=404)) as server:
        grader = multi({"e": EXACT, "far": {"type": "endpoint", "url": server.url}}, "e + 0 * far")
        with pytest.raises(UnresponsiveRewardError) as caught:
            grader.verify(problem(ref="a"), rollout("a"))
    assert caught.value.grader_name == "far"


def test_a_formula_without_a_value_for_these_rewards_is_no_verdict():
    with pytest.raises(FormulaError, match="has no value"):
        multi([EXACT, NEAR], "near / exact").verify(problem(ref="a"), rollout("b"))


def test_multi_holds_graders_of_other_packages_and_asks_them_one_at_a_time(third_party):
    grader = multi({"t": {"type": "third", "bonus": 0.25}, "e": EXACT}, "t + e")
    assert grader.verify(problem(ref="a"), rollout("a")).reward == 1.25
    assert grader.concurrency() == 1
    assert multi(EXACT, "exact").concurrency() > 1


def test_multi_adds_up_what_its_judges_spent():
    with serve(completion({"reasoning": "", "score": 0.5})) as server:
        judge = {**MINIMAL["score_model"], "type": "score_model", "base_url": server.url}
        grader = multi({"a": judge, "b": judge, "c": {**judge, "model": "n"}}, "a + b + c")
        grade = grader.grade(problem(), rollout("an essay"))
    assert {model: usage.prompt_tokens for model, usage in grade.usage.items()} == {
        "m": 60,
        "n": 30,
    }
