"""Health says what is down, and what works goes on answering."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import create_engine
from starlette.testclient import TestClient

from serve.kit import error_of
from serve_app.job_manager import ADMISSION
from serve_app.manager import RayManagerLink, told_of
from serve_app.serving import RayChatLink


def test_a_whole_service_is_well(tenant):
    response = TestClient(tenant.app).get("/healthz")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["store"]["ok"] is True


def test_each_part_that_is_down_is_named(tenant):
    tenant.service.manager.state = {"ok": False, "detail": "no Ray at 127.0.0.1"}
    response = tenant.get("/healthz")
    assert (response.status_code, response.json()["status"]) == (503, "down: ray")
    assert response.json()["ray"]["detail"] == "no Ray at 127.0.0.1"
    tenant.service.chat.state = {"ok": False, "detail": "engine died"}
    assert tenant.get("/healthz").json()["status"] == "down: ray, engine"


def test_jobs_are_created_and_read_while_ray_is_down(tenant):
    tenant.service.manager.state = {"ok": False, "detail": "down"}
    job_id = tenant.create()["id"]
    assert tenant.get(f"/v1/fine_tuning/jobs/{job_id}").status_code == 200


def test_without_a_store_the_rest_is_told_and_calls_answer_503(tenant, tmp_path, monkeypatch):
    broken = create_engine(f"sqlite:///{tmp_path / 'no' / 'x.db'}")
    monkeypatch.setattr(tenant.service.database, "engine", broken)
    response = tenant.get("/healthz")
    assert (response.status_code, response.json()["status"]) == (503, "down: store")
    assert response.json()["ray"]["ok"] is True
    assert error_of(tenant.get("/v1/models"), 503)["code"] == "store_down"


def test_a_managers_errors_are_counted_and_not_quoted():
    assert told_of(None, {}) == (True, "jobs are looked after")
    ok, detail = told_of(None, {"ftjob-1": "row: a secret"})
    assert (ok, detail) == (True, "1 jobs have trouble; see the manager's log")
    ok, detail = told_of(None, {ADMISSION: "postgresql://me:pw@db", "ftjob-1": "row: a secret"})
    assert not ok
    assert ADMISSION in detail
    assert "pw" not in detail
    assert "secret" not in detail
    assert told_of("the last pass failed: OSError", {})[0] is False


def test_what_does_not_answer_is_named_without_addresses(settings, monkeypatch):
    def broken(*_):
        raise ConnectionError("10.0.0.7:6379 refused")

    link = RayManagerLink(settings)
    monkeypatch.setattr(link, "_reach", broken)
    told = link.health()
    assert told == {"ok": False, "detail": "the job manager does not answer: ConnectionError"}

    class Handle:
        @property
        def health(self):
            return broken()

    told = RayChatLink(Handle()).health()  # pyright: ignore[reportArgumentType]
    assert told == {"ok": False, "detail": "the chat deployment does not answer: ConnectionError"}


def test_health_answers_while_every_other_thread_waits(tenant, monkeypatch):
    """As when a hub hangs: more creates than the routes have threads."""
    go_on, waiting = threading.Event(), threading.Semaphore(0)

    def hangs(*_):
        waiting.release()
        go_on.wait(60)

    monkeypatch.setattr("serve_app.create.check_hub", hangs)
    file_id = tenant.upload()
    body = {"model": "owner/name", "training_file": file_id}
    with ThreadPoolExecutor(60) as clients, TestClient(tenant.app) as one_loop:
        headers = {"authorization": f"Bearer {tenant.key}"}
        calls = [
            clients.submit(one_loop.post, "/v1/fine_tuning/jobs", json=body, headers=headers)
            for _ in range(60)
        ]
        try:
            for _ in range(40):  # all that there are
                assert waiting.acquire(timeout=60)
            probe = threading.Thread(target=lambda: answers.append(one_loop.get("/healthz")))
            answers: list = []
            probe.start()
            probe.join(20)
            assert [answer.status_code for answer in answers] == [200]
        finally:
            go_on.set()
        assert {call.result().status_code for call in calls} == {400}
