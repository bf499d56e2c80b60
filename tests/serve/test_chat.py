"""The chat routes over a real engine in this process: what a client gets is what was trained."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import JOB, MODEL
from openai import OpenAI

from rollout.steps import visible_text
from rollout.types import Problem, SamplingSpec
from rollout.verifiers.base import output_text
from rollout.verifiers.grader_run import as_rollout
from rollout.verifiers.registry import parse_grader
from serve.chat_models import add_trained, heldout, perturbed
from serve.chat_world import LocalChatLink, World, joined, streamed
from serve.conftest import make_client, make_service
from serve_app.settings import Settings
from serve_app.store.database import Database
from serve_app.store.migrate import migrate
from train.data import read_rows
from train.prompts import PromptRenderer, load_tokenizer
from train.rlvr import rlvr_problems
from train.spec_file import load_spec

NUM_ROWS = 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Three models of one architecture; the last lies in a checkpoint's folder."""
    root = tmp_path_factory.mktemp("models")
    found = {name: perturbed(root / name, seed) for name, seed in (("one", 1), ("two", 3))}
    shutil.copytree(found["two"], root / "step-000009")
    import torch
    from safetensors.torch import save_file

    save_file({"state": torch.zeros(3)}, root / "step-000009" / "optimizer.safetensors")
    (root / "step-000009" / "manifest.json").write_text("{}")
    return {**found, "base": MODEL, "checkpoint": root / "step-000009"}


@pytest.fixture(scope="module")
def world(folders, tmp_path_factory) -> Iterator[World]:
    settings = Settings(data=tmp_path_factory.mktemp("data"), models={"ferrata-tiny": str(MODEL)})
    database = Database(settings.store_url)
    migrate(database)
    link = LocalChatLink()
    service = make_service(settings, database, link)
    client = make_client(service)
    project_id = service.keyring.list_keys("first")[0].project_id
    names = {
        name: add_trained(database, project_id, path)
        for name, path in folders.items()
        if name != "base"
    }
    with client:
        yield World(client, link, service, project_id, names, folders)
    link.close()
    database.close()


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    """The first held-out rows as the job's evaluation sees them."""
    spec = load_spec(JOB)
    assert spec.data.heldout is not None
    rows = read_rows(spec.data.heldout)[:NUM_ROWS]
    renderer = PromptRenderer(load_tokenizer(spec), spec.prompt)
    return rlvr_problems(rows, renderer, parse_grader({"type": "answer"}))


STEPWISE = load_spec(JOB).sampling_spec(temperature=0.0)
ANSWER = {"type": "answer", "pattern": r"=(\d{4})$"}
SPELT = {
    "type": "string_check",
    "name": "spelt",
    "input": "{{ sample.output_text }}",
    "reference": "={{ item.reference_answer }}",
    "operation": "like",
}


@pytest.mark.parametrize(
    "grader", [ANSWER, {"type": "answer"}, SPELT], ids=["pattern", "line", "all"]
)
def test_greedy_chat_says_what_the_engines_own_rollouts_say_and_gets_their_verdicts(
    world, problems, grader
):
    name = add_trained(
        world.service.database, world.project_id, world.folders["one"], grader=grader
    )
    answers = world.ask_all(name, heldout(NUM_ROWS))
    rollouts = world.generate("one", problems, STEPWISE)
    verifier = parse_grader(grader)
    stepwise, verdicts = 0, set()
    for number, (answer, problem, rollout) in enumerate(
        zip(answers, problems, rollouts, strict=True)
    ):
        choice = answer["choices"][0]
        content = choice["message"]["content"]
        finish = "stop" if rollout.finished else "length"
        assert (content, choice["finish_reason"]) == (output_text(rollout), finish)
        assert answer["usage"]["completion_tokens"] == rollout.num_tokens
        assert answer["usage"]["prompt_tokens"] == len(rollout.turns[0].prompt_ids)
        stepwise += len(rollout.turns) > 1
        # Half of the rows are given the answer that the model has, so that verdicts differ.
        last = content.rpartition("\n")[2] if grader == {"type": "answer"} else content[-4:]
        said = last if number % 2 else problem.reference_answer
        problem = replace(problem, reference_answer=said, item={"reference_answer": said})
        wanted = verifier.verify(problem, rollout).reward
        got = verifier.verify(problem, as_rollout(content)).reward if finish == "stop" else 0.0
        assert got == wanted
        verdicts.add(wanted)
    assert stepwise > NUM_ROWS / 2, "the model does not answer stepwise"
    assert verdicts == {0.0, 1.0}


@pytest.mark.parametrize("model", ["one", "base"])
def test_a_stream_says_the_same_as_the_whole_answer(world, model):
    name = world.names.get(model, "ferrata-tiny")
    for row in heldout(4):
        fields = {"logprobs": True, "top_logprobs": 2, "max_completion_tokens": 60}
        whole = world.ask(name, row, **fields)
        body = {"model": name, "messages": row["messages"], "temperature": 0, "stream": True}
        options = {"stream_options": {"include_usage": True}}
        response = world.client.post("/v1/chat/completions", json=body | options | fields)
        pieces = streamed(response)
        choice = whole["choices"][0]
        assert joined(pieces, "content") == choice["message"]["content"]
        assert joined(pieces, "reasoning_content") == (choice["message"]["reasoning_content"] or "")
        assert pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        finishes = [c["finish_reason"] for p in pieces for c in p["choices"] if c["finish_reason"]]
        assert finishes == [choice["finish_reason"]]
        assert [p["usage"] for p in pieces] == [None] * (len(pieces) - 1) + [whole["usage"]]
        tokens = [
            t
            for p in pieces
            for c in p["choices"]
            if c["logprobs"]
            for t in c["logprobs"]["content"]
        ]
        assert tokens == choice["logprobs"]["content"]
        assert len(tokens) == whole["usage"]["completion_tokens"]
        assert {len(token["top_logprobs"]) for token in tokens} == {2}
        assert {piece["id"] for piece in pieces} == {pieces[0]["id"]}


def test_the_log_probabilities_are_the_samplers(world, problems):
    answer = world.ask(world.names["two"], heldout(1)[0], logprobs=True)
    (rollout,) = world.generate("two", problems[:1], STEPWISE)
    sampled = [logprob for turn in rollout.turns for logprob in turn.logprobs]
    told = [entry["logprob"] for entry in answer["choices"][0]["logprobs"]["content"]]
    assert told == pytest.approx(sampled, abs=1e-5)


def test_two_models_asked_at_once_each_answer_as_when_asked_alone(world):
    rows = heldout(6)
    alone = {name: world.ask_all(world.names[name], rows) for name in ("one", "two")}
    asked = [(name, row) for row in rows for name in ("one", "two", "checkpoint")]
    with ThreadPoolExecutor(len(asked)) as threads:
        answers = list(threads.map(lambda a: world.ask(world.names[a[0]], a[1]), asked))
    said = {name: [a["choices"] for a in answers] for name, answers in alone.items()}
    assert said["one"] != said["two"]
    said["checkpoint"] = said["two"]  # the same weights, beside an optimizer's state
    for name in ("one", "two", "checkpoint"):
        assert [
            a["choices"] for (n, _), a in zip(asked, answers, strict=True) if n == name
        ] == said[name]
    assert len(world.link.hosts) == 1, "models of one architecture share an engine"


def test_a_base_model_answers_in_one_generation_and_thinks_are_told_apart(world, problems):
    answers = world.ask_all("ferrata-tiny", heldout(8))
    limits = SamplingSpec("single", max_tokens=256, temperature=0.0)
    for answer, rollout in zip(answers, world.generate("base", problems[:8], limits), strict=True):
        message = answer["choices"][0]["message"]
        assert message["content"] == visible_text(rollout.turns[0].text)
        assert "<think>" in rollout.turns[0].text
        assert message["reasoning_content"]


def test_the_jobs_system_message_stands_before_conversations_that_bring_none(world):
    prompt = {"system": "be brief", "step_end": "\n"}
    name = add_trained(
        world.service.database, world.project_id, world.folders["one"], prompt=prompt
    )
    row = heldout(1)[0]
    plain = world.ask(world.names["one"], row)["usage"]["prompt_tokens"]
    added = world.ask(name, row)
    own = world.ask(
        world.names["one"],
        {"messages": [{"role": "system", "content": "be brief"}, *row["messages"]]},
    )
    assert added["usage"]["prompt_tokens"] > plain
    assert (added["choices"], added["usage"]) == (own["choices"], own["usage"])


def test_completions_continue_raw_texts_by_one_generation(world, problems):
    prompts = [problem.prompt for problem in problems[:3]]
    body = {"model": world.names["one"], "prompt": prompts, "temperature": 0, "max_tokens": 30}
    answer = world.client.post("/v1/completions", json=body | {"n": 2, "logprobs": 1}).json()
    limits = SamplingSpec("single", max_tokens=30, temperature=0.0)
    rollouts = world.generate("one", problems[:3], limits)
    texts = [rollout.turns[0].text for rollout in rollouts for _ in range(2)]
    assert [choice["text"] for choice in answer["choices"]] == texts
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert "<think>" in texts[0]
    assert answer["usage"]["prompt_tokens"] == sum(len(r.turns[0].prompt_ids) for r in rollouts)
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == rollouts[0].num_tokens


def test_a_seed_makes_sampling_repeatable_and_choices_differ(world):
    def sampled(seed: int) -> list[str]:
        fields = {"temperature": 1, "seed": seed, "n": 3, "presence_penalty": 0.5, "top_p": 0.95}
        answer = world.ask(world.names["one"], heldout(1)[0], **fields)
        return [
            c["message"]["content"] + (c["message"]["reasoning_content"] or "")
            for c in answer["choices"]
        ]

    assert sampled(5) == sampled(5)
    assert sampled(5) != sampled(6)
    assert len(set(sampled(5))) > 1


def test_max_tokens_bounds_all_steps_together_and_a_stop_text_ends_the_answer(world):
    row = heldout(1)[0]
    whole = world.ask(world.names["one"], row)["choices"][0]["message"]["content"]
    cut = world.ask(world.names["one"], row, max_tokens=30)
    assert cut["usage"]["completion_tokens"] == 30
    assert cut["choices"][0]["finish_reason"] == "length"
    stop = whole[len(whole) // 2 :][:3]
    stopped = world.ask(world.names["one"], row, stop=["nowhere", stop])["choices"][0]
    assert stopped["message"]["content"] == whole[: whole.index(stop)]
    assert stopped["finish_reason"] == "stop"


def test_the_stock_client_reads_whole_and_streamed_answers(world):
    openai = OpenAI(
        api_key=world.client.headers["authorization"].removeprefix("Bearer "),
        base_url="http://testserver/v1",
        http_client=world.client,
    )
    messages: Any = heldout(1)[0]["messages"]
    call = {"model": world.names["one"], "messages": messages, "temperature": 0}
    whole = openai.chat.completions.create(**call)
    stream = openai.chat.completions.create(**call, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in stream)
    assert text == whole.choices[0].message.content != ""
    answered: Any = whole.choices[0].message
    again = openai.chat.completions.create(
        **call | {"messages": [*messages, answered, *messages], "max_tokens": 4}
    )
    assert again.usage is not None
    raw = openai.completions.create(model="ferrata-tiny", prompt="<|user|>", max_tokens=3)
    assert raw.usage is not None
    assert raw.usage.completion_tokens <= 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content",
        ),
        ({"tools": []}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"user": "me"}, "user"),
        ({"audio": {}}, "audio"),
        ({"top_k": 4}, "top_k"),
    ],
    ids=str,
)
def test_what_is_not_honoured_is_refused_by_name(world, fields, param):
    status, error = world.refused(**fields)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["param"].startswith(param)
    assert param.split(".")[0] in error["message"]


def test_unknown_models_and_those_of_another_project_are_the_same_404(world):
    other = make_client(world.service, "second")
    name = world.names["one"]
    body = {"model": name, "messages": [{"role": "user", "content": "a"}]}
    status, error = world.refused(model="ft:none")
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
    response = other.post("/v1/chat/completions", json=body)
    assert response.status_code == 404
    assert response.json()["error"] == {
        **error,
        "message": error["message"].replace("ft:none", name),
    }


def test_a_model_whose_files_are_gone_is_not_found(world, tmp_path):
    name = add_trained(world.service.database, world.project_id, tmp_path / "gone")
    status, error = world.refused(model=name)
    assert (status, error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("length", [300, 3_000_000])
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_leaves_no_room_is_refused_streamed_or_not(world, stream, length):
    messages = [{"role": "user", "content": "1" * length}]
    for model in ("ferrata-tiny", world.names["one"]):
        status, error = world.refused(model=model, messages=messages, stream=stream)
        assert (status, error["code"]) == (400, "context_length_exceeded")
        assert "256" in error["message"]


def test_content_may_come_in_text_parts(world):
    row = heldout(1)[0]
    text = row["messages"][0]["content"]
    parts = [{"type": "text", "text": text[:4]}, {"type": "text", "text": text[4:]}]
    split = world.ask("ferrata-tiny", {"messages": [{"role": "user", "content": parts}]})
    assert split["choices"] == world.ask("ferrata-tiny", row)["choices"]


def test_a_service_without_engines_says_so(world):
    settings = world.service.settings.model_copy(update={"max_chat_engines": 0})
    client = make_client(replace(world.service, settings=settings))
    body = {"model": "ferrata-tiny", "messages": [{"role": "user", "content": "a"}]}
    response = client.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "chat_disabled")


def test_an_engine_that_is_not_ready_is_a_503_with_retry_after(world):
    client = make_client(make_service(world.service.settings, world.service.database))
    body = {"model": "ferrata-tiny", "messages": [{"role": "user", "content": "a"}]}
    for stream in (False, True):
        response = client.post("/v1/chat/completions", json=body | {"stream": stream})
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["type"] == "server_error"
