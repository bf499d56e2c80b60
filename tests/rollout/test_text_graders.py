"""string_check, json_schema and reasoning_gym judge what the policy showed; METEOR end to end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from graders import problem, rollout
from tiny_wordnet import write_tiny_wordnet

from rollout.verifiers.base import GraderError, InvalidVariableError
from rollout.verifiers.registry import GraderSpecError, parse_grader

OUT, REF = "{{ sample.output_text }}", "{{ item.ref }}"


def grader(kind: str, **fields):
    """A parsed grader."""
    return parse_grader({"type": kind, "name": "g", **fields})


def reward(g, text: str, **item) -> float:
    """The reward of a one-turn text."""
    return g.verify(problem(**item), rollout(text)).reward


@pytest.mark.parametrize(
    ("operation", "text", "ref", "expected"),
    [
        ("eq", "Yes", "Yes", 1),
        ("eq", "Yes", "yes", 0),
        ("ne", "Yes", "yes", 1),
        ("neq", "Yes", "Yes", 0),
        ("like", "say Yes now", "Yes", 1),
        ("like", "say yes now", "Yes", 0),
        ("ilike", "say yes now", "YES", 1),
        ("like", "Yes", "say Yes", 0),
        ("like", "anything", "", 0),
    ],
)
def test_string_check_compares(operation, text, ref, expected):
    g = grader("string_check", input=OUT, reference=REF, operation=operation)
    assert reward(g, text, ref=ref) == expected


def test_string_check_does_not_see_thoughts_and_scores_no_cut_off_rollout():
    g = grader("string_check", input=OUT, reference="a", operation="eq")
    assert g.verify(problem(), rollout("<think>b</think>a")).reward == 1.0
    cut = g.verify(problem(), rollout("a", finish="length"))
    assert (cut.reward, cut.format_error, cut.details["truncated"]) == (0.0, True, 1.0)


def test_meteor_scores_synonyms_where_wordnet_is_installed(tmp_path):
    write_tiny_wordnet(tmp_path)
    # In a process of its own: nltk reads where its data lies when it is imported.
    program = f"""if True:
        from graders import problem, rollout
        from rollout.verifiers.registry import parse_grader
        g = parse_grader({{"type": "text_similarity", "input": {OUT!r}, "reference": {REF!r},
                          "evaluation_metric": "meteor", "deadline_s": 60}})
        for ref in ("the car is quick", "the bicycle is quick"):
            print(g.verify(problem(ref=ref), rollout("the auto is quick")).reward)
    """
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NLTK_DATA": str(tmp_path), "PYTHONPATH": search},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    synonym, other = map(float, result.stdout.split())
    # All 4 words match in one chunk: 1 - 0.5 (1/4)^3.
    assert synonym == pytest.approx(1 - 0.5 / 64)
    # 3 of 4 match in two chunks: 0.75 (1 - 0.5 (2/3)^3).
    assert other == pytest.approx(0.75 * (1 - 0.5 * 8 / 27))


SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"type": ["string", "number"]},
        "steps": {"type": "array", "items": {"type": "object", "required": ["text"]}},
    },
    "required": ["answer", "steps"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "expected", "format_error"),
    [
        ('{"answer": "7", "steps": [{"text": "a"}]}', 1.0, False),
        ('{"answer": 0, "steps": [{"text": "a"}]}', 1.0, False),
        ('{"answer": "", "steps": [{"text": "a"}]}', 0.0, False),
        ('{"answer": " . ", "steps": [{"text": "a"}]}', 0.0, False),
        ('{"answer": "7", "steps": []}', 0.0, False),
        ('{"answer": "7", "steps": [{"text": ""}]}', 0.0, False),
        ('{"answer": "7"}', 0.0, True),
        ("{}", 0.0, True),
        ('{"answer": "7", "steps": [{"text": "a"}], "more": 1}', 0.0, True),
        ('The answer: {"answer": "7", "steps": [{"text": "a"}]}', 0.0, True),
        ('{"answer": NaN, "steps": [{"text": "a"}]}', 0.0, True),
        ("[" * 50_000, 0.0, True),
    ],
)
def test_json_needs_the_form_and_content(text, expected, format_error):
    verdict = grader("json_schema", json_schema=SCHEMA).verify(problem(), rollout(text))
    assert (verdict.reward, verdict.format_error) == (expected, format_error)


def test_fields_named_in_the_reference_must_match_the_row():
    g = grader(
        "json_schema",
        json_schema={"type": "object"},
        reference={"answer": "{{ item.answer }}", "by.0": "Mr {{ item.who }}"},
    )
    item = {"answer": 7, "who": "Ibn"}
    assert reward(g, '{"answer": 7.0, "by": ["mr  ibn"]}', **item) == 1.0
    assert reward(g, '{"answer": "7", "by": ["mr ibn"]}', **item) == 0.0
    assert reward(g, '{"answer": true, "by": ["mr ibn"]}', answer=1, who="Ibn") == 0.0
    assert reward(g, '{"answer": 7}', **item) == 0.0
    with pytest.raises(InvalidVariableError):
        reward(g, '{"answer": 7}', who="Ibn")


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"type": "object"}, "an empty object would score"),
        ({"type": "no such type", "required": ["a"]}, r"is no JSON schema: \$.type"),
        ({"required": ["a"], "properties": {"a": {"$ref": "http://x/y"}}}, "write the definition"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_the_fix(schema, complaint):
    with pytest.raises(GraderSpecError, match=complaint):
        grader("json_schema", json_schema=schema)


def test_a_sample_that_makes_a_schemas_pattern_hang_scores_nothing_in_time():
    schema = {"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}, "required": ["a"]}
    g = grader("json_schema", json_schema=schema, deadline_s=2)
    reward(g, '{"a": "aaa"}')
    started_s = time.monotonic()
    verdict = g.verify(problem(), rollout('{"a": "' + "a" * 40 + '!"}'))
    assert time.monotonic() - started_s < 2.4
    assert (verdict.reward, verdict.details) == (0.0, {"timeout": 1.0})
    assert reward(g, '{"a": "aaa"}') == 1.0


def gym_row(dataset: str) -> dict:
    """A row as reasoning-gym makes them."""
    import json

    from rollout.verifiers.gym_import import reasoning_gym

    entry = reasoning_gym.create_dataset(dataset, size=1, seed=5)[0]
    return json.loads(json.dumps(entry))


def test_reasoning_gym_scores_its_own_answers():
    g = grader("reasoning_gym", deadline_s=60)
    for dataset in ("basic_arithmetic", "countdown", "string_insertion", "simple_integration"):
        row = gym_row(dataset)
        assert reward(g, row["answer"], **row) == 1.0
        assert reward(g, f"so <answer>0</answer> or <answer>{row['answer']}</answer>", **row) == 1.0
        assert reward(g, "nonsense", **row) < 0.1


def test_reasoning_gym_accepts_an_answer_that_is_right_but_not_the_listed_one():
    row = gym_row("countdown")
    assert reward(grader("reasoning_gym", deadline_s=60), f"({row['answer']})", **row) == 1.0


@pytest.mark.parametrize(
    ("dataset", "attack"),
    [
        ("string_insertion", "open({path!r}, 'w').write('x') or 'a'"),
        ("string_insertion", "[c for c in [open({path!r}, 'w')]]"),
        ("countdown", "__import__('pathlib').Path({path!r}).touch()"),
        ("simple_integration", "\"__import__('pathlib').Path({path!r}).touch()\""),
        ("polynomial_multiplication", "().__class__.__base__"),
        ("spiral_matrix", "exit()"),
        ("n_queens", "__import__('os')._exit(0)"),
    ],
)
def test_reasoning_gyms_scorers_do_not_run_what_a_sample_writes(dataset, attack, tmp_path):
    path = tmp_path / "written"
    g = grader("reasoning_gym", deadline_s=60)
    row = gym_row(dataset)
    verdict = g.verify(problem(**row), rollout(attack.format(path=str(path))))
    assert (verdict.reward, verdict.format_error) == (0.0, True)
    assert not path.exists()


def test_reasoning_gyms_faults_and_the_rows_are_no_verdicts():
    g = grader("reasoning_gym", deadline_s=60)
    with pytest.raises(InvalidVariableError, match="lacks answer, metadata"):
        reward(g, "1", question="q")
    row = {"question": "q", "answer": "1", "metadata": {}}
    with pytest.raises(InvalidVariableError, match="names no data set"):
        reward(g, "1", **row)
    with pytest.raises(GraderError, match="no data set 'nothing'; it has ab, acre"):
        reward(g, "1", dataset="nothing", **row)


def test_reasoning_gym_without_partial_credit_gives_all_or_nothing():
    row = gym_row("countdown")
    assert 0 < reward(grader("reasoning_gym", deadline_s=60), "1+1", **row) < 1
    strict = grader("reasoning_gym", deadline_s=60, partial_credit=False)
    assert reward(strict, "1+1", **row) == 0.0
