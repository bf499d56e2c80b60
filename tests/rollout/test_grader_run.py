"""A grader run answers in the contract's form, whatever goes wrong."""

import json
from typing import Literal

import pytest
from openai.types.fine_tuning.alpha import GraderRunResponse
from pydantic import BaseModel
from servers import Answer, completion, serve

from rollout.types import Verdict
from rollout.verifiers.base import PythonGraderRuntimeError, PythonGraderServerError
from rollout.verifiers.grader_run import ERROR_DETAILS, ERROR_FLAGS, run_grader
from rollout.verifiers.registry import parse_grader

OUT = "{{ sample.output_text }}"
CONTRACT_KEYS = {
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
    "python_grader_server_error_type",
    "python_grader_runtime_error_details",
    "model_grader_server_error_details",
}


class Fails(BaseModel):
    """A grader that raises what it is told to."""

    type: Literal["fails"] = "fails"
    kind: str

    def verify(self, problem, rollout) -> Verdict:
        """Raise."""
        errors = {"server": PythonGraderServerError, "runtime": PythonGraderRuntimeError}
        raise errors.get(self.kind, ZeroDivisionError)(f"the {self.kind} failed")


class Nan(Fails):
    """A grader of another package that returns NaN."""

    def verify(self, problem, rollout) -> Verdict:
        """Return no number."""
        return Verdict(float("nan"))


def run(grader, sample: str = "abcd", item: dict | None = None) -> dict:
    """Run, check the reply against the client's type, and return it."""
    grader = parse_grader(grader) if isinstance(grader, dict) else grader
    reply = run_grader(grader, sample, item)
    assert json.loads(json.dumps(reply, allow_nan=False)) == reply
    GraderRunResponse.model_validate(reply, strict=True)
    assert set(reply) == {
        "reward",
        "sub_rewards",
        "model_grader_token_usage_per_model",
        "metadata",
    }
    assert set(reply["metadata"]) == {
        "name",
        "type",
        "execution_time",
        "scores",
        "token_usage",
        "sampled_model_name",
        "errors",
    }
    assert set(reply["metadata"]["errors"]) == CONTRACT_KEYS == {*ERROR_FLAGS, *ERROR_DETAILS}
    return reply


def flags(reply: dict) -> dict:
    """The errors that are set."""
    return {key: value for key, value in reply["metadata"]["errors"].items() if value}


def string_check(**fields) -> dict:
    """A string_check grader."""
    base = {"type": "string_check", "name": "check", "input": OUT, "reference": "abcd"}
    return {**base, "operation": "eq", **fields}


def score_model(url: str) -> dict:
    """A score_model grader."""
    return {
        "type": "score_model",
        "name": "judge",
        "model": "j",
        "input": [{"role": "user", "content": OUT}],
        "base_url": url,
        "limits": {"timeout_s": 2, "deadline_s": 2, "max_attempts": 1},
    }


def test_a_plain_grader_reports_its_reward_and_no_error():
    reply = run(string_check())
    assert (reply["reward"], reply["sub_rewards"], flags(reply)) == (1.0, {}, {})
    metadata = reply["metadata"]
    assert (metadata["name"], metadata["type"]) == ("check", "string_check")
    assert metadata["scores"] == {"check": 1.0}
    assert (metadata["token_usage"], metadata["sampled_model_name"]) == (None, None)
    assert 0 <= metadata["execution_time"] < 5


def test_the_sample_is_read_as_the_policy_would_show_it_and_the_row_as_item():
    grader = string_check(reference="{{ item.word }}")
    assert run(grader, "<think>no</think>yes", {"word": "yes"})["reward"] == 1.0
    assert run({"type": "math"}, "0.5", {"reference_answer": "1/2"})["reward"] == 1.0
    assert run({"type": "answer"}, "x", {"reference_answer": "x"})["reward"] == 1.0


def test_a_multi_grader_reports_its_parts_and_a_judge_its_tokens():
    with serve(completion({"reasoning": "", "score": 0.5})) as server:
        graders = {"s": string_check(), "j": score_model(server.url)}
        reply = run({"type": "multi", "name": "m", "graders": graders, "calculate_output": "s * j"})
    assert reply["reward"] == 0.5
    assert reply["sub_rewards"] == {"s": 1.0, "j": 0.5} == reply["metadata"]["scores"]
    assert reply["model_grader_token_usage_per_model"] == {
        "j": {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37}
    }
    assert reply["metadata"]["token_usage"] == 37
    assert reply["metadata"]["sampled_model_name"] == "judge-2026"


@pytest.mark.parametrize(
    ("answer", "flag"),
    [
        (Answer(b"", status=500), "model_grader_server_error"),
        (completion(None, refusal="no"), "model_grader_refusal_error"),
        (completion("0.9"), "model_grader_parse_error"),
    ],
)
def test_each_fault_of_a_judge_sets_its_flag(answer, flag):
    with serve(answer) as server:
        reply = run(score_model(server.url))
    details = reply["metadata"]["errors"]["model_grader_server_error_details"]
    set_flags = {key for key, value in flags(reply).items() if value is True}
    assert set_flags == {flag}
    assert (details is not None) == (flag == "model_grader_server_error")
    assert reply["reward"] == 0.0
    assert reply["metadata"]["scores"] == {}


def test_each_other_fault_sets_its_flag(capsys):
    divide = {"type": "multi", "graders": string_check(), "calculate_output": "1 / check"}
    assert flags(run(divide, "x")) == {"formula_parse_error": True}
    assert flags(run(string_check(reference="{{ item.x }}"))) == {"invalid_variable_error": True}
    assert flags(run({"type": "endpoint", "url": "http://127.0.0.1:1"})) == {
        "unresponsive_reward_error": True
    }
    assert flags(run({"type": "math"})) == {"invalid_variable_error": True}
    assert flags(run(Fails(kind="other"))) == {"other_error": True}
    assert flags(run(Nan(kind="x"))) == {"other_error": True}
    assert flags(run(Fails(kind="server"))) == {
        "python_grader_server_error": True,
        "python_grader_server_error_type": "the server failed",
    }
    assert flags(run(Fails(kind="runtime"))) == {
        "python_grader_runtime_error": True,
        "python_grader_runtime_error_details": "the runtime failed",
    }
    assert "grader 'fails' gave no verdict: the runtime failed" in capsys.readouterr().out


def test_what_the_sample_lacks_is_a_reward_of_zero_with_its_flag():
    reply = run(string_check(input="{{ sample.output_json.x }}"), "no json")
    assert (reply["reward"], flags(reply)) == (0.0, {"sample_parse_error": True})
    assert reply["metadata"]["scores"] == {"check": 0.0}
