"""Health says what is down, and what works goes on answering."""

from sqlalchemy import create_engine
from starlette.testclient import TestClient

from serve.kit import error_of


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
