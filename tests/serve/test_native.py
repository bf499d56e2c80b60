"""Estimates, selection and the one-call start, over real files and rows; Ray is not needed."""

import json
from dataclasses import replace

import pytest

from serve.kit import error_of
from serve.native_calls import (
    CLUSTER,
    MODEL,
    folders,
    here,
    problems,
    refusal,
    uploaded,
)
from serve_app import examples, native
from serve_app.create import Attempted
from serve_app.native_schemas import GenerateExamples, SelectModel
from serve_app.preparation import prepare_job
from serve_app.request_types import parse_request
from serve_app.schemas import CreateJob, StartTraining
from serve_app.store import jobs
from serve_app.store.events import add_event
from serve_app.store.tables import StoredFile


def test_rows_start_a_job_whose_rows_are_a_file_of_the_project(whole, tenant, caller):
    body = parse_request(StartTraining, {"model": MODEL, "rows": problems(20)})
    job, replayed = native.start_training(whole, caller, body, Attempted())
    assert not replayed
    assert job.request["num_examples"] == "auto"
    content = tenant.get(f"/v1/files/{job.training_file}/content").text
    assert [json.loads(line) for line in content.splitlines()] == problems(20)


def test_a_start_that_is_refused_leaves_no_file(whole, tenant, caller):
    from serve_app.errors import ApiError

    body = parse_request(StartTraining, {"model": "no-such-model", "rows": problems(20)})
    with pytest.raises(ApiError):
        native.start_training(whole, caller, body, Attempted())
    assert tenant.get("/v1/files").json()["data"] == []


def test_an_estimate_counts_tokens_and_operations_and_has_no_seconds_before_a_job_ran(
    whole, tenant, caller
):
    file_id = uploaded(tenant, problems(60))
    body = parse_request(CreateJob, {"model": MODEL, "training_file": file_id, "seed": 1})
    answer = native.estimate(whole, caller, body, run=here)
    assert [part["name"] for part in answer["parts"]] == ["srl", "rlvr", "validation"]
    assert 0 < answer["tokens"]["expected"]["sampled"] < answer["tokens"]["at_most"]["sampled"]
    assert answer["flops"]["expected"]["total"] > 0
    assert answer["device_seconds"] is None
    assert answer["resolved"]["srl"]["max_steps"] > 0
    assert folders(whole) == []


def test_an_estimate_has_seconds_once_the_model_was_trained_here(whole, tenant, caller):
    file_id = uploaded(tenant, problems(60))
    with whole.database.write() as session:
        job = jobs.new_job(project_id=tenant.project_id, request={}, out="o", model=MODEL, seed=0)
        jobs.create_job(session, job)
        timing = {"step": {"sampling": 2.0, "training": 1.0}}
        data = {"num_tokens": 1000, "trained_tokens": 900, "learner_tokens": 4000}
        data["timing"] = timing
        add_event(session, job, message="Step 1/2", type="metrics", data=data)
        add_event(session, job, message="Step 2/2", type="metrics", data={"num_tokens": None})
    body = parse_request(CreateJob, {"model": MODEL, "training_file": file_id, "seed": 1})
    answer = native.estimate(whole, caller, body, run=here)
    tokens = answer["tokens"]["expected"]
    assert answer["device_seconds"] == pytest.approx(
        tokens["sampled"] / 500 + tokens["trained"] / 4000, rel=0.01
    )


def test_an_estimate_of_wrong_rows_names_field_and_line(whole, tenant, caller):
    rows = [*problems(20), {"messages": [{"content": "x"}]}]
    body = parse_request(CreateJob, {"model": MODEL, "training_file": uploaded(tenant, rows)})
    error = refusal(lambda: native.estimate(whole, caller, body, run=here))
    assert (error.param, error.code) == ("training_file", "invalid_training_file")
    assert "Example 21, message 1: 'role' is missing" in error.message
    assert folders(whole) == []


def test_bodies_beside_jobs_refuse_what_they_do_not_do():
    both = {"rows": problems(1), "file": "file-1"}
    for body, model, param in [
        (both, GenerateExamples, "rows"),
        ({"rows": problems(1), "teacher": {"model": "m"}}, GenerateExamples, "teacher.base_url"),
        ({"rows": problems(1), "num_examples": 0}, GenerateExamples, "num_examples"),
        ({"rows": problems(1)}, SelectModel, "task"),
        ({"task": "t", "rows": problems(9)}, SelectModel, "rows"),
        ({"rows": []}, GenerateExamples, "rows"),
        ({"rows": problems(9), "policy": {"model": "m"}}, GenerateExamples, "rows"),
        ({"task": "t"}, SelectModel, "rows"),
        ({"task": "t", "rows": problems(1), "constraints": {"x": 1}}, SelectModel, "constraints.x"),
    ]:
        assert refusal(lambda b=body, m=model: parse_request(m, b)).param == param


def test_another_projects_file_and_unknown_models_are_refused_alike(
    whole, tenant, stranger, caller
):
    theirs = uploaded(stranger, problems(20))
    body = parse_request(GenerateExamples, {"file": theirs})
    unknown = parse_request(GenerateExamples, {"file": "file-nothing"})
    errors = [
        refusal(lambda b=b: examples.generate(whole, caller, b, run=here)) for b in (body, unknown)
    ]
    assert errors[0].message.replace(theirs, "X") == errors[1].message.replace("file-nothing", "X")
    wanted = {"task": "t", "rows": problems(10), "constraints": {"models": ["nothing"]}}
    error = refusal(
        lambda: native.select_model(whole, caller, parse_request(SelectModel, wanted), run=here)
    )
    assert (error.param, error.code) == ("constraints.models", "model_not_found")


def test_models_that_are_too_large_are_left_out_with_the_reason(whole, caller):
    wanted = {"task": "t", "rows": problems(12), "constraints": {"max_parameters": 1000}}
    error = refusal(
        lambda: native.select_model(whole, caller, parse_request(SelectModel, wanted), run=here)
    )
    assert (error.param, error.code) == ("constraints", "no_model_within_limits")
    assert "342,528 parameters, max_parameters is 1,000" in error.message


def test_files_of_another_use_are_not_touched(whole, tenant, caller):
    kept = uploaded(tenant, problems(12))
    body = parse_request(StartTraining, {"model": MODEL, "file": kept})
    job, _ = native.start_training(whole, caller, body, Attempted())
    assert job.training_file == kept
    with whole.database.read() as session:
        assert session.query(StoredFile).count() == 1


def test_a_jobs_documents_are_checked_like_its_files(whole, tenant):
    request = {
        "model": MODEL,
        "training_file": uploaded(tenant, problems(24)),
        "teacher": {"type": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "t"},
        "documents": ["file-none"],
    }
    refused = error_of(tenant.post("/v1/fine_tuning/jobs", json=request), 400)
    assert (refused["param"], refused["code"]) == ("documents[0]", "file_not_found")
    alone = {name: value for name, value in request.items() if name != "teacher"}
    refused = error_of(tenant.post("/v1/fine_tuning/jobs", json=alone), 400)
    assert refused["param"] == "documents"
    request["documents"] = [tenant.upload(b"\xff\xfe")]
    job = tenant.post("/v1/fine_tuning/jobs", json=request).json()
    told = prepare_job(whole.settings, job["id"], CLUSTER).error
    assert told is not None and told["code"] == "invalid_document"


def test_a_licence_that_the_catalogue_does_not_grant_leaves_a_model_out(whole, caller, tmp_path):
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(f"- {{name: {MODEL}, path: x, licence: GPL-3.0-only, latency_ms: 5}}\n")
    settings = whole.settings.model_copy(update={"catalogue": catalogue})
    service = replace(whole, settings=settings)
    for constraints, said in (
        ({"licences": ["Apache-2.0"]}, "its licence is GPL-3.0-only, allowed are Apache-2.0"),
        ({"max_latency_ms": 2}, "5 ms per token, max_latency_ms is 2"),
    ):
        wanted = {"task": "t", "rows": problems(20), "constraints": constraints}
        error = refusal(
            lambda w=wanted: native.select_model(
                service, caller, parse_request(SelectModel, w), run=here
            )
        )
        assert error.code == "no_model_within_limits"
        assert said in error.message
