"""The stock OpenAI clients, unmodified and in environments of their own, against a real server.

The service here has a real store and no Ray: what needs training is in test_openai_clients.py.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from conftest import ROOT, free_port

from serve.kit import BASE_MODEL, Tenant, whole_service
from serve.stock import SCRIPTS, VERSIONS, run_client
from serve_app.api import create_api
from serve_app.store import jobs
from serve_app.store.database import Database
from serve_app.store.events import add_event
from serve_app.store.tables import JobCheckpoint, Model


@dataclass
class Server:
    """A server in a thread, what it was asked, and how it misbehaves."""

    tenant: Tenant
    base_url: str
    # Number of calls by "METHOD /path", ids shortened to <id>.
    calls: Counter = field(default_factory=Counter)
    # Called with the method and path of a call that was answered: True breaks the connection.
    breaks: Callable[[str], bool] = lambda call: False

    def middleware(self, app: Any) -> Any:
        """Counts calls, and breaks off where it is told to, after the application did its work."""

        async def counting(scope, receive, send):
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            call = f"{scope['method']} {re.sub(r'ftjob-[A-Za-z0-9]+', '<id>', scope['path'])}"
            self.calls[call] += 1
            kept = []

            async def keep(message):
                kept.append(message)
                if not self.breaks(call):
                    await send(message)

            await app(scope, receive, keep)
            if self.breaks(call):
                raise ConnectionError(f"broken off after {len(kept)} messages, as the test wants")

        return counting


@pytest.fixture(scope="module")
def server(sqlite_template, tmp_path_factory) -> Iterator[Server]:
    """A service that listens, with a job that has ended."""
    folder = tmp_path_factory.mktemp("stock")
    (folder / "ferrata.db").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{folder / 'ferrata.db'}")
    service = whole_service(database, folder)
    port = free_port()
    found = Server(Tenant(service, "ours"), f"http://127.0.0.1:{port}/v1")
    app = found.middleware(create_api(service))
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield found
    running.should_exit = True
    thread.join()
    database.close()


@pytest.fixture
def ended(server) -> str:
    """A succeeded job with events, checkpoints and a model."""
    tenant = server.tenant
    job_id = tenant.create()["id"]
    with tenant.service.database.write() as session:
        job = jobs.get_job(session, job_id, lock=True)
        assert job is not None
        add_event(session, job, message="Step 1/2", type="metrics", data={"step": 1, "error": None})
        job.status = "succeeded"
        for step in (1, 2):
            model = f"ft:ferrata-tiny:ferrata::abcd1234:ckpt-step-{step}"
            session.add(
                JobCheckpoint(id=f"ftckpt_{job_id}{step}", job_id=job_id, step_number=step,
                              stage="srl", stage_step=step, model=model, path="/x", metrics={},
                              created_at=step)
            )  # fmt: skip
        name = "ft:owner/base:ferrata::abcd1234"
        if session.get(Model, name) is None:
            session.add(
                Model(name=name, project_id=tenant.project_id, job_id=job_id, kind="fine_tuned",
                      path="/x", created_at=1)
            )  # fmt: skip
    return job_id


@pytest.mark.parametrize("client", VERSIONS)
def test_the_stock_client_reads_everything(server, ended, client):
    server.calls.clear()
    environment = {"BASE_URL": server.base_url, "API_KEY": server.tenant.key}
    seen = run_client(client, "contract.py", ENDED_JOB=ended, **environment)
    assert seen["version"] == VERSIONS[client]
    assert seen["files"] == ["rows.jsonl", "x.jsonl", "upload", "processed", 77]
    assert json.loads(seen["content"])["reference_answer"] == "4"
    assert seen["listed_files"] >= 3
    assert seen["deleted"] is True
    assert (seen["gone"]["class"], seen["gone"]["status"]) == ("NotFoundError", 404)
    assert seen["job"] == ["validating_files", 5, {"a": "b"}, "reinforcement", None]
    assert seen["extras"] == [{"max_steps": 2}, {"max_steps": 3}, None, 0.0]
    assert seen["same"] is True
    assert seen["states"] == ["paused", "queued", "cancelled"]
    assert seen["paged_jobs"] is True
    assert sorted(seen["events"]) == ["message", "metrics"]
    assert seen["checkpoints"] == [
        [step, f"ft:ferrata-tiny:ferrata::abcd1234:ckpt-step-{step}"] for step in (2, 1)
    ]
    assert {"ferrata-tiny", "ft:owner/base:ferrata::abcd1234"} <= set(seen["models"])
    assert seen["model"] == "ft:owner/base:ferrata::abcd1234"
    assert seen["streamed"] == [
        ["FineTuningJobEvent", "message", f"Created fine-tuning job: {ended}"],
        ["FineTuningJobEvent", "metrics", "Step 1/2"],
    ]
    assert seen["validated"] == "check"
    assert seen["graded"] == [1.0, False, "check"]
    assert seen["azure"] == [True, "cancelled", True, 1, "fine_tune_not_found"]
    check_errors(seen)
    # The client repeats none of the calls that cannot succeed.
    assert server.calls["POST /v1/fine_tuning/jobs/<id>/pause"] == 2  # one that worked, one not
    assert server.calls["POST /v1/fine_tuning/alpha/graders/validate"] == 2


def check_errors(seen: dict) -> None:
    """Each error reaches its user with the field, the code and the request's id."""
    expected = {
        "wrong_state": ("BadRequestError", 400, None, "wrong_job_status"),
        "unknown": ("NotFoundError", 404, "fine_tuning_job_id", "fine_tune_not_found"),
        "wrong_model": ("BadRequestError", 400, "model", "model_not_found"),
        "wrong_key": ("AuthenticationError", 401, None, "invalid_api_key"),
        "conflict": ("ConflictError", 409, None, "idempotency_key_reused"),
        "wrong_grader": ("BadRequestError", 400, "grader.operation", "invalid_grader"),
    }
    for name, (kind, status, param, code) in expected.items():
        error = seen[name]
        found = (error["class"], error["status"], error["param"], error["code"])
        assert found == (kind, status, param, code), name
        assert error["request_id"], name
        assert len(error["message"]) > 20, name
    assert seen["wrong_field"]["param"] == "seed"
    assert seen["idempotent"] is True


@pytest.mark.parametrize("client", VERSIONS)
def test_a_create_whose_answer_was_lost_is_repeated_by_the_client_and_makes_one_job(server, client):
    tenant = server.tenant
    body = {"model": BASE_MODEL, "training_file": tenant.upload(), "seed": 11}
    body |= {"metadata": {"client": client}}
    server.calls.clear()
    answered = "POST /v1/fine_tuning/jobs"
    server.breaks = lambda call: call == answered and server.calls[answered] < 3
    environment = {"BASE_URL": server.base_url, "API_KEY": tenant.key, "BODY": json.dumps(body)}
    try:
        made = run_client(client, "create.py", **environment)
    finally:
        server.breaks = lambda call: False
    assert server.calls[answered] == 3
    page = tenant.get("/v1/fine_tuning/jobs", params={"metadata[client]": client}).json()
    assert [job["id"] for job in page["data"]] == [made]


def test_the_scripts_use_nothing_of_this_project():
    for script in SCRIPTS.glob("*.py"):
        imports = re.findall(r"^(?:from|import) (\w+)", script.read_text(), re.MULTILINE)
        assert not {"serve_app", "train", "rollout", "serve"} & set(imports)
    assert (ROOT / "requirements" / "openai-1.lock").exists()
