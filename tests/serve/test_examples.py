"""Expert solutions by the solver, a teacher and for a policy, over real files and rows."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from servers import Answer, completion, serve

from serve.native_calls import (
    CLUSTER,
    MODEL,
    folders,
    here,
    honest_teacher,
    problems,
    refusal,
    sums_teacher,
    uploaded,
)
from serve_app import examples, measure_policy, native
from serve_app.examples_stream import CANCEL, PROGRESS
from serve_app.native_schemas import GenerateExamples
from serve_app.preparation import prepare_job
from serve_app.request_types import RequestError, parse_request
from serve_app.schemas import CreateJob
from train.experts import digit_programs
from train.experts.draft import FORM
from train.experts.outcomes import Outcomes


def test_examples_are_solved_verified_stored_and_previewed(whole, tenant, caller):
    body = parse_request(GenerateExamples, {"rows": problems(30), "num_examples": 12})
    answer = examples.generate(whole, caller, body, run=here)
    assert (answer["examples_generated"], len(answer["examples"])) == (12, 10)
    lines = tenant.get(f"/v1/files/{answer['file_id']}/content").text.splitlines()
    assert len(lines) == 12
    for line in lines:
        row = json.loads(line)
        assert row["expert_steps"][-1].endswith("=" + row["reference_answer"])
    preview = tenant.get(f"/v1/examples/{answer['file_id']}").json()
    assert preview["examples"] == answer["examples"]
    assert preview["examples_generated"] == 12


@pytest.mark.parametrize(
    ("rows", "fields", "param", "said"),
    [
        ([{"messages": [{"role": "user", "content": "Who?"}]}], {}, "rows", "family"),
        (problems(3), {"grader": {"type": "answer"}}, "rows", "3 rejected"),
        ([{"messages": []}], {}, "rows", "Example 1: `messages` is missing"),
    ],
)
def test_examples_that_cannot_be_written_say_why(whole, caller, rows, fields, param, said):
    body = parse_request(GenerateExamples, {"rows": rows, **fields})
    error = refusal(lambda: examples.generate(whole, caller, body, run=here))
    assert error.param == param
    assert said in error.message


def test_a_teacher_writes_examples_that_carry_where_they_come_from(whole, caller):
    def honest(request) -> Answer:
        problem = request.json["messages"][1]["content"]
        steps, _, answer = digit_programs.solve(problem)
        text = "\n".join(f"{n}. {step}" for n, step in enumerate(steps, start=1))
        return completion(f"{text}\nAnswer: {answer}")

    rows = problems(4)
    for row in rows[:3]:
        row["reference_answer"] = digit_programs.solve(row["messages"][0]["content"])[2]
    with serve(honest) as server:
        teacher = {"type": "endpoint", "base_url": f"{server.url}/v1", "model": "t"}
        raw = {"rows": rows, "num_examples": 2, "teacher": teacher, "grader": {"type": "answer"}}
        body = parse_request(GenerateExamples, raw)
        answer = examples.generate(whole, caller, body, run=here)
    assert answer["examples_generated"] == 2
    assert answer["teacher"]["accepted"] == answer["teacher"]["asked"] == 2
    for example in answer["examples"]:
        assert len(example["expert_steps"]) == 3, "two lines, and the answer that the grader reads"
        assert example["provenance"]["teacher"] == "endpoint:t"
    assert folders(whole) == []


def test_the_same_examples_asked_for_again_are_paid_for_once(whole, caller):
    """A client whose answer was lost repeats the call: what was accepted is not asked again."""

    def honest(request) -> Answer:
        steps, _, answer = digit_programs.solve(request.json["messages"][1]["content"])
        return completion(f"1. {steps[0]}\n2. {steps[1]}\nAnswer: {answer}")

    rows = problems(6)
    for row in rows:
        row["reference_answer"] = digit_programs.solve(row["messages"][0]["content"])[2]
    with serve(*[honest] * 2, Answer({}, 404), honest) as server:
        teacher = {"type": "endpoint", "base_url": f"{server.url}/v1", "model": "t"}
        raw = {"rows": rows, "num_examples": 3, "teacher": teacher | {"concurrency": 1}}
        raw["grader"] = {"type": "answer"}

        def ask(**fields):
            return examples.generate(
                whole, caller, parse_request(GenerateExamples, raw | fields), run=here
            )

        first = ask()
        assert (first["teacher"]["accepted"], first["teacher"]["dropped"]) == (3, 1)
        assert len(server.requests) == 4
        again = ask()
        assert again["teacher"] == first["teacher"]
        assert again["examples"] == first["examples"]
        assert len(server.requests) == 4
        ask(seed=1)
        assert len(server.requests) == 7, "another call"


def test_a_watched_call_tells_how_far_it_is_and_ends_when_it_is_cancelled(whole, caller, tmp_path):
    """The third question comes after the file CANCEL: three solutions, all kept, and no fourth."""
    seen = []

    def watched(request) -> Answer:
        progress = tmp_path / PROGRESS
        seen.append(json.loads(progress.read_text())["accepted"] if progress.exists() else 0)
        if len(seen) == 3:
            (tmp_path / CANCEL).touch()
        return honest_teacher(request)

    with serve(watched) as server:
        price = {"prompt_per_million": 1000, "completion_per_million": 10_000}
        body = parse_request(GenerateExamples, sums_teacher(server, price=price))
        answer = examples.generate(whole, caller, body, run=here, watch=tmp_path)
        assert len(server.requests) == 3
        assert seen == [0, 1, 2]
        told = answer["teacher"]
        assert (told["asked"], told["accepted"]) == (3, 3)
        assert told["stopped"] == "stopped: the call was cancelled"
        spent = told["prompt_tokens"] * 0.001 + told["completion_tokens"] * 0.01
        assert told["cost"] == pytest.approx(spent) and spent > 0
        assert json.loads((tmp_path / PROGRESS).read_text())["cost"] == pytest.approx(spent)
        again = examples.generate(whole, caller, body, run=here)
        assert again["teacher"]["accepted"] == 6
        assert len(server.requests) == 6, "what was accepted before is not asked again"


def test_an_estimate_of_examples_asks_nobody_and_counts_what_could_be_asked(whole, caller):
    with serve(honest_teacher) as server:
        price = {"prompt_per_million": 1000, "completion_per_million": 10_000}
        raw = sums_teacher(server, price=price, max_tokens=100, max_rounds=2, repair="reasons")
        raw |= {"num_examples": 4, "policy": {"model": MODEL}, "mode": "weakness"}
        raw["rows"] += [row | {"reference_answer": "again"} for row in raw["rows"][:4]]
        found = examples.estimate(whole, caller, parse_request(GenerateExamples, raw), run=here)
        raw["teacher"]["repair"] = "blind"
        body = parse_request(GenerateExamples, raw)
        blind = examples.estimate(whole, caller, body, run=here)
        assert server.requests == []
    assert found["not_counted"].startswith("policy: it is sampled when")
    assert (found["problems_to_choose_from"], found["num_examples"]) == (6, 4)
    assert found["left_out"] == {"duplicate (exact)": 4}
    first, most = found["first_drafts"], found["at_most"]
    # Four drafts of a hundred tokens; and six problems, two rounds, none accepted.
    assert (first["drafts"], first["completion_tokens"]) == (4, 400)
    assert (most["drafts"], most["completion_tokens"]) == (12, 1200)
    # All problems are of one length: a draft's prompt is FORM, a line feed and the problem, by 4.
    prompt = -(-(len(FORM) + 1 + len("0000:1sr,2li")) // 4)
    assert first["prompt_tokens"] == 4 * prompt
    assert first["cost"] == pytest.approx(4 * prompt * 0.001 + 400 * 0.01)
    assert most["prompt_tokens"] > 2 * 6 * prompt + 6 * 100  # drafts go back with the reasons
    assert blind["at_most"]["prompt_tokens"] == 2 * 6 * prompt


def test_an_estimate_without_a_teacher_or_anything_to_ask_says_so(whole, caller):
    def refusal(raw: dict) -> RequestError:
        with pytest.raises(RequestError) as refused:
            examples.estimate(whole, caller, parse_request(GenerateExamples, raw), run=here)
        return refused.value

    assert refusal({"rows": problems(2)}).param == "teacher"
    assert refusal({"rows": problems(2), "mode": "weakness"}).param == "mode"
    with serve(honest_teacher) as server:
        raw = sums_teacher(server)
        raw["rows"] = [row | {"expert_steps": ["1"]} for row in raw["rows"]]
        assert refusal(raw).code == "nothing_to_solve"
    assert folders(whole) == []


def test_a_dead_teachers_words_reach_the_caller(whole, caller):
    rows = problems(30)
    for row in rows:
        row["reference_answer"] = "1"
    with serve(Answer({"error": "no such model"}, 404)) as server:
        teacher = {"type": "endpoint", "base_url": f"{server.url}/v1", "model": "t"}
        raw = {"rows": rows, "teacher": teacher, "grader": {"type": "answer"}}
        body = parse_request(GenerateExamples, raw)
        with pytest.raises(RequestError, match="no such model") as refused:
            examples.generate(whole, caller, body, run=here)
        assert len(server.requests) < 30
    assert (refused.value.code, refused.value.param) == ("teacher_failed", "teacher")


def test_a_job_asks_its_teacher_and_an_estimate_does_not(whole, tenant, caller):
    rows = problems(24)
    for row in rows:
        row["reference_answer"] = digit_programs.solve(row["messages"][0]["content"])[2]

    def honest(request) -> Answer:
        steps, _, answer = digit_programs.solve(request.json["messages"][1]["content"])
        return completion(f"1. {steps[0]}\n2. {steps[1]}\nAnswer: {answer}")

    with serve(honest) as server:
        request = {
            "model": MODEL,
            "training_file": uploaded(tenant, rows),
            "teacher": {"type": "endpoint", "base_url": f"{server.url}/v1", "model": "t"},
            "num_examples": 6,
            "documents": [tenant.upload(b"Of 2li: the last digit goes away.")],
        }
        job = tenant.post("/v1/fine_tuning/jobs", json=request).json()
        assert job["teacher"]["model"] == "t"
        assert job["documents"] == request["documents"]
        native.estimate(whole, caller, parse_request(CreateJob, request), run=here)
        assert server.requests == []
        prepared = prepare_job(whole.settings, job["id"], CLUSTER)
        assert len(server.requests) == 6
        for asked in server.requests:
            assert "the last digit goes away" in asked.json["messages"][0]["content"]
    assert prepared.error is None
    assert any("the teacher was asked for 6 solutions: 6 verified" in n for n in prepared.notes)
    folder = whole.settings.job_folder(job["id"])
    lines = (folder / "data" / "train.jsonl").read_text().splitlines()
    assert sum("expert_steps" in json.loads(line) for line in lines if line) == 6
    assert prepared.spec["srl"] is not None


def test_a_teacher_is_shown_the_passages_of_the_users_documents_that_matter(whole, tenant, caller):
    rule = "1sr means: swap the first two digits, then reverse."
    text = f"{rule}\n\n" + "Nothing of this is of use. " * 80
    rows = [*problems(1), {"messages": [{"role": "user", "content": "0000:1sr,2li "}]}]
    for row in rows:
        row["reference_answer"] = digit_programs.solve("0000:1sr,2li")[2]

    def honest(request) -> Answer:
        steps, _, answer = digit_programs.solve(request.json["messages"][1]["content"].strip())
        return completion(f"1. {steps[0]}\n2. {steps[1]}\nAnswer: {answer}")

    with serve(honest) as server:
        teacher = {"type": "endpoint", "base_url": f"{server.url}/v1", "model": "t"}
        raw = {"rows": rows, "teacher": teacher, "grader": {"type": "answer"}}
        raw["documents"] = [tenant.upload(text.encode()), tenant.upload(b"Cats sleep all day.")]
        body = parse_request(GenerateExamples, raw)
        answer = examples.generate(whole, caller, body, run=here)
        shown = server.requests[0].json["messages"][0]["content"]
        assert rule in shown and "Cats" not in shown
        assert answer["examples_generated"] == len(server.requests) == 1
        assert answer["teacher"]["left_out"] == {"duplicate (exact)": 1}
        told = answer["examples"][0]["provenance"]
        assert (told["verdict"], told["allocation"]) == ("accepted", "uniform")

        body = parse_request(GenerateExamples, raw | {"documents": [tenant.upload(b"\xff\xfe")]})
        with pytest.raises(RequestError, match=r"documents\[0\] is not UTF-8") as refused:
            examples.generate(whole, caller, body, run=here)
        assert refused.value.param == "documents"
        body = parse_request(GenerateExamples, raw | {"documents": ["file-none"]})
        with pytest.raises(RequestError, match="there is no file"):
            examples.generate(whole, caller, body, run=here)
    with pytest.raises(RequestError, match="give `teacher` too"):
        parse_request(GenerateExamples, {"rows": rows, "documents": ["file-1"]})


def test_an_estimate_says_what_of_more_examples_it_cannot_count(whole, tenant, caller):
    rows = problems(40)
    for row in rows:
        row["reference_answer"] = digit_programs.solve(row["messages"][0]["content"])[2]
    teacher = {"base_url": "http://localhost:1/v1", "model": "m"}
    request: dict[str, Any] = {"model": MODEL, "training_file": uploaded(tenant, rows)}
    request |= {"teacher": teacher, "more_examples": {"num_examples": 4}, "num_examples": 0}
    refused = refusal(
        lambda: native.estimate(whole, caller, parse_request(CreateJob, request), run=here)
    )
    assert refused.param == "more_examples"
    # Problems that no solver knows: the first steps are the teacher's, and an estimate asks nobody.
    for number, row in enumerate(rows):
        row["messages"] = [{"role": "user", "content": f"P{number}"}]
    request |= {"training_file": uploaded(tenant, rows), "num_examples": 8}
    found = native.estimate(whole, caller, parse_request(CreateJob, request), run=here)
    assert not {"srl", "more_examples"} & {part["name"] for part in found["parts"]}
    assert any(note.startswith("not counted: srl, more_examples") for note in found["notes"])
    rows[0]["expert_steps"] = ["so", rows[0]["reference_answer"]]
    request |= {"training_file": uploaded(tenant, rows), "num_examples": 0}
    found = native.estimate(whole, caller, parse_request(CreateJob, request), run=here)
    assert {"srl", "srl_2", "more_examples"} <= {part["name"] for part in found["parts"]}


def test_a_policy_is_measured_once_whoever_asks_and_the_answer_is_what_was_kept(
    tmp_path, monkeypatch
):
    """Two calls at once, as when a client repeats one that timed out."""
    measured: list[int] = []

    def slowly(*_: object) -> Outcomes:
        measured.append(1)
        time.sleep(0.3)
        outcomes = Outcomes()
        outcomes.add("rows:1", 4, len(measured))
        return outcomes

    monkeypatch.setattr(measure_policy, "_measured", slowly)
    kept = tmp_path / "x.measured.json"

    asked = measure_policy.PolicySampling(
        rows=(), path=tmp_path, policy={}, grader=None, seed=0, cluster={}, cancelled=lambda: False
    )

    def call(_: int) -> Outcomes:
        return measure_policy.measured_once(kept, asked)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(call, range(2))
    assert one.by_row == other.by_row
    assert measured == [1]
    os.utime(kept, (0, 0))
    call(0)
    assert kept.stat().st_mtime > time.time() - 60, "as old as the journals that depend on it"
