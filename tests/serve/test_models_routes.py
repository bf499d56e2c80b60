"""Models over HTTP: the service's own, the project's, and no other's."""

import pytest
from openai.types import Model as ClientModel

from serve.kit import Tenant, error_of, whole_service
from serve_app.catalogue import HubUnreachableError, find_model, hub_has, is_hub_name
from serve_app.chat.models import chat_model
from serve_app.keys import Keyring
from serve_app.settings import Settings
from serve_app.store.jobs import create_job, get_job, new_job
from serve_app.store.tables import Model


def train(tenant: Tenant, name: str, created_at: int = 5, kind: str = "fine_tuned") -> str:
    """Register a model that the project trained."""
    job_id = tenant.create()["id"]
    with tenant.service.database.write() as session:
        session.add(
            Model(
                name=name,
                project_id=tenant.project_id,
                job_id=job_id,
                kind=kind,
                path="/models/x",
                created_at=created_at,
            )
        )
    return name


def test_models_are_read_by_the_stock_client(tenant, stranger):
    train(tenant, "ft:ferrata-tiny:ferrata::aaaaaaaa", 5)
    train(tenant, "ft:ferrata-tiny:ferrata:mine:bbbbbbbb", 6)
    train(stranger, "ft:ferrata-tiny:ferrata::cccccccc")
    page = tenant.get("/v1/models").json()
    found = [ClientModel.model_validate(model, strict=True) for model in page["data"]]
    assert [model.id for model in found[:2]] == [
        "ft:ferrata-tiny:ferrata:mine:bbbbbbbb",
        "ft:ferrata-tiny:ferrata::aaaaaaaa",
    ]
    assert {model.id for model in found[2:]} == set(tenant.service.settings.models)
    assert "ferrata-tiny" in {model.id for model in found}


@pytest.mark.parametrize("slash", ["/", "%2F"])
def test_a_name_with_a_slash_is_found_as_both_clients_send_it(tenant, slash):
    name = train(tenant, "ft:owner/base:ferrata::aaaaaaaa")
    url = "/v1/models/" + name.replace("/", slash)
    assert tenant.get(url).json()["id"] == name
    assert tenant.delete(url).json() == {"id": name, "object": "model", "deleted": True}
    assert error_of(tenant.get(url), 404)["code"] == "model_not_found"
    error_of(tenant.delete(url), 404)


def test_a_base_model_is_shown_and_cannot_be_deleted(tenant):
    assert tenant.get("/v1/models/ferrata-tiny").json()["owned_by"] == "ferrata"
    error_of(tenant.delete("/v1/models/ferrata-tiny"), 403)
    assert tenant.get("/v1/models/ferrata-tiny").status_code == 200


def test_a_job_may_start_from_a_model_that_the_project_trained(tenant, stranger):
    name = train(tenant, "ft:ferrata-tiny:ferrata::aaaaaaaa")
    assert tenant.create(model=name)["model"] == name
    body = stranger.body(model=name)
    error = error_of(stranger.post("/v1/fine_tuning/jobs", json=body), 400)
    assert error["code"] == "model_not_found"
    tenant.delete(f"/v1/models/{name}")
    error_of(tenant.post("/v1/fine_tuning/jobs", json=tenant.body(model=name)), 400)


def test_a_name_leads_to_its_folder(tenant):
    settings = tenant.service.settings.model_copy(update={"allow_hub_models": True})
    name = train(tenant, "ft:x", kind="checkpoint")
    with tenant.service.database.read() as session:
        found = [
            find_model(settings, session, tenant.project_id, asked)
            for asked in ("ferrata-tiny", name, "owner/name", "nothing")
        ]
    assert [model and (model.kind, model.path) for model in found] == [
        ("base", settings.models["ferrata-tiny"]),
        ("checkpoint", "/models/x"),
        ("hub", "owner/name"),
        None,
    ]


@pytest.mark.parametrize(
    "name",
    ["/etc", "etc/passwd/x", "../x/y", "a/..", "owner/", "/name", "a b/c", "~/x", "", "tmp/x"],
)
def test_a_folder_is_no_hub_name(name, tmp_path, monkeypatch):
    (tmp_path / "tmp" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_name(name)
    assert is_hub_name("owner/name-1.5_x")


def test_a_hub_that_does_not_answer_is_a_503_and_one_without_the_model_a_400(
    tenant, database, tmp_path, monkeypatch
):
    client = Tenant(whole_service(database, tmp_path / "hub", allow_hub_models=True), "hub")
    body = client.body(model="owner/name")
    with pytest.raises(HubUnreachableError):  # the tests run offline
        hub_has("owner/name", None)
    response = client.post("/v1/fine_tuning/jobs", json=body)
    assert error_of(response, 503)["code"] == "hub_unreachable"
    assert int(response.headers["retry-after"]) > 0
    asked = []
    monkeypatch.setattr("serve_app.create.hub_has", lambda *a: bool(asked.append(a)))
    client.service.secrets.set(client.project_id, "HF_TOKEN", "hf_secret")
    assert error_of(client.post("/v1/fine_tuning/jobs", json=body), 400)["param"] == "model"
    assert asked == [("owner/name", "hf_secret")]
    monkeypatch.setattr("serve_app.create.hub_has", lambda *a: True)
    assert client.post("/v1/fine_tuning/jobs", json=body).status_code == 200


def test_a_project_chats_only_with_hub_models_that_its_own_jobs_began_with(database, tmp_path):
    settings = Settings(data=tmp_path, models={}, allow_hub_models=True)
    mine, other = (Keyring(database).create_key(n, "k")[0].project_id for n in ("mine", "other"))
    with database.write() as session:
        job = create_job(
            session,
            new_job(project_id=mine, request={}, out="o", model="owner/name", seed=1),
        )
    with database.read() as session:
        assert chat_model(settings, session, mine, "owner/name") is None, "not checked yet"
    with database.write() as session:
        get_job(session, job.id, lock=True).spec = {"any": "spec"}
    with database.read() as session:
        assert chat_model(settings, session, mine, "owner/name").on_hub
        assert chat_model(settings, session, other, "owner/name") is None
