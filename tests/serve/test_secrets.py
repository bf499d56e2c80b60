"""Secrets are unreadable in the store, and say clearly when the service's key does not fit."""

import subprocess
import sys

import pytest
from conftest import ROOT
from cryptography.fernet import Fernet
from sqlalchemy import select

from serve_app.keys import Keyring
from serve_app.secrets import KEY_VARIABLE, SecretBox, SecretKeyError
from serve_app.settings import Settings
from serve_app.store.tables import Secret

VALUE = "hf_0123456789abcdef"
NUM_PROCESSES = 6
PROGRAM = """
import sys
from pathlib import Path
from serve_app.secrets import SecretBox
from serve_app.settings import Settings
from serve_app.store.database import Database
data, store, project, name = sys.argv[1:]
box = SecretBox(Settings(data=Path(data), store=store), Database(store))
print("ready", flush=True)
sys.stdin.readline()
box.set(project, name, "value of " + name)
"""


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch):
    """The key file is used unless a test says otherwise."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def box(settings, database) -> SecretBox:
    """A box without secrets, and without a key yet."""
    return SecretBox(settings, database)


def test_a_secret_is_read_back_and_its_value_is_nowhere_in_the_store(
    box, project, database, settings
):
    box.set(project, "HF_TOKEN", VALUE)
    assert box.get(project, "HF_TOKEN") == VALUE
    with database.read() as session:
        (row,) = session.scalars(select(Secret))
    assert VALUE.encode() not in row.ciphertext
    files = [path for path in settings.data.rglob("*") if path.is_file()]
    assert files
    assert not any(VALUE.encode() in path.read_bytes() for path in files)


def test_only_names_are_listed_and_a_project_sees_its_own(box, project, database):
    other = Keyring(database).create_key("geometry", "laptop")[0].project_id
    box.set(project, "WANDB_API_KEY", "one")
    box.set(project, "HF_TOKEN", "two")
    box.set(other, "HF_TOKEN", "three")
    assert box.names(project) == ["HF_TOKEN", "WANDB_API_KEY"]
    assert (box.get(project, "HF_TOKEN"), box.get(other, "HF_TOKEN")) == ("two", "three")
    assert box.get(other, "WANDB_API_KEY") is None


def test_a_secret_is_replaced_and_deleted(box, project):
    box.set(project, "HF_TOKEN", "one")
    box.set(project, "HF_TOKEN", "two")
    assert box.get(project, "HF_TOKEN") == "two"
    assert box.delete(project, "HF_TOKEN") is True
    assert box.delete(project, "HF_TOKEN") is False
    assert (box.get(project, "HF_TOKEN"), box.names(project)) == (None, [])


def test_the_key_file_is_its_owners_alone(box, project, settings):
    box.set(project, "HF_TOKEN", VALUE)
    path = settings.data / "secret.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in settings.data.iterdir() if p.name.startswith(".")] == []
    path.chmod(0o640)
    with pytest.raises(SecretKeyError, match=r"chmod 600 .*secret\.key"):
        box.get(project, "HF_TOKEN")


def test_processes_that_make_the_key_at_once_use_one_key(box, project, settings, store_url):
    names = [f"TOKEN_{number}" for number in range(NUM_PROCESSES)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, settings.data, store_url, project, name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate()
    assert [worker.returncode for worker in workers] == [0] * NUM_PROCESSES
    assert [box.get(project, name) for name in names] == [f"value of {name}" for name in names]


def test_the_key_may_come_from_the_environment(box, project, settings, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, Fernet.generate_key().decode())
    box.set(project, "HF_TOKEN", VALUE)
    assert box.get(project, "HF_TOKEN") == VALUE
    assert not (settings.data / "secret.key").exists()


def test_another_key_is_said_to_be_another_key(box, project, monkeypatch):
    box.set(project, "HF_TOKEN", VALUE)
    other = Fernet.generate_key().decode()
    monkeypatch.setenv(KEY_VARIABLE, other)
    with pytest.raises(SecretKeyError, match=f"'HF_TOKEN'.*another key than {KEY_VARIABLE}") as e:
        box.get(project, "HF_TOKEN")
    assert other not in str(e.value)


@pytest.mark.parametrize("key", ["short", "é" * 44, "A" * 500])
def test_a_malformed_key_is_named_by_its_place_and_not_shown(box, project, monkeypatch, key):
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(SecretKeyError, match=f"{KEY_VARIABLE} holds no key.*Fernet") as raised:
        box.set(project, "HF_TOKEN", VALUE)
    assert key not in str(raised.value)


def test_a_malformed_key_file_is_named(box, project, settings):
    settings.data.mkdir(exist_ok=True)
    path = settings.data / "secret.key"
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(SecretKeyError, match=r"secret\.key holds no key"):
        box.set(project, "HF_TOKEN", VALUE)


def test_a_lost_key_file_is_never_replaced_while_secrets_need_it(box, project, settings):
    box.set(project, "HF_TOKEN", VALUE)
    kept = (settings.data / "secret.key").read_bytes()
    (settings.data / "secret.key").unlink()
    with pytest.raises(SecretKeyError, match=r"secret\.key is gone"):
        box.get(project, "HF_TOKEN")
    with pytest.raises(SecretKeyError, match=r"is gone, and 1 secrets were encrypted"):
        box.set(project, "OTHER", VALUE)
    assert not (settings.data / "secret.key").exists()
    box.delete(project, "HF_TOKEN")
    box.set(project, "HF_TOKEN", VALUE)
    assert (settings.data / "secret.key").read_bytes() != kept
    assert box.get(project, "HF_TOKEN") == VALUE


@pytest.mark.parametrize(
    ("name", "value"),
    [("", "v"), ("A-B", "v"), ("1A", "v"), ("A" * 65, "v"), ("A", ""), ("A", "a\0b")],
)
def test_a_wrong_name_or_value_is_refused(box, project, name, value):
    with pytest.raises(ValueError, match=r"name is 1 to 64|value is 1 to 16384"):
        box.set(project, name, value)


def test_a_refused_value_is_not_told(box, project):
    with pytest.raises(ValueError, match="'A'") as raised:
        box.set(project, "A", f"{VALUE}\0")
    assert VALUE not in str(raised.value)


def test_the_box_does_not_show_its_secrets(settings, database, project):
    assert isinstance(settings, Settings)
    box = SecretBox(settings, database)
    box.set(project, "HF_TOKEN", VALUE)
    assert VALUE not in repr(box) + str(vars(box))
