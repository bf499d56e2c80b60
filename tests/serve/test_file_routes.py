"""`/files` keeps the contract, and a wrong request is answered with the field and the fix."""

import time

import pytest

from serve.conftest import make_client, make_service
from serve.file_requests import MIB, ROWS, num_files, upload

FORM = "multipart/form-data"


def test_a_file_object_has_every_field_of_the_contract(client):
    body = upload(client, name="data.jsonl").json()
    assert body["id"].startswith("file-")
    assert abs(body.pop("created_at") - time.time()) < 60
    assert body == {
        "id": body["id"],
        "object": "file",
        "bytes": len(ROWS),
        "expires_at": None,
        "filename": "data.jsonl",
        "purpose": "fine-tune",
        "status": "processed",
        "status_details": None,
    }
    assert client.get(f"/v1/files/{body['id']}").json().items() >= body.items()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("/home/me/data/rows.jsonl", "rows.jsonl"),
        ("C:\\Users\\me\\rows.jsonl", "rows.jsonl"),
        ("../../../../etc/passwd", "passwd"),
        ("..", "upload"),
        ("folder/", "upload"),
        ("  données 数据.jsonl ", "données 数据.jsonl"),
        ("upload", "upload"),
    ],
)
def test_only_the_base_name_of_a_path_is_kept_and_comes_back(client, sent, kept):
    body = upload(client, name=sent).json()
    assert body["filename"] == kept
    content = client.get(f"/v1/files/{body['id']}/content")
    assert content.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert "/" not in content.headers["content-disposition"]


def test_content_is_sent_whatever_the_client_accepts(client):
    file_id = upload(client).json()["id"]
    for accept in ("application/binary", "application/json", "*/*"):
        response = client.get(f"/v1/files/{file_id}/content", headers={"accept": accept})
        assert (response.status_code, response.content) == (200, ROWS)
        assert response.headers["content-length"] == str(len(ROWS))


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"purpose": "fine-tune-results"}, "purpose", "not for uploads"),
        ({"purpose": "assistants"}, "purpose", "'fine-tune' or 'user_data'"),
        ({"purpose": "\0"}, "purpose", "unknown"),
        ({"purpose": ""}, "purpose", "missing"),
        ({"expires_after[seconds]": "3600"}, "expires_after[anchor]", "missing"),
        ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]", "missing"),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "1"},
            "expires_after[seconds]",
            "3600",
        ),
        (
            {"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"},
            "expires_after[anchor]",
            "created_at",
        ),
        ({"porpoise": "x"}, "porpoise", "unknown"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(client, database, fields, param, said):
    response = upload(client, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert said in response.json()["error"]["message"]
    assert num_files(database) == 0


def test_an_upload_without_a_file_or_with_an_empty_one_is_a_400(client, database):
    response = upload(client, content=b"")
    assert response.status_code == 400
    assert "rows.jsonl is empty" in response.json()["error"]["message"]
    requests = [
        {"data": {"purpose": "fine-tune"}, "files": {"other": ("a", b"x")}},
        {"files": {"purpose": (None, "fine-tune"), "file": (None, "no filename")}},
        {"files": [("file", ("a", b"x")), ("file", ("b", b"x"))], "data": {"purpose": "fine-tune"}},
        {"json": {"purpose": "fine-tune"}},
        {
            "content": b"--x\r\nbroken",
            "headers": {"content-type": "multipart/form-data; boundary=x"},
        },
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
    ]
    for request in requests:
        response = client.post("/v1/files", **request)
        assert response.status_code == 400, request
        assert response.json()["error"]["message"]
    assert num_files(database) == 0


def test_a_name_that_is_too_long_or_controls_a_terminal_is_a_400(client):
    parts = b'--x\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    purpose = parts % (b"purpose", b"", b"fine-tune")
    for name in (b"a\x1b[2Jb", b"a\x00b", b"x" * 256):
        file = parts % (b"file", b'; filename="%s"' % name, b"{}")
        headers = {"content-type": f"{FORM}; boundary=x"}
        response = client.post("/v1/files", content=purpose + file + b"--x--", headers=headers)
        assert response.json()["error"]["param"] == "file", name


def test_a_file_above_the_limit_is_a_413_that_names_the_limit(settings, database):
    small = settings.model_copy(update={"max_file_bytes": MIB})
    client = make_client(make_service(small, database))
    assert upload(client, content=b"x" * MIB).status_code == 200
    for num_bytes in (MIB + 1, 3 * MIB):
        response = upload(client, content=b"x" * num_bytes)
        assert response.status_code == 413
        assert str(MIB) in response.json()["error"]["message"]
    assert num_files(database) == 1


def test_another_projects_files_are_as_unknown_as_files_that_never_were(client, service):
    file_id = upload(client).json()["id"]
    other = make_client(service, "second")
    assert other.get("/v1/files").json()["data"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
        theirs = other.request(method, f"/v1/files/{file_id}{path}")
        never = other.request(method, f"/v1/files/file-never{path}")
        assert theirs.status_code == never.status_code == 404
        assert theirs.json()["error"] == {
            **never.json()["error"],
            "message": never.json()["error"]["message"].replace("file-never", file_id),
        }
    assert other.get("/v1/files", params={"after": file_id}).status_code == 400
    assert client.get(f"/v1/files/{file_id}").status_code == 200


@pytest.mark.parametrize(
    "file_id", ["file-%00", "%2e%2e", "..%2f..%2fetc%2fpasswd", "file-" + "x" * 9000]
)
def test_a_hostile_id_is_no_server_error(client, file_id):
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
        response = client.request(method, f"/v1/files/{file_id}{path}")
        assert response.status_code in (400, 404), response.text
        assert response.json()["error"]["message"]


def pages(client, **query) -> list[list[str]]:
    """Ids of every page."""
    found: list[list[str]] = []
    while True:
        after = {"after": found[-1][-1]} if found else {}
        body = client.get("/v1/files", params={**query, **after}).json()
        found.append([file["id"] for file in body["data"]])
        if not body["has_more"]:
            return found
        assert body["last_id"] == found[-1][-1]


def test_files_are_listed_in_pages_in_either_order_and_by_purpose(client):
    ids = [upload(client).json()["id"] for _ in range(5)]
    other = upload(client, purpose="user_data").json()["id"]
    assert pages(client) == [[other, *reversed(ids)]]
    assert pages(client, limit=2, order="asc") == [ids[:2], ids[2:4], [ids[4], other]]
    assert pages(client, limit=3, purpose="fine-tune") == [ids[:1:-1], [ids[1], ids[0]]]
    assert pages(client, purpose="user_data") == [[other]]
    assert pages(client, purpose="batch") == [[]]


def test_a_page_goes_on_after_a_file_that_was_deleted_in_the_meantime(client):
    ids = [upload(client).json()["id"] for _ in range(4)]
    client.delete(f"/v1/files/{ids[2]}")
    body = client.get("/v1/files", params={"after": ids[2], "limit": 1}).json()
    assert [file["id"] for file in body["data"]] == [ids[1]]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=10001", "limit=x", "order=up", "after=no", "after=%00"]
)
def test_a_wrong_query_is_a_400(client, query):
    assert client.get(f"/v1/files?{query}").status_code == 400
