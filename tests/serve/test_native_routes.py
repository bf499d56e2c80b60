"""The short way over HTTP: a job from rows in one call, and the calls beside jobs."""

import json

import pytest

from serve.kit import BASE_MODEL, error_of
from serve_app import native_work, tasks

ROWS = [
    {"messages": [{"role": "user", "content": f"{n}+2?"}], "reference_answer": str(n + 2)}
    for n in range(20)
]
CLUSTER = {"CPU": 2.0, "memory": 8e9}


@pytest.fixture
def here(monkeypatch) -> list[str]:
    """The work runs in this process instead of on Ray; gives the names of what was run."""
    ran: list[str] = []

    def run(service, caller, deadline_s, function, arguments):
        ran.append(function)
        extra = {} if function == "generate_examples" else {"cluster": CLUSTER}
        return getattr(native_work, function)(**arguments, **extra)

    monkeypatch.setattr(tasks, "on_ray", run)
    return ran


def start(tenant, **fields) -> dict:
    """Start a job."""
    body = {"model": BASE_MODEL, "rows": ROWS, **fields}
    response = tenant.post("/v1/training/start", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_rows_alone_start_a_job_that_is_a_job_like_any(tenant):
    started = start(tenant)
    assert set(started) == {"job_id", "status", "message"}
    assert started["status"] == "validating_files"
    job = tenant.get(f"/v1/fine_tuning/jobs/{started['job_id']}").json()
    content = tenant.get(f"/v1/files/{job['training_file']}/content").text
    assert [json.loads(line) for line in content.splitlines()] == ROWS


def test_status_is_flat_and_follows_the_job(tenant):
    job_id = start(tenant)["job_id"]
    status = tenant.get(f"/v1/training/{job_id}/status").json()
    expected = {"job_id", "status", "stage", "progress", "metrics", "model", "started_at"}
    assert expected | {"completed_at", "failed_at", "error"} <= set(status)
    assert (status["model"], status["started_at"], status["error"]) == (BASE_MODEL, None, None)
    tenant.set_job(job_id, status="running", stage="srl", started_at=5, steps_planned=4)
    tenant.set_job(job_id, steps_done=1, metrics={"train_mean_reward": 0.5})
    status = tenant.get(f"/v1/training/{job_id}/status").json()
    assert (status["status"], status["stage"], status["progress"]) == ("running", "srl", 0.25)
    assert status["metrics"] == {"train_mean_reward": 0.5}
    error = {"code": "x", "message": "y", "param": None}
    tenant.set_job(job_id, status="failed", finished_at=9, error=error)
    status = tenant.get(f"/v1/training/{job_id}/status").json()
    assert (status["failed_at"], status["completed_at"], status["error"]) == (9, None, error)
    tenant.set_job(job_id, status="succeeded", error=None, fine_tuned_model="ft:x")
    status = tenant.get(f"/v1/training/{job_id}/status").json()
    assert (status["failed_at"], status["completed_at"], status["model"]) == (None, 9, "ft:x")


def test_a_cancel_is_that_of_the_job(tenant):
    job_id = start(tenant)["job_id"]
    answer = tenant.post(f"/v1/training/{job_id}/cancel").json()
    assert (answer["job_id"], answer["status"]) == (job_id, "cancelled")
    assert tenant.get(f"/v1/fine_tuning/jobs/{job_id}").json()["status"] == "cancelled"
    other = start(tenant)["job_id"]
    tenant.set_job(other, status="succeeded")
    response = tenant.post(f"/v1/training/{other}/cancel")
    error_of(response, 400)
    assert response.headers["x-should-retry"] == "false"


def test_the_list_is_paged_as_every_list(tenant, stranger):
    start(stranger)
    made = [start(tenant)["job_id"] for _ in range(3)]
    page = tenant.get("/v1/training", params={"limit": 2}).json()
    assert [item["job_id"] for item in page["data"]] == made[:0:-1]
    assert page["has_more"] is True
    rest = tenant.get("/v1/training", params={"after": page["data"][-1]["id"]}).json()
    assert [item["job_id"] for item in rest["data"]] == made[:1]
    error_of(tenant.get("/v1/training", params={"after": "x"}), 400)


def test_a_start_that_is_sent_twice_makes_one_job_and_one_file(tenant):
    body = {"model": BASE_MODEL, "rows": ROWS}
    for headers in ({"idempotency-key": "k"}, {"x-stainless-retry-count": "1"}):
        first = tenant.post("/v1/training/start", json=body, headers=headers).json()
        again = tenant.post("/v1/training/start", json=body, headers=headers).json()
        assert first["job_id"] == again["job_id"]
    assert len(tenant.get("/v1/training").json()["data"]) == 2
    assert len(tenant.get("/v1/files").json()["data"]) == 2
    other = {**body, "rows": ROWS[:10]}
    headers = {"idempotency-key": "k"}
    error_of(tenant.post("/v1/training/start", json=other, headers=headers), 409)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"rows": None}, "rows"),
        ({"file": "file-x"}, "rows"),
        ({"rows": None, "file": "file-x"}, "training_file"),
        ({"model": "nothing"}, "model"),
        ({"srl": None, "rlvr": None}, "rlvr"),
        ({"extra": 1}, "extra"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_the_field(tenant, fields, param):
    body = {"model": BASE_MODEL, "rows": ROWS, **fields}
    body = {name: value for name, value in body.items() if name != "rows" or value is not None}
    assert error_of(tenant.post("/v1/training/start", json=body), 400)["param"] == param
    assert tenant.get("/v1/files").json()["data"] == []


def test_the_same_routes_answer_without_the_version(tenant):
    job_id = tenant.post("/training/start", json={"model": BASE_MODEL, "rows": ROWS}).json()
    assert tenant.get(f"/training/{job_id['job_id']}/status").status_code == 200
    assert len(tenant.get("/training").json()["data"]) == 1


@pytest.mark.parametrize("prefix", ["/v1/examples/generate", "/v1/fine_tuning/examples"])
def test_examples_become_a_file_that_can_be_looked_at(tenant, here, prefix):
    rows = [{"messages": [{"role": "user", "content": f"{n:04d}:1sr,2li"}]} for n in range(20)]
    made = tenant.post(prefix, json={"rows": rows, "num_examples": 12}).json()
    assert here == ["generate_examples"]
    assert (made["examples_generated"], len(made["examples"])) == (12, 10)
    shown = tenant.get(prefix.removesuffix("/generate") + f"/{made['file_id']}").json()
    assert shown["examples"] == made["examples"]
    error_of(tenant.get(prefix.removesuffix("/generate") + "/file-x"), 404)


def test_an_estimate_is_told_before_anything_starts(tenant, here):
    body = tenant.body(training_file=tenant.upload("\n".join(map(json.dumps, ROWS)).encode()))
    answer = tenant.post("/v1/fine_tuning/estimate", json=body)
    assert answer.status_code == 200, answer.text
    assert here == ["estimate_job"]
    assert tenant.get("/v1/fine_tuning/jobs").json()["data"] == []
    error_of(tenant.post("/v1/fine_tuning/estimate", json=body | {"model": "nothing"}), 400)


@pytest.mark.parametrize(
    ("raised", "code"),
    [(TimeoutError("waited 5 s"), "cluster_full"), (ConnectionError("no Ray"), "ray_down")],
)
def test_a_cluster_that_is_full_or_down_is_a_503(tenant, monkeypatch, raised, code):
    def run(*arguments):
        raise raised

    monkeypatch.setattr(tasks, "on_ray", run)
    response = tenant.post("/v1/model/select", json={"task": "sums", "rows": ROWS})
    assert error_of(response, 503)["code"] == code
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\n", b"text\n", b"[" * 100_000 + b"\n", b'{"x": "\\ud800"}\n', b"5\n"]
)
def test_a_preview_of_what_holds_no_rows_is_a_400(tenant, content):
    file_id = tenant.upload(content)
    for path in ("/v1/examples", "/v1/fine_tuning/examples"):
        assert error_of(tenant.get(f"{path}/{file_id}"), 400)["param"] == "file_id"


def test_a_preview_counts_every_row_and_shows_ten(tenant):
    file_id = tenant.upload(b"\n".join(b'{"n": %d}' % n for n in range(25)) + b"\n\n")
    shown = tenant.get(f"/v1/examples/{file_id}").json()
    assert shown["examples_generated"] == 25
    assert shown["examples"] == [{"n": n} for n in range(10)]
