"""A model's files over HTTP: whole, of the own project, and nothing that is not the model."""

import io
import tarfile

import pytest
from conftest import MODEL

from serve.conftest import make_client
from serve_app.store.jobs import create_job, new_job
from serve_app.store.tables import Model

NAME = "ft:ferrata-tiny:ferrata::Ab12Cd34"


@pytest.fixture
def trained(service, client, tmp_path):
    """A model of the first project, as a checkpoint's folder holds it."""
    folder = tmp_path / "step-000009"
    folder.mkdir()
    for name, content in {
        "model.safetensors": b"w" * 1000,
        "config.json": b"{}",
        "tokenizer.json": b"[]" * 700_000,
        "README.md": b"",
        "optimizer.safetensors": b"o" * 10,
        "manifest.json": b"{}",
    }.items():
        (folder / name).write_bytes(content)
    key = client.headers["authorization"].removeprefix("Bearer ")
    project = service.keyring.authenticate(key).project_id
    with service.database.write() as session:
        job = new_job(project_id=project, request={}, out=str(tmp_path), model="m", seed=1)
        create_job(session, job)
        session.add(
            Model(
                name=NAME,
                project_id=project,
                job_id=job.id,
                kind="fine_tuned",
                path=str(folder),
                created_at=1,
            )
        )
    return folder


def test_a_trained_models_folder_arrives_without_what_only_training_needs(client, trained):
    answer = client.get(f"/v1/models/{NAME}/content")
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        got = {member.name: tar.extractfile(member).read() for member in tar}
    names = {"model.safetensors", "config.json", "tokenizer.json", "README.md"}
    assert got == {name: (trained / name).read_bytes() for name in names}


def test_another_projects_model_is_as_unknown_as_none(service, client, trained):
    stranger = make_client(service, "second")
    theirs = stranger.get(f"/v1/models/{NAME}/content")
    none = stranger.get("/v1/models/ft:none/content")
    assert theirs.status_code == none.status_code == 404
    error, other = theirs.json()["error"], none.json()["error"]
    assert error == other | {"message": other["message"].replace("ft:none", NAME)}


def test_a_model_whose_files_are_gone_is_told_apart(client, trained):
    for file in trained.iterdir():
        file.unlink()
    answer = client.get(f"/v1/models/{NAME}/content")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_files_missing"


def test_a_model_that_the_service_starts_from_can_be_had(service, database):
    from serve.conftest import make_service

    settings = service.settings.model_copy(update={"models": {"org/tiny": str(MODEL)}})
    client = make_client(make_service(settings, database))
    answer = client.get("/v1/models/org/tiny/content")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        names = set(tar.getnames())
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
