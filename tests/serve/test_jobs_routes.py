"""Jobs over HTTP: created once, listed without gaps, stopped and resumed by their state."""

import json
import threading

import pytest
from openai.types.fine_tuning import FineTuningJob
from starlette.testclient import TestClient

from serve.kit import Tenant, error_of, whole_service
from serve_app.job_state import JobStatus
from serve_app.store import idempotency, jobs
from serve_app.store.tables import Attempt, Idempotency

JOBS = "/v1/fine_tuning/jobs"


def num_jobs(client: Tenant) -> int:
    """How many jobs the project has."""
    with client.service.database.read() as session:
        return len(jobs.list_jobs(session, client.project_id, limit=1000)[0])


def test_a_created_job_is_read_by_the_stock_client_and_stands_in_the_store(tenant):
    created = tenant.create(
        suffix="mine", seed=7, metadata={"a": "1"}, srl={"max_steps": 2}, rlvr={"max_steps": 3}
    )
    job = FineTuningJob.model_validate(created, strict=True)
    assert job.id.startswith("ftjob-")
    assert (job.status, job.model, job.seed) == ("validating_files", "ferrata-tiny", 7)
    assert (job.error, job.fine_tuned_model, job.finished_at) == (None, None, None)
    assert (job.organization_id, job.metadata) == ("ferrata", {"a": "1"})
    assert job.method and job.method.type == "reinforcement"
    assert job.method.reinforcement and job.method.reinforcement.grader
    assert created["hyperparameters"] == {}
    assert created["user_provided_suffix"] == "mine"
    assert (created["srl"], created["rlvr"]) == ({"max_steps": 2}, {"max_steps": 3})
    assert (created["stage"], created["progress"], created["ray_job_id"]) == (None, 0.0, None)
    assert tenant.get(f"{JOBS}/{job.id}").json() == created
    row = tenant.row(job.id)
    assert (row.project_id, row.status) == (tenant.project_id, "validating_files")
    assert row.out == str(tenant.service.settings.job_folder(job.id) / "out")
    assert tenant.service.manager.num_nudges == 1


def test_a_seed_that_was_not_given_is_drawn(tenant):
    seeds = {tenant.create()["seed"] for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"method": {"type": "supervised"}}, "method.type"),
        ({"hyperparameters": {"n_epochs": 2}}, "hyperparameters"),
        ({"model": "nothing"}, "model"),
        ({"model": "/etc"}, "model"),
        ({"model": "../models/ferrata-tiny"}, "model"),
        ({"model": "owner/name"}, "model"),
        ({"training_file": "file-nothing"}, "training_file"),
        ({"validation_file": "file-nothing"}, "validation_file"),
        ({"heldout_file": "file-nothing"}, "heldout_file"),
        ({"seed": -1}, "seed"),
        ({"suffix": ""}, "suffix"),
        ({"unknown": 1}, "unknown"),
        ({"method": {"type": "dpo", "dpo": {}}}, "method"),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "x"}}}},
            "method.reinforcement.grader",
        ),
    ],
)
def test_what_cannot_be_trained_is_a_400_that_names_the_field_and_no_job(tenant, fields, param):
    error = error_of(tenant.post(JOBS, json=tenant.body(**fields)), 400)
    assert error["param"].startswith(param)
    assert error["type"] == "invalid_request_error"
    assert num_jobs(tenant) == 0


def test_a_file_of_another_purpose_is_refused(tenant):
    body = tenant.body(training_file=tenant.upload(purpose="user_data"))
    error = error_of(tenant.post(JOBS, json=body), 400)
    assert (error["param"], error["code"]) == ("training_file", "invalid_file_purpose")


def test_another_projects_file_and_model_are_as_unknown_as_any(tenant, stranger):
    theirs = stranger.upload()
    unknown = "file-" + "x" * (len(theirs) - 5)
    answers = [
        tenant.post(JOBS, json=tenant.body(training_file=name)).json() for name in (theirs, unknown)
    ]
    assert json.dumps(answers[0]).replace(theirs, unknown) == json.dumps(answers[1])


def test_a_body_that_is_no_json_is_a_400(tenant):
    response = tenant.post(JOBS, content=b"{", headers={"content-type": "application/json"})
    error_of(response, 400)
    error_of(tenant.post(JOBS, json=[1]), 400)
    error_of(tenant.post(JOBS), 400)


class TestSentTwice:
    """A create that is sent twice makes one job."""

    def test_the_same_idempotency_key_answers_the_same_job(self, tenant):
        body, headers = tenant.body(), {"idempotency-key": "k"}
        first = tenant.post(JOBS, json=body, headers=headers)
        again = tenant.post(JOBS, json=body, headers=headers)
        assert first.json()["id"] == again.json()["id"]
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert num_jobs(tenant) == 1

    def test_the_key_with_another_body_is_a_conflict_that_is_not_retried(self, tenant):
        body, headers = tenant.body(), {"idempotency-key": "k"}
        tenant.post(JOBS, json=body, headers=headers)
        response = tenant.post(JOBS, json=body | {"seed": 3}, headers=headers)
        assert error_of(response, 409)["code"] == "idempotency_key_reused"
        assert response.headers["x-should-retry"] == "false"

    def test_a_key_belongs_to_its_project(self, tenant, stranger):
        headers = {"idempotency-key": "k"}
        ours = tenant.post(JOBS, json=tenant.body(), headers=headers).json()
        theirs = stranger.post(JOBS, json=stranger.body(), headers=headers).json()
        assert ours["id"] != theirs["id"]

    def test_a_refused_create_uses_up_no_key(self, tenant):
        headers, body = {"idempotency-key": "k"}, tenant.body()
        error_of(tenant.post(JOBS, json=body | {"model": "nothing"}, headers=headers), 400)
        assert tenant.post(JOBS, json=body, headers=headers).status_code == 200

    def test_a_key_must_have_some_sense(self, tenant):
        for key in ("", "x" * 256):
            headers = {"idempotency-key": key}
            error_of(tenant.post(JOBS, json=tenant.body(), headers=headers), 400)

    def test_a_clients_retry_answers_the_first_job_and_a_new_call_makes_another(self, tenant):
        body = tenant.body()
        first = tenant.post(JOBS, json=body, headers={"x-stainless-retry-count": "0"}).json()
        retry = tenant.post(JOBS, json=body, headers={"x-stainless-retry-count": "1"}).json()
        assert retry["id"] == first["id"]
        second = tenant.post(JOBS, json=body, headers={"x-stainless-retry-count": "0"}).json()
        assert second["id"] != first["id"]
        retry = tenant.post(JOBS, json=body, headers={"x-stainless-retry-count": "2"}).json()
        assert retry["id"] == second["id"]
        assert num_jobs(tenant) == 2

    def test_a_retry_of_what_never_arrived_makes_the_job(self, tenant):
        headers = {"x-stainless-retry-count": "1"}
        assert tenant.post(JOBS, json=tenant.body(), headers=headers).status_code == 200

    def test_a_retry_with_another_key_or_body_is_another_call(self, tenant):
        body, headers = tenant.body(), {"x-stainless-retry-count": "1"}
        first = tenant.post(JOBS, json=body).json()
        other_body = tenant.post(JOBS, json=body | {"seed": 3}, headers=headers).json()
        key = tenant.service.keyring.create_key(tenant.project, "second")[1]
        other_key = tenant.post(
            JOBS, json=body, headers=headers | {"authorization": f"Bearer {key}"}
        ).json()
        assert len({first["id"], other_body["id"], other_key["id"]}) == 3

    def test_a_retry_that_comes_much_later_is_a_new_call(self, tenant):
        body, headers = tenant.body(), {"x-stainless-retry-count": "1"}
        first = tenant.post(JOBS, json=body).json()
        with tenant.service.database.write() as session:
            for row in session.query(Idempotency):
                row.created_at -= idempotency.RETRY_WINDOW_S + 1
        assert tenant.post(JOBS, json=body, headers=headers).json()["id"] != first["id"]

    def test_creates_of_one_key_at_the_same_moment_make_one_job(self, tenant):
        body, start = tenant.body(), threading.Barrier(8)
        found: list[tuple[int, str]] = []

        def send() -> None:
            client = TestClient(tenant.app)
            start.wait()
            headers = {"authorization": f"Bearer {tenant.key}", "idempotency-key": "k"}
            response = client.post(JOBS, json=body, headers=headers)
            found.append((response.status_code, response.json().get("id", response.text)))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert len(set(found)) == 1, found
        assert found[0][0] == 200
        assert num_jobs(tenant) == 1


def test_a_project_may_have_so_many_open_jobs_and_no_more(database, tmp_path):
    client = Tenant(whole_service(database, tmp_path, max_open_jobs_per_project=2), "small")
    body = client.body()
    first = client.create(training_file=body["training_file"])
    client.create(training_file=body["training_file"])
    response = client.post(JOBS, json=body)
    assert error_of(response, 429)["code"] == "too_many_open_jobs"
    assert int(response.headers["retry-after"]) > 0
    client.post(f"{JOBS}/{first['id']}/cancel")
    assert client.post(JOBS, json=body).status_code == 200


class TestLists:
    """Pages, newest first."""

    def test_pages_have_no_gap_and_no_duplicate_while_jobs_are_created(self, tenant):
        body = tenant.body()
        made = [tenant.create(**body)["id"] for _ in range(105)]
        found, after, created = [], None, 0
        while True:
            params = {"limit": 20, **({"after": after} if after else {})}
            page = tenant.get(JOBS, params=params).json()
            assert page["object"] == "list"
            found += [job["id"] for job in page["data"]]
            if not page["has_more"]:
                break
            after = found[-1]
            tenant.create(**body)
            created += 1
        assert created >= 5
        assert found == made[::-1]

    def test_metadata_filters_by_every_pair(self, tenant):
        body = tenant.body()
        odd = 'a."b]\\c'
        both = tenant.create(**body, metadata={"team": "x", odd: "1"})["id"]
        one = tenant.create(**body, metadata={"team": "x"})["id"]
        tenant.create(**body)

        def ids(**params) -> list[str]:
            return [job["id"] for job in tenant.get(JOBS, params=params).json()["data"]]

        assert ids(**{"metadata[team]": "x"}) == [one, both]
        assert ids(**{"metadata[team]": "x", f"metadata[{odd}]": "1"}) == [both]
        assert ids(**{"metadata[team]": "y"}) == []
        error_of(tenant.get(JOBS, params={"metadata": "null"}), 400)

    @pytest.mark.parametrize("limit", ["0", "101", "-1", "x", ""])
    def test_a_limit_outside_1_to_100_is_a_400(self, tenant, limit):
        error = error_of(tenant.get(JOBS, params={"limit": limit}), 400)
        assert error["param"] == "limit"

    def test_an_unknown_cursor_is_a_400(self, tenant, stranger):
        theirs = stranger.create()["id"]
        for after in ("ftjob-nothing", "", theirs):
            error = error_of(tenant.get(JOBS, params={"after": after}), 400)
            assert error["param"] == "after"

    def test_a_list_holds_only_the_projects_own(self, tenant, stranger):
        stranger.create()
        mine = tenant.create()["id"]
        assert [job["id"] for job in tenant.get(JOBS).json()["data"]] == [mine]

    def test_the_ray_job_of_the_newest_attempt_is_shown(self, tenant):
        job_id = tenant.create()["id"]
        with tenant.service.database.write() as session:
            for number in (1, 2):
                session.add(
                    Attempt(
                        job_id=job_id,
                        number=number,
                        submission_id=f"{job_id}-{number}",
                        status="lost",
                        steps_done_at_start=0,
                        created_at=1,
                        ended_at=2,
                    )
                )
        assert tenant.get(JOBS).json()["data"][0]["ray_job_id"] == f"{job_id}-2"


class TestStates:
    """Cancel, pause, resume: what each does, and when it may be asked for."""

    def test_a_job_that_waits_is_cancelled_at_once(self, tenant):
        job_id = tenant.create()["id"]
        answer = tenant.post(f"{JOBS}/{job_id}/cancel").json()
        assert (answer["status"], answer["id"]) == ("cancelled", job_id)
        assert answer["finished_at"] is not None
        again = tenant.post(f"{JOBS}/{job_id}/cancel")
        assert again.json() == answer

    def test_a_running_job_is_asked_to_stop_and_shown_as_it_is(self, tenant):
        job_id = tenant.create()["id"]
        tenant.set_job(job_id, status="running")
        assert tenant.post(f"{JOBS}/{job_id}/pause").json()["status"] == "running"
        assert tenant.row(job_id).requested == "pause"
        error_of(tenant.post(f"{JOBS}/{job_id}/resume"), 400)
        assert tenant.post(f"{JOBS}/{job_id}/cancel").json()["status"] == "running"
        assert tenant.row(job_id).requested == "cancel"
        error_of(tenant.post(f"{JOBS}/{job_id}/pause"), 400)

    def test_a_paused_job_goes_back_to_the_queue(self, tenant):
        job_id = tenant.create()["id"]
        assert tenant.post(f"{JOBS}/{job_id}/pause").json()["status"] == "paused"
        nudges = tenant.service.manager.num_nudges
        assert tenant.post(f"{JOBS}/{job_id}/resume").json()["status"] == "queued"
        assert tenant.service.manager.num_nudges == nudges + 1
        assert tenant.post(f"{JOBS}/{job_id}/resume").json()["status"] == "queued"

    @pytest.mark.parametrize("status", [s for s in JobStatus if s.terminal])
    @pytest.mark.parametrize("what", ["cancel", "pause", "resume"])
    def test_a_job_that_ended_answers_400_and_is_not_asked_again(self, tenant, status, what):
        job_id = tenant.create()["id"]
        tenant.set_job(job_id, status=status.value)
        response = tenant.post(f"{JOBS}/{job_id}/{what}")
        if (status, what) == (JobStatus.CANCELLED, "cancel"):
            assert response.status_code == 200
            return
        error = error_of(response, 400)
        assert status.value in error["message"]
        assert response.headers["x-should-retry"] == "false"
        assert tenant.row(job_id).status == status.value

    def test_no_body_is_needed_and_an_empty_json_one_is_taken(self, tenant):
        job_id = tenant.create()["id"]
        headers = {"content-type": "application/json"}
        assert tenant.post(f"{JOBS}/{job_id}/pause", headers=headers).status_code == 200

    @pytest.mark.parametrize("what", ["cancel", "pause", "resume"])
    def test_an_unknown_job_is_a_404(self, tenant, what):
        error = error_of(tenant.post(f"{JOBS}/ftjob-nothing/{what}"), 404)
        assert error["code"] == "fine_tune_not_found"


def test_progress_is_one_only_at_success(tenant):
    job_id = tenant.create()["id"]

    def shown(**columns) -> float:
        tenant.set_job(job_id, **columns)
        return tenant.get(f"{JOBS}/{job_id}").json()["progress"]

    assert shown(steps_planned=8) == 0.0
    assert shown(steps_done=2) == 0.25
    assert 7 / 8 < shown(steps_done=8, status="running") < 1
    assert shown(status="succeeded") == 1.0
