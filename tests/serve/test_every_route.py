"""Rules that hold on every route of the application, found by walking all of them."""

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from serve.kit import Tenant, error_of, whole_service
from serve_app.api import V1, create_api
from serve_app.routes import health
from serve_app.store.database import Database
from serve_app.store.tables import Model

OPEN = {"/healthz"}  # needs no key
IDS = {
    "job_id": "ftjob-nothing",
    "file_id": "file-nothing",
    "upload_id": "upload_nothing",
    "model": "nothing",
}
# Bodies that are right, so that a call gets as far as its item.
BODIES = {
    "/v1/uploads/{upload_id}/complete": {"json": {"part_ids": ["part_nothing"]}},
    "/v1/uploads/{upload_id}/parts": {"files": {"data": ("part", b"x")}},
}


def routes() -> list[tuple[str, str]]:
    """(method, path) of every route that a client calls."""
    found = [(method, "/v1" + route.path, route) for router in V1 for route in router.routes
             for method in sorted(getattr(route, "methods", ()))]  # fmt: skip
    found += [(m, r.path, r) for r in health.router.routes for m in sorted(r.methods)]
    assert all(isinstance(route, APIRoute) for *_, route in found)
    return [(method, path) for method, path, _ in found]


def params_of(path: str) -> list[str]:
    """Names of the path's parameters."""
    return re.findall(r"\{(\w+)(?::\w+)?\}", path)


def fill(path: str, ids: dict[str, str]) -> str:
    """The path with ids for its parameters."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: ids[match[1]], path)


EVERY = pytest.mark.parametrize(("method", "path"), routes())
KEYED = pytest.mark.parametrize(("method", "path"), [r for r in routes() if r[1] not in OPEN])
ITEMS = [(method, path) for method, path in routes() if params_of(path)]


@pytest.fixture(scope="module")
def walker(sqlite_template, tmp_path_factory) -> Iterator[Tenant]:
    """A client of one service for all walks that change nothing."""
    folder = tmp_path_factory.mktemp("walk")
    shutil.copyfile(sqlite_template, folder / "ferrata.db")
    database = Database(f"sqlite:///{folder / 'ferrata.db'}")
    yield Tenant(whole_service(database, folder), "ours")
    database.close()


@pytest.fixture(scope="module", autouse=True)
def known_parameters() -> None:
    """A new item needs an id here, else the walks would miss it."""
    assert {name for _, path in routes() for name in params_of(path)} <= set(IDS)


def test_the_walk_sees_the_application(walker):
    assert len(routes()) > 20
    paths = {path for _, path in routes()}
    documented = set(walker.get("/openapi.json").json()["paths"])
    assert {re.sub(r":\w+\}", "}", path) for path in paths} == {
        re.sub(r":\w+\}", "}", path) for path in documented
    }


@KEYED
def test_without_a_key_that_is_known_nothing_answers(walker, method, path):
    client = TestClient(walker.app)
    url = fill(path, IDS)
    for headers in ({}, {"authorization": "Bearer sk-ferrata-wrong"}, {"api-key": "wrong"}):
        response = client.request(method, url, headers=headers, **BODIES.get(path, {"json": {}}))
        if method in ("GET", "DELETE") or params_of(path):
            assert error_of(response, 401)["code"] == "invalid_api_key"
        else:  # a wrong body may be noticed first
            assert response.status_code in (400, 401)
            error_of(response)


@EVERY
def test_a_method_that_a_path_does_not_take_is_a_405(walker, method, path):
    error_of(walker.request("PATCH", fill(path, IDS)), 405)


@EVERY
def test_a_broken_body_is_never_a_500(walker, method, path):
    if path in OPEN:
        return
    headers = {"content-type": "application/json"}
    for content in (b"{", b"[1]", b'{"model": 5}', b"\xff\xfe", b"null"):
        response = walker.request(method, fill(path, IDS), content=content, headers=headers)
        assert response.headers["x-request-id"]
        if response.status_code >= 400:
            assert response.status_code < 500
            error_of(response)


@KEYED
def test_a_store_that_is_down_is_a_503_everywhere(walker, method, path, tmp_path, monkeypatch):
    broken = create_engine(f"sqlite:///{tmp_path / 'no' / 'folder' / 'x.db'}")
    monkeypatch.setattr(walker.service.database, "engine", broken)
    request = BODIES.get(path, {"json": {}})
    response = walker.request(method, fill(path, IDS), **request)
    if response.status_code == 400:  # a wrong body was noticed before the store was asked
        error_of(response)
        return
    assert error_of(response, 503)["type"] == "server_error"
    assert int(response.headers["retry-after"]) > 0


@pytest.fixture
def theirs(stranger) -> dict[str, str]:
    """Items of another project."""
    job_id = stranger.create()["id"]
    with stranger.service.database.write() as session:
        name = "ft:ferrata-tiny:ferrata::theirs00"
        session.add(
            Model(
                name=name,
                project_id=stranger.project_id,
                job_id=job_id,
                kind="fine_tuned",
                path="/x",
                created_at=1,
            )
        )
    upload = {"filename": "x", "purpose": "fine-tune", "bytes": 1, "mime_type": "text/jsonl"}
    return {
        "job_id": job_id,
        "file_id": stranger.upload(),
        "upload_id": stranger.post("/v1/uploads", json=upload).json()["id"],
        "model": name,
    }


@pytest.mark.parametrize(("method", "path"), ITEMS)
def test_another_projects_item_is_as_unknown_as_any(tenant, stranger, theirs, method, path):
    request = BODIES.get(path, {})
    answers = []
    for ids in (theirs, unknown_like(theirs)):
        response = tenant.request(method, fill(path, ids), **request)
        error_of(response, 404)
        text = response.text
        for name in params_of(path):
            text = text.replace(ids[name], "<id>")
        headers = {k: v for k, v in response.headers.items() if k not in ("x-request-id",)}
        answers.append((text, {**headers, "content-length": ""}))
    assert answers[0] == answers[1]
    assert "<id>" in answers[0][0] or not params_of(path)
    # It is theirs still, and nothing happened to it.
    assert stranger.get(f"/v1/fine_tuning/jobs/{theirs['job_id']}").json()["status"] != "cancelled"
    assert stranger.get(f"/v1/models/{theirs['model']}").status_code == 200
    assert stranger.get(f"/v1/files/{theirs['file_id']}").status_code == 200


def unknown_like(ids: dict[str, str]) -> dict[str, str]:
    """Ids of the same form that nothing has."""
    return {name: value[:-4] + "zzzz" for name, value in ids.items()}


def test_lists_hold_nothing_of_another_project(tenant, theirs):
    lists = [path for method, path in routes() if method == "GET" and not params_of(path)]
    assert {"/v1/models", "/v1/files", "/v1/fine_tuning/jobs"} <= set(lists)
    for path in lists:
        text = tenant.get(path).text
        assert [value for value in theirs.values() if value in text] == []


def test_the_errors_form_is_documented_on_every_route(walker):
    document = walker.get("/openapi.json").json()
    assert "HTTPValidationError" not in json.dumps(document)
    for operation in operations(document):
        for status in ("4XX", "5XX"):
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Error"}
        assert operation["summary"]
        assert operation["description"]


def operations(document: dict) -> Iterator[dict]:
    """Every documented call."""
    for path in document["paths"].values():
        yield from path.values()


def test_limits_of_a_key_hold_on_every_route_together(database, tmp_path):
    client = Tenant(whole_service(database, tmp_path, requests_per_minute=2), "slow")
    assert client.get("/v1/models").status_code == 200
    assert client.get("/v1/files").status_code == 200
    response = client.get("/v1/fine_tuning/jobs")
    assert error_of(response, 429)["type"] == "rate_limit_error"
    assert int(response.headers["retry-after"]) > 0
    assert client.get("/healthz").status_code == 200


def test_azures_client_finds_the_same_routes_with_its_own_header(tenant):
    client = TestClient(create_api(tenant.service), headers={"api-key": tenant.key})
    job_id = tenant.create()["id"]
    version = {"api-version": "2025-04-01-preview"}
    listed = client.get("/openai/fine_tuning/jobs", params=version).json()
    assert [job["id"] for job in listed["data"]] == [job_id]
    error = error_of(client.get("/openai/fine_tuning/jobs/ftjob-x", params=version), 404)
    assert error["code"] == "fine_tune_not_found"
