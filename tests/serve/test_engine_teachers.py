"""A model of the service as the teacher of a job and of examples, on real engines."""

import json

import pytest
import ray

from serve.native_calls import CLUSTER, MODEL, here, problems, refusal, uploaded
from serve_app import examples
from serve_app.errors import ApiError
from serve_app.native_schemas import GenerateExamples
from serve_app.preparation import prepare_job
from serve_app.request_types import parse_request
from train.experts.families import solve

TEACHER = {"type": "engine", "model": MODEL, "kv_cache_gib": 0.25, "num_threads": 1}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def answered(count: int) -> list[dict]:
    """Problems that no solver knows, with answers."""
    return [
        {"messages": [{"role": "user", "content": f"P{n}"}], "reference_answer": "1"}
        for n in range(count)
    ]


def test_a_job_asks_the_model_and_says_why_it_taught_nothing(whole, tenant):
    request = {
        "model": MODEL,
        "training_file": uploaded(tenant, answered(24)),
        "teacher": TEACHER | {"repair": "reasons"},
        "num_examples": 6,
        "seed": 1,
    }
    job = tenant.post("/v1/fine_tuning/jobs", json=request).json()
    assert (job["teacher"]["type"], job["teacher"]["model"]) == ("engine", MODEL)
    prepared = prepare_job(whole.settings, job["id"], CLUSTER)
    assert prepared.error is not None
    assert (prepared.error["code"], prepared.error["param"]) == ("teacher_failed", "teacher")
    # A draft of this model is none, and with the reasons its context of 256 is full.
    assert "0 verified" in prepared.error["message"]
    assert "teacher: context_length" in prepared.error["message"]
    journal = whole.settings.job_folder(job["id"]) / "teacher.jsonl"
    entries = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert {entry["outcome"] for entry in entries} == {"dropped"}


def test_examples_are_asked_of_the_model(whole, caller):
    raw = {"rows": answered(3), "teacher": TEACHER, "grader": {"type": "answer"}}
    body = parse_request(GenerateExamples, raw)
    error = refusal(lambda: examples.generate(whole, caller, body, run=here))
    assert (error.param, error.code) == ("teacher", "no_verified_solution")
    assert "asked for 3 solutions: 0 verified" in error.message


def test_a_model_that_the_project_cannot_name_is_no_teacher(whole, tenant, caller):
    teacher = TEACHER | {"model": "nothing"}
    request = {
        "model": MODEL,
        "training_file": uploaded(tenant, problems(24)),
        "teacher": teacher,
    }
    answer = tenant.post("/v1/fine_tuning/jobs", json=request)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "teacher.model"
    assert answer.json()["error"]["code"] == "model_not_found"
    body = parse_request(GenerateExamples, {"rows": problems(2), "teacher": teacher})
    with pytest.raises(ApiError, match="'nothing' does not exist"):
        examples.generate(whole, caller, body, run=here)


def test_a_policy_is_sampled_and_its_failures_decide_what_is_asked(whole, tenant, caller):
    """The base model does one-line programs now and then, and three-line programs hardly."""
    kinds = {"short": "1sr", "long": "1sr,2li,3ec"}
    rows = [
        {"messages": [{"role": "user", "content": f"{n:04d}:{code}"}], "skill": kind}
        for kind, code in kinds.items()
        for n in range(1000, 1040)
    ]
    for row in rows:
        solution = solve(row["messages"][0]["content"])
        assert solution is not None
        row["reference_answer"] = solution.answer
        if row["messages"][0]["content"].startswith("1000"):
            row["expert_steps"] = list(solution.steps)
    raw = {"rows": rows, "num_examples": 20, "mode": "weakness", "seed": 3}
    raw |= {"grader": {"type": "answer", "pattern": "=(\\d{4})$"}}
    raw |= {"policy": {"model": MODEL, "num_problems": 80, "num_samples": 4}}
    body = parse_request(GenerateExamples, raw)
    answer = examples.generate(whole, caller, body, run=here)
    assert (answer["mode"], answer["examples_generated"]) == ("weakness", 20)
    skills = answer["policy"]["skills"]
    assert {name: one["num_rows"] for name, one in skills.items()} == {"short": 40, "long": 40}
    assert all(one["step_reward"] is not None for one in skills.values())
    assert skills["short"]["pass_rate"] > skills["long"]["pass_rate"]
    planned = answer["policy"]["planned"]
    assert planned["long"] > planned["short"] > 0
    lines = tenant.get(f"/v1/files/{answer['file_id']}/content").text.splitlines()
    written = [json.loads(line) for line in lines]
    assert sum(row["skill"] == "long" for row in written) == planned["long"]
    again = examples.generate(whole, caller, body, run=here)
    assert again["policy"] == answer["policy"], "float32 and seeds: the same samples"
