"""Graders that ask a server: what it says is checked, and its faults are never rewards."""

import asyncio
import time

import pytest
from graders import problem, rollout
from servers import Answer, completion, serve
from standardwebhooks import Webhook, WebhookVerificationError

from rollout.verifiers.base import (
    ModelGraderParseError,
    ModelGraderRefusalError,
    ModelGraderServerError,
    UnresponsiveRewardError,
)
from rollout.verifiers.judge import BASE_URL_VARIABLE, KEY_VARIABLE, is_empty_opener
from rollout.verifiers.registry import GraderSpecError, parse_grader

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 (made for this test)
LIMITS = {"timeout_s": 1.0, "deadline_s": 2.5, "max_attempts": 3}
INPUT = [
    {"role": "system", "content": "Grade {{ item.topic }}."},
    {"role": "user", "content": [{"type": "input_text", "text": "{{ sample.output_text }}"}]},
]


def endpoint(url: str, **fields):
    """An endpoint grader with short limits."""
    return parse_grader({"type": "endpoint", "url": url, "limits": LIMITS, **fields})


def score_model(url: str, **fields):
    """A score_model grader with short limits."""
    base = {"type": "score_model", "name": "judge", "model": "j", "input": INPUT, "limits": LIMITS}
    return parse_grader({**base, "base_url": url + "/v1", **fields})


def label_model(url: str, **fields):
    """A label_model grader with short limits."""
    labels = {"labels": ["good", "bad", "ugly"], "passing_labels": ["good", "ugly"]}
    return score_model(url, type="label_model", **labels, **fields)


def grade(grader, text="an essay", **item):
    """Grade one text."""
    return grader.grade(problem("7", topic="style", **item), rollout(text))


def test_an_endpoints_reward_comes_back_and_its_request_is_signed(monkeypatch):
    monkeypatch.setenv("FERRATA_GRADER_SECRET", SECRET)
    with serve(Answer({"reward": 0.25})) as server:
        grader = endpoint(server.url + "/grade", secret_env="FERRATA_GRADER_SECRET")
        assert grade(grader).reward == 0.25
    (request,) = server.requests
    assert request.path == "/grade"
    body = Webhook(SECRET).verify(request.body, request.headers)
    assert body["problem_id"] == "train:7"
    assert body["item"] == {"topic": "style"}
    assert body["reference_answer"] == "7"
    assert body["sample"]["output_text"] == "an essay"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body + b" ", request.headers)


def test_a_failing_endpoint_is_asked_again_under_the_same_message_id(monkeypatch):
    monkeypatch.setenv("FERRATA_GRADER_SECRET", SECRET)
    with serve(Answer(b"oops", status=500), Answer({"reward": 1})) as server:
        grader = endpoint(server.url, secret_env="FERRATA_GRADER_SECRET")
        assert grade(grader).reward == 1.0
    assert len(server.requests) == 2
    assert len({request.headers["webhook-id"] for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("answer", "num_requests"),
    [
        (Answer(b"oops", status=500), 3),
        (Answer(b"busy", status=429, headers={"retry-after": "0"}), 3),
        (Answer({"reward": 1.0}, status=404), 1),
        (Answer(b"", status=302, headers={"location": "http://127.0.0.1:1/"}), 1),
        (Answer(b"not json"), 1),
        (Answer(b'{"reward": NaN}'), 1),
        (Answer(b'{"reward": Infinity}'), 1),
        (Answer({"reward": "1.0"}), 1),
        (Answer({"reward": True}), 1),
        (Answer({"reward": None}), 1),
        (Answer({"reward": [1.0]}), 1),
        (Answer({"reward": 1e9}), 1),
        (Answer({"reward": 1.0, "note": "x"}), 1),
        (Answer({}), 1),
        (Answer([1.0]), 1),
        (Answer(1.0), 1),
        (Answer(b"\xff\xfe"), 1),
        (Answer(b"[" * 200_000), 1),
        (Answer(b"x" * 5_000_000), 1),
        (Answer(b'{"reward": ' + b"9" * 5000 + b"}"), 1),
    ],
)
def test_an_endpoint_that_lies_or_fails_gives_no_verdict(answer, num_requests):
    with serve(answer) as server, pytest.raises(UnresponsiveRewardError, match=r"127\.0\.0\.1"):
        grade(endpoint(server.url))
    assert len(server.requests) == num_requests


@pytest.mark.parametrize(
    "answer", [Answer({"reward": 1.0}, wait_s=20), Answer({"reward": 1.0}, drip_s=0.4)]
)
def test_an_endpoint_that_stalls_or_drips_is_left_within_the_deadline(answer):
    with serve(answer) as server:
        started_s = time.monotonic()
        with pytest.raises(UnresponsiveRewardError, match=r"no answer within 1\.0 s"):
            grade(endpoint(server.url))
        assert time.monotonic() - started_s < 1.2 * LIMITS["deadline_s"]


def test_an_endpoint_that_is_not_there_is_named():
    with pytest.raises(UnresponsiveRewardError, match=r"127.0.0.1:1.*ConnectError"):
        grade(endpoint("http://127.0.0.1:1/x"))


def test_an_endpoint_can_be_asked_from_inside_an_event_loop():
    async def inside(url):
        return grade(endpoint(url)).reward

    with serve(Answer({"reward": 0.5})) as server:
        assert asyncio.run(inside(server.url)) == 0.5


def test_a_missing_or_unusable_signing_secret_is_named(monkeypatch):
    with serve(Answer({"reward": 0.5})) as server:
        grader = endpoint(server.url, secret_env="FERRATA_GRADER_NONE")
        with pytest.raises(UnresponsiveRewardError, match="FERRATA_GRADER_NONE is not set"):
            grade(grader)
    assert server.requests == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"url": "file:///etc/passwd"}, "is no address: write http"),
        ({"url": "http://u:p@host/"}, "is no address"),
        ({"url": "http://h", "secret_env": "HOME"}, "name a secret of the project"),
        ({"url": "http://h", "range": [1, 0]}, "is no range"),
        ({}, "url: is missing; add it"),
    ],
)
def test_an_endpoint_grader_that_cannot_work_is_refused(fields, complaint):
    with pytest.raises(GraderSpecError, match=complaint):
        parse_grader({"type": "endpoint", **fields})


def test_a_judge_sees_the_templated_input_and_its_score_and_tokens_come_back(monkeypatch):
    monkeypatch.setenv("FERRATA_GRADER_MINE", "key-1")
    with serve(completion({"reasoning": "fine", "score": 0.75})) as server:
        params = {"temperature": 0, "seed": 3, "max_completions_tokens": 50}
        grader = score_model(server.url, api_key_env="FERRATA_GRADER_MINE", sampling_params=params)
        result = grade(grader, "<think>secret thought</think>an essay")
    assert result.reward == 0.75
    assert (result.usage["j"].prompt_tokens, result.usage["j"].completion_tokens) == (30, 7)
    assert result.sampled_model_name == "judge-2026"
    assert result.verdict().details == {"prompt_tokens": 30.0, "completion_tokens": 7.0}
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer key-1"
    sent = request.json
    assert [m["content"] for m in sent["messages"]] == ["Grade style.", "an essay"]
    assert (sent["temperature"], sent["seed"], sent["max_completion_tokens"]) == (0, 3, 50)
    assert sent["response_format"]["json_schema"]["strict"] is True


def test_a_failing_judge_is_asked_again():
    good = completion({"reasoning": "", "score": 1})
    with serve(Answer(b"", status=503), good) as server:
        assert grade(score_model(server.url)).reward == 1.0
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (completion("The score is 0.9"), ModelGraderParseError),
        (completion('```json\n{"reasoning": "", "score": 1}\n```'), ModelGraderParseError),
        (completion({"score": 1}), ModelGraderParseError),
        (completion({"reasoning": "", "score": 1, "x": 0}), ModelGraderParseError),
        (completion({"reasoning": "", "score": "1"}), ModelGraderParseError),
        (completion({"reasoning": "", "score": True}), ModelGraderParseError),
        (completion({"reasoning": "", "score": 1.5}), ModelGraderParseError),
        (completion('{"reasoning": "", "score": NaN}'), ModelGraderParseError),
        (completion('{"reasoning": "", "sc', finish_reason="length"), ModelGraderParseError),
        (completion(None), ModelGraderParseError),
        (completion(None, refusal="I cannot."), ModelGraderRefusalError),
        (completion("", finish_reason="content_filter"), ModelGraderRefusalError),
        (Answer(b"", status=401), ModelGraderServerError),
        (Answer(b"", status=500), ModelGraderServerError),
        (Answer(b"<html>"), ModelGraderServerError),
        (Answer([]), ModelGraderServerError),
        (Answer({"choices": []}), ModelGraderServerError),
        (Answer({"choices": [{"message": "x"}]}), ModelGraderServerError),
        (Answer(b"{}", wait_s=20), ModelGraderServerError),
    ],
)
def test_a_judge_that_lies_refuses_or_fails_gives_no_verdict(answer, error):
    with serve(answer) as server, pytest.raises(error):
        grade(score_model(server.url))


def test_a_judge_that_counts_no_tokens_is_accepted():
    answer = completion({"reasoning": "", "score": 1})
    del answer.body["usage"]
    with serve(answer) as server:
        assert grade(score_model(server.url)).usage["j"].prompt_tokens == 0


def test_a_score_may_have_another_range():
    with serve(completion({"reasoning": "", "score": 7})) as server:
        assert grade(score_model(server.url, range=[1, 10])).reward == 7.0


@pytest.mark.parametrize("opener", [":", "", " \n", "...", "Thought process:", "**Solution:**"])
def test_an_empty_opener_scores_nothing_and_is_never_put_before_the_judge(opener):
    assert is_empty_opener(opener)
    with serve(completion({"reasoning": "", "score": 1})) as server:
        result = grade(score_model(server.url), opener)
    assert (result.reward, result.format_error) == (0.0, True)
    assert server.requests == []


def test_a_short_text_that_says_something_is_no_opener():
    assert not is_empty_opener("42")
    assert not is_empty_opener("Thought process:\nfirst add them")


@pytest.mark.parametrize(("label", "reward"), [("good", 1.0), ("bad", 0.0), ("ugly", 1.0)])
def test_a_label_passes_or_does_not(label, reward):
    with serve(completion({"reasoning": "", "label": label})) as server:
        assert grade(label_model(server.url)).reward == reward
    schema = server.requests[0].json["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == ["good", "bad", "ugly"]


@pytest.mark.parametrize("label", ["Good", "good ", None, ["good"], {}])
def test_a_label_that_is_none_of_the_list_is_no_verdict(label):
    answer = completion({"reasoning": "", "label": label})
    with serve(answer) as server, pytest.raises(ModelGraderParseError):
        grade(label_model(server.url))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"passing_labels": ["fine"]}, "'fine', which is not in labels"),
        ({"labels": ["a", "a"], "passing_labels": ["a"]}, "names one label twice"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": "{{ x }}"}]}, "is no variable"),
        ({"api_key_env": "HOME"}, "name a secret of the project"),
        ({"api_key_env": KEY_VARIABLE}, "is sent only to the address in"),
    ],
)
def test_a_model_grader_that_cannot_work_is_refused(fields, complaint):
    base = {"type": "label_model", "model": "j", "input": INPUT, "base_url": "http://h/v1"}
    labels = {"labels": ["good", "bad"], "passing_labels": ["good"]}
    with pytest.raises(GraderSpecError, match=complaint):
        parse_grader({**base, **labels, **fields})


def test_without_a_base_url_the_configured_endpoint_and_its_key_are_used(monkeypatch):
    raw = {"type": "score_model", "model": "j", "input": INPUT}
    monkeypatch.delenv(BASE_URL_VARIABLE, raising=False)
    with pytest.raises(GraderSpecError, match=f"give `base_url`, or set {BASE_URL_VARIABLE}"):
        parse_grader(raw)
    monkeypatch.setenv(KEY_VARIABLE, "operators-key")
    with serve(completion({"reasoning": "", "score": 1})) as server:
        grade(score_model(server.url))
        monkeypatch.setenv(BASE_URL_VARIABLE, server.url)
        grade(parse_grader(raw))
    assert "authorization" not in server.requests[0].headers
    assert server.requests[1].headers["authorization"] == "Bearer operators-key"
