"""Keys are shown once, kept as hashes, recognised exactly, and end when they are revoked."""

import base64
import threading
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from serve_app.keys import KEY_START, Caller, Keyring, UnknownKeyError
from serve_app.store import keys as rows
from serve_app.store.tables import Base, Project

NUM_THREADS = 8


@pytest.fixture
def keyring(database) -> Keyring:
    """A ring without keys."""
    return Keyring(database)


def everything_stored(database) -> str:
    """Every row of every table, as text."""
    with database.engine.connect() as connection:
        tables = Base.metadata.sorted_tables
        return str([connection.execute(select(table)).all() for table in tables])


def test_a_key_has_256_random_bits_and_only_its_hash_is_kept(keyring, database):
    info, key = keyring.create_key("algebra", "laptop")
    secret = key.removeprefix(KEY_START)
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32
    assert keyring.create_key("algebra", "laptop")[1] != key
    stored = everything_stored(database)
    assert info.prefix in stored
    assert key not in stored
    assert secret[8:] not in stored


def test_a_key_tells_whose_request_it_is(keyring):
    info, key = keyring.create_key("algebra", "laptop")
    keyring.create_key("geometry", "laptop")
    assert keyring.authenticate(key) == Caller(info.project_id, "algebra", info.id)


def test_nothing_but_the_exact_key_is_recognised(keyring):
    _, key = keyring.create_key("algebra", "laptop")
    wrong = ["", KEY_START, key[:-1], key + "a", key.swapcase(), f" {key}", "\ud800", "\0", "ключ"]
    assert [keyring.authenticate(other) for other in wrong] == [None] * len(wrong)


def test_a_revoked_key_is_refused_at_once_and_its_others_are_not(keyring):
    info, key = keyring.create_key("algebra", "laptop")
    _, other = keyring.create_key("algebra", "server")
    revoked = keyring.revoke(info.id)
    assert keyring.authenticate(key) is None
    assert keyring.authenticate(other) is not None
    assert keyring.revoke(info.id) == revoked, "again changes nothing"
    listed = {each.id: each.revoked_at for each in keyring.list_keys("algebra")}
    assert listed[info.id] == revoked.revoked_at


def test_an_unknown_key_cannot_be_revoked(keyring):
    with pytest.raises(UnknownKeyError, match="'key_none'"):
        keyring.revoke("key_none")


def test_keys_are_listed_by_project_or_all(keyring):
    first, _ = keyring.create_key("algebra", "one")
    second, _ = keyring.create_key("geometry", "two")
    assert keyring.list_keys("algebra") == [first]
    assert sorted(keyring.list_keys(), key=lambda each: each.name) == [first, second]
    assert keyring.list_keys("nobody") == []


@pytest.mark.parametrize("project", ["", "a b", "-a", "a/b", "a" * 65, "a\n", "é"])
def test_a_wrong_project_name_is_refused_by_its_value(keyring, project):
    with pytest.raises(ValueError, match="1 to 64 letters"):
        keyring.create_key(project, "laptop")
    with pytest.raises(ValueError, match="printable"):
        keyring.create_key("algebra", "a\0")


def num_projects(database) -> int:
    """How many there are."""
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Project))


def test_keys_made_at_once_for_one_new_project_share_it(keyring, database):
    barrier = threading.Barrier(NUM_THREADS)

    def make(number: int) -> Caller | None:
        barrier.wait()
        return keyring.authenticate(keyring.create_key("algebra", f"key {number}")[1])

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        callers = list(pool.map(make, range(NUM_THREADS)))
    assert len({caller.project_id for caller in callers}) == num_projects(database) == 1
    assert len({caller.key_id for caller in callers}) == NUM_THREADS


def test_a_project_that_another_transaction_is_about_to_make_is_waited_for(keyring, database):
    made = threading.Event()

    def make():
        made.set()
        return keyring.create_key("algebra", "second")

    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            project = rows.ensure_project(session, "algebra")
            waiting = pool.submit(make)
            made.wait()
            with pytest.raises(futures.TimeoutError):
                waiting.result(timeout=0.5)
        info, _ = waiting.result()
    assert info.project_id == project.id
    assert num_projects(database) == 1


def test_a_request_without_a_known_key_is_a_401(client, service):
    for headers in ({"authorization": ""}, {"authorization": "Bearer sk-ferrata-no"}):
        response = client.get("/v1/files", headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    _, key = service.keyring.create_key("first", "azure")
    azure = {"authorization": "", "api-key": key}
    assert client.get("/v1/files", headers=azure).status_code == 200
