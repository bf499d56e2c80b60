"""An upload in parts becomes exactly one file, or nothing."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from serve.conftest import make_client
from serve.file_requests import MIB, num_files
from serve_app import uploads as rooms
from serve_app.store.tables import Upload, UploadPart

PIECES = (b'{"a": 1}\n', b'{"b": 2}\n', b'{"c": 3}\n')
WHOLE = b"".join(PIECES)
MD5 = hashlib.md5(WHOLE, usedforsecurity=False).hexdigest()


def create(client, num_bytes: int = len(WHOLE), **fields):
    """POST /v1/uploads."""
    body = {"bytes": num_bytes, "filename": "rows.jsonl", "purpose": "fine-tune"}
    return client.post("/v1/uploads", json={**body, "mime_type": "text/jsonl", **fields})


def add(client, upload_id: str, content: bytes):
    """POST /v1/uploads/{id}/parts."""
    return client.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("upload", content)})


def complete(client, upload_id: str, part_ids: list[str], headers=None, **fields):
    """POST /v1/uploads/{id}/complete."""
    body = {"part_ids": part_ids, **fields}
    return client.post(f"/v1/uploads/{upload_id}/complete", json=body, headers=headers)


def filled(client, pieces=PIECES, **fields) -> tuple[str, list[str]]:
    """(id, part ids) of an upload whose parts have all come."""
    upload_id = create(client, sum(map(len, pieces)), **fields).json()["id"]
    return upload_id, [add(client, upload_id, piece).json()["id"] for piece in pieces]


def test_parts_become_one_file_in_the_order_that_is_asked_for(client, service):
    upload = create(client).json()
    assert upload["id"].startswith("upload_")
    assert (upload["object"], upload["status"], upload["file"]) == ("upload", "pending", None)
    assert upload["expires_at"] == upload["created_at"] + 3600
    parts = [add(client, upload["id"], piece).json() for piece in reversed(PIECES)]
    assert parts[0]["id"].startswith("part_")
    assert (parts[0]["object"], parts[0]["upload_id"]) == ("upload.part", upload["id"])
    ids = [part["id"] for part in reversed(parts)]
    done = complete(client, upload["id"], ids, md5=MD5).json()
    assert (done["status"], done["file"]["bytes"]) == ("completed", len(WHOLE))
    assert done["file"]["filename"] == "rows.jsonl"
    file_id = done["file"]["id"]
    assert client.get(f"/v1/files/{file_id}/content").content == WHOLE
    assert service.files.blobs.idle(-60) == ([file_id], []), "the parts are gone"


def test_a_file_from_parts_expires_as_was_asked(client):
    expires_after = {"anchor": "created_at", "seconds": 7200}
    upload_id, parts = filled(client, expires_after=expires_after)
    file = complete(client, upload_id, parts).json()["file"]
    assert file["expires_at"] == file["created_at"] + 7200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (lambda parts: {"part_ids": parts[:2]}, "part_ids"),
        (lambda parts: {"part_ids": [*parts, "part_none"]}, "part_ids"),
        (lambda parts: {"part_ids": [parts[0]] * 3}, "part_ids"),
        (lambda parts: {"part_ids": []}, "part_ids"),
        (lambda parts: {"part_ids": parts, "md5": "0" * 32}, "md5"),
        (lambda parts: {"part_ids": parts, "sha256": "0"}, "sha256"),
        (lambda parts: {}, "part_ids"),
    ],
)
def test_a_wrong_completion_is_a_400_and_the_upload_can_still_be_completed(
    client, database, change, param
):
    upload_id, parts = filled(client)
    wrong = client.post(f"/v1/uploads/{upload_id}/complete", json=change(parts))
    assert (wrong.status_code, wrong.json()["error"]["param"].split(".")[0]) == (400, param)
    assert num_files(database) == 0
    assert complete(client, upload_id, parts, md5=MD5.upper()).status_code == 200


def test_another_uploads_part_is_no_part(client):
    _, others = filled(client)
    upload_id, _ = filled(client)
    wrong = complete(client, upload_id, others)
    assert others[0] in wrong.json()["error"]["message"]


def test_a_completed_upload_takes_nothing_more_but_a_retry_is_answered_again(client, database):
    upload_id, parts = filled(client)
    first = complete(client, upload_id, parts).json()
    for response in (
        complete(client, upload_id, parts),
        add(client, upload_id, b"more"),
        client.post(f"/v1/uploads/{upload_id}/cancel"),
    ):
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "wrong_upload_status"
        assert "is completed" in response.json()["error"]["message"]
    again = complete(client, upload_id, parts, headers={"x-stainless-retry-count": "1"})
    assert again.json() == first
    assert num_files(database) == 1


def test_a_cancelled_upload_is_over_and_its_parts_are_gone(client, service):
    upload_id, parts = filled(client)
    cancelled = client.post(
        f"/v1/uploads/{upload_id}/cancel", headers={"content-type": "application/json"}
    )
    assert cancelled.json()["status"] == "cancelled"
    assert service.files.blobs.idle(-60) == ([], [])
    assert complete(client, upload_id, parts).status_code == 400
    assert add(client, upload_id, b"more").status_code == 400


def test_an_expired_upload_is_over_and_a_sweep_removes_its_parts(client, service, database):
    upload_id, parts = filled(client)
    kept, _ = filled(client)
    with database.write() as session:
        expired = update(Upload).where(Upload.id == upload_id)
        session.execute(expired.values(expires_at=int(time.time())))
    response = complete(client, upload_id, parts)
    assert response.status_code == 400
    assert "is expired" in response.json()["error"]["message"]
    assert service.files.sweep(idle_s=-60) == len(PIECES)
    assert len(service.files.blobs.idle(-60)[0]) == len(PIECES)
    assert add(client, kept, b"x").status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "assistants"}, "purpose"),
        ({"purpose": "fine-tune-results"}, "purpose"),
        ({"bytes": 0}, "bytes"),
        ({"bytes": "many"}, "bytes"),
        ({"mime_type": "image/png"}, "mime_type"),
        ({"filename": "x" * 256}, "filename"),
        ({"filename": "a\0b"}, "filename"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
        ({"parts": 3}, "parts"),
    ],
)
def test_a_wrong_announcement_is_a_400_that_names_the_field(client, fields, param):
    response = create(client, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_an_announcement_above_the_limit_is_refused_before_any_part(client, service):
    limit = service.settings.max_file_bytes
    response = create(client, limit + 1)
    assert response.status_code == 413
    assert str(limit) in response.json()["error"]["message"]


def test_only_the_base_name_is_kept(client):
    assert create(client, filename="C:\\data\\rows.jsonl").json()["filename"] == "rows.jsonl"


def test_an_empty_a_missing_and_a_too_large_part_are_refused(client, service, monkeypatch):
    monkeypatch.setattr("serve_app.routes.uploads.MAX_PART_BYTES", 2 * MIB)
    monkeypatch.setattr(rooms, "MAX_PART_BYTES", 2 * MIB)
    upload_id = create(client, 100 * MIB).json()["id"]
    assert add(client, upload_id, b"").status_code == 400
    response = client.post(f"/v1/uploads/{upload_id}/parts", files={"file": ("a", b"x")})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")
    response = add(client, upload_id, b"x" * (2 * MIB + 1))
    assert response.status_code == 413
    assert str(2 * MIB) in response.json()["error"]["message"]
    assert add(client, upload_id, b"x" * 2 * MIB).status_code == 200
    assert len(service.files.blobs.idle(-60)[0]) == 1


def test_a_part_has_at_most_64_mib():
    assert rooms.MAX_PART_BYTES == 64 * MIB


def test_the_parts_of_one_upload_cannot_fill_the_disk(client, monkeypatch, service):
    monkeypatch.setattr(rooms, "MAX_PART_BYTES", 100)
    upload_id = create(client, 10).json()["id"]
    answers = [add(client, upload_id, b"x" * 10).status_code for _ in range(13)]
    assert answers == [200] * 12 + [400]
    assert len(service.files.blobs.idle(-60)[0]) == 12


def test_another_projects_upload_is_as_unknown_as_one_that_never_was(client, service):
    upload_id, parts = filled(client)
    other = make_client(service, "second")
    for unknown in (upload_id, "upload_none", "upload_%00"):
        for response in (
            add(other, unknown, b"x"),
            complete(other, unknown, parts),
            complete(other, unknown, parts, headers={"x-stainless-retry-count": "1"}),
            other.post(f"/v1/uploads/{unknown}/cancel"),
        ):
            assert response.status_code == (400 if "%" in unknown else 404)
    assert complete(client, upload_id, parts).status_code == 200


def test_completions_at_the_same_time_make_one_file(client, service, database):
    upload_id, parts = filled(client)
    barrier = threading.Barrier(6)

    def finish(_: int) -> int:
        barrier.wait()
        return complete(client, upload_id, parts).status_code

    with ThreadPoolExecutor(6) as pool:
        answers = sorted(pool.map(finish, range(6)))
    assert answers == [200] + [400] * 5
    assert num_files(database) == 1
    assert len(service.files.blobs.idle(-60)[0]) == 1


def test_parts_that_come_at_the_same_time_all_arrive(client, database):
    pieces = [bytes([65 + number]) * 1000 for number in range(8)]
    upload_id = create(client, 8000).json()["id"]
    with ThreadPoolExecutor(8) as pool:
        parts = [r.json()["id"] for r in pool.map(lambda p: add(client, upload_id, p), pieces)]
    file_id = complete(client, upload_id, parts).json()["file"]["id"]
    assert client.get(f"/v1/files/{file_id}/content").content == b"".join(pieces)
    with database.read() as session:
        assert session.query(UploadPart).count() == 8
