"""`ferrata` against a real service over HTTP (its routes and store, without Ray)."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import MODEL, ROOT, free_port
from typer.testing import CliRunner

from serve.running import running_api
from serve_app.cli import app
from serve_app.cli.bodies import apply_settings, read_body
from serve_app.cli.errors import UsageError
from serve_app.record import read_settings, write_settings
from serve_app.settings import Settings

HEAVY = {"torch", "ray", "vllm", "transformers", "sqlalchemy", "fastapi", "psutil", "alembic"}
ROWS = b'{"messages": [{"role": "user", "content": "1+1"}], "reference_answer": "2"}\n' * 9


@pytest.fixture(autouse=True)
def no_environment(monkeypatch, tmp_path):
    """What the machine's own user has set does not reach the tests."""
    for name in ("FERRATA_BASE_URL", "FERRATA_API_KEY", "FERRATA_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FERRATA_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def data(tmp_path, sqlite_template):
    """The data folder of a service that answers on this machine, as `ferrata up` leaves it."""
    settings = Settings(data=tmp_path / "data", models={"org/tiny": str(MODEL)})
    settings.data.mkdir()
    shutil.copyfile(sqlite_template, settings.data / "ferrata.db")
    with running_api(settings) as data:
        yield data


def ferrata(*arguments, stdin: str | None = None, status: int = 0):
    """Run the command in this process; returns what it printed."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done


def as_json(*arguments, **options):
    """The last line of a command with --json, as an object."""
    done = ferrata(*arguments, "--json", **options)
    return json.loads(done.stdout.splitlines()[-1])


def test_help_and_every_commands_help_load_nothing_heavy():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom serve_app.cli import app\n"
        "import typer\nroot = typer.main.get_command(app)\n"
        "for name, command in root.commands.items():\n"
        "    for sub in getattr(command, 'commands', {'': None}):\n"
        "        words = [name, sub, '--help'] if sub else [name, '--help']\n"
        "        done = CliRunner().invoke(app, words)\n"
        "        assert done.exit_code == 0, (words, done.output)\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_file_goes_up_is_listed_comes_back_and_is_deleted(data, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(ROWS)
    sent = as_json("files", "upload", rows, "--data", data)
    assert sent["id"].startswith("file-") and sent["bytes"] == len(ROWS)
    assert [f["id"] for f in as_json("files", "list", "--data", data)] == [sent["id"]]
    assert as_json("files", "get", sent["id"], "--data", data) == sent
    assert "rows.jsonl" in ferrata("files", "list", "--data", data).stdout
    target = tmp_path / "back.jsonl"
    ferrata("files", "download", sent["id"], "--out", target, "--data", data)
    assert target.read_bytes() == ROWS
    assert as_json("files", "delete", sent["id"], "--data", data)["deleted"]
    gone = ferrata("files", "get", sent["id"], "--data", data, status=1)
    assert gone.stdout == "" and f"error: No such File object: {sent['id']}" in gone.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("files", "upload", "nothing.jsonl"),
        ("models", "select", "nothing.jsonl"),
        ("train", "nothing.jsonl", "--model", "ferrata-tiny"),
        ("jobs", "create", "--training-file", "nothing.jsonl"),
    ],
)
def test_a_missing_file_is_told_before_a_missing_service(tmp_path, words):
    done = ferrata(*words, "--data", tmp_path, status=2)
    assert "nothing.jsonl is no file" in done.stderr and "no service" not in done.stderr


def test_without_a_service_the_command_says_how_to_get_one(tmp_path):
    done = ferrata("models", "list", "--data", tmp_path, status=2)
    assert f"start one with `ferrata up --data {tmp_path}`" in done.stderr.replace("\n", " ")
    done = ferrata("models", "list", "--address", f"http://127.0.0.1:{free_port()}", status=1)
    assert "does not answer" in done.stderr


def test_a_wrong_key_is_refused_with_what_to_do(data):
    done = ferrata("files", "list", "--data", data, "--key", "sk-wrong", status=1)
    assert "FERRATA_API_KEY" in done.stderr and "Traceback" not in done.output


def test_the_environment_names_a_service_and_the_command_line_wins(data, monkeypatch):
    record = json.loads((data / "service.json").read_text())
    monkeypatch.setenv("FERRATA_BASE_URL", f"http://127.0.0.1:{record['port']}/v1")
    monkeypatch.setenv("FERRATA_API_KEY", (data / "operator.key").read_text().strip())
    assert as_json("files", "list") == []
    ferrata("files", "list", "--key", "sk-wrong", status=1)
    monkeypatch.setenv("FERRATA_BASE_URL", "http://127.0.0.1:1/v1")
    assert as_json("files", "list", "--data", data) == []


def test_a_new_projects_key_works_until_it_is_revoked_and_is_shown_once(data):
    made = as_json("keys", "create", "--project", "alpha", "--data", data)
    assert made["api_key"].startswith("sk-ferrata-")
    assert as_json("files", "list", "--data", data, "--key", made["api_key"]) == []
    listed = ferrata("keys", "list", "--json", "--data", data)
    assert made["id"] in listed.stdout and made["api_key"] not in listed.stdout
    assert {key["project_name"] for key in json.loads(listed.stdout)} == {"default", "alpha"}
    ferrata("keys", "revoke", made["id"], "--data", data)
    ferrata("files", "list", "--data", data, "--key", made["api_key"], status=1)
    missing = ferrata("keys", "revoke", "key_none", "--data", data, status=1)
    assert "key_none" in missing.stderr


def test_a_secret_is_read_from_standard_input_and_never_shown(data):
    done = ferrata("secrets", "set", "HF_TOKEN", "--data", data, stdin="hf_abc\n")
    assert as_json("secrets", "list", "--data", data) == [{"name": "HF_TOKEN"}]
    assert "hf_abc" not in done.output
    assert b"hf_abc" not in (data / "ferrata.db").read_bytes()
    ferrata("secrets", "delete", "HF_TOKEN", "--data", data)
    ferrata("secrets", "delete", "HF_TOKEN", "--data", data, status=2)
    ferrata("secrets", "set", "A", "--project", "none", "--data", data, stdin="x", status=2)
    ferrata("secrets", "set", "not a name", "--data", data, stdin="x", status=1)


def test_a_model_is_downloaded_as_a_folder_that_is_whole(data, tmp_path):
    target = tmp_path / "model"
    ferrata("models", "download", "org/tiny", "--out", target, "--data", data)
    names = {path.name for path in target.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert all((target / name).read_bytes() == (MODEL / name).read_bytes() for name in names)
    again = ferrata("models", "download", "org/tiny", "--out", target, "--data", data, status=2)
    assert "exists already" in again.stderr
    ferrata("models", "download", "nope", "--out", tmp_path / "n", "--data", data, status=1)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_stores_schema_is_brought_up_to_date_without_a_password_shown(tmp_path):
    shown = as_json("db", "upgrade", "--store", f"sqlite:///{tmp_path}/new.db")
    assert shown["schema"] == "newest" and (tmp_path / "new.db").exists()
    url = f"postgresql+psycopg://user:hidden@127.0.0.1:{free_port()}/none"
    down = ferrata("db", "upgrade", "--store", url, status=1)
    assert "the store does not answer" in down.stderr and "hidden" not in down.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "max_runing_jobs=2"], "did you mean 'max_running_jobs'?"),
        (["--set", "organization=Two Words"], "organization"),
        (["--model", "mine=/nowhere"], "holds no config.json"),
        (["--model", "mine"], "write NAME=VALUE"),
    ],
)
def test_up_refuses_wrong_settings_before_anything_starts(tmp_path, options, said):
    done = ferrata("up", "--data", tmp_path / "new", *options, status=2)
    assert said in done.stderr and not (tmp_path / "new").exists()


def test_settings_are_kept_without_the_defaults(tmp_path):
    settings = Settings(data=tmp_path, max_running_jobs=2)
    write_settings(settings.model_copy(update={"models": settings.models | {"mine": "/m"}}))
    kept = json.loads((tmp_path / "settings.json").read_text())
    assert kept == {"max_running_jobs": 2, "models": {"mine": "/m"}}
    read = read_settings(tmp_path)
    assert read.models == settings.models | {"mine": "/m"} and read.max_running_jobs == 2


def test_status_of_a_folder_without_a_service_says_down(tmp_path):
    done = ferrata("status", "--data", tmp_path, "--json", status=1)
    assert json.loads(done.stdout)["state"] == "down"


def test_a_broken_record_is_named_with_its_file(tmp_path):
    for text, told in [("{broken", "Invalid JSON"), ('{"port": 1}', "mark: is missing")]:
        (tmp_path / "service.json").write_text(text)
        done = ferrata("status", "--data", tmp_path, status=1)
        assert f"{tmp_path}/service.json is not what" in done.stderr and told in done.stderr


def test_down_without_a_service_is_no_error(tmp_path):
    for folder in (tmp_path, tmp_path / "new"):
        assert as_json("down", "--data", folder) == {"data": str(folder), "was_up": False}
    assert not (tmp_path / "new").exists()


def test_a_body_comes_from_a_file_and_settings(tmp_path):
    (tmp_path / "body.yaml").write_text(
        "model: m\ntraining_file: rows.jsonl\nsrl: {max_steps: 9}\n"
    )
    body = apply_settings(
        read_body(tmp_path / "body.yaml"),
        ["srl.learning_rate=1.0e-4", "rlvr=null", "seed=2", "heldout_file=file-1"],
    )
    assert body == {
        "model": "m",
        "training_file": str(tmp_path / "rows.jsonl"),
        "heldout_file": "file-1",
        "srl": {"max_steps": 9, "learning_rate": 1e-4},
        "rlvr": None,
        "seed": 2,
    }
    with pytest.raises(UsageError, match="write FIELD=VALUE"):
        apply_settings({}, ["seed"])


def test_a_service_on_a_machine_without_its_packages_is_told_what_to_install(tmp_path):
    (tmp_path / "psutil.py").write_text("raise ModuleNotFoundError('none', name='psutil')")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-m", "serve_app.cli", "up", "--data", str(tmp_path / "d")],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "pip install 'ferrata[cpu]'" in done.stderr.replace("\n", " ")


def test_models_select_says_which_limit_removed_every_candidate(data, tmp_path, monkeypatch):
    from serve_app import native_work, tasks

    def here(service, caller, deadline_s, function, arguments):
        return getattr(native_work, function)(**arguments, cluster={"CPU": 2.0})

    monkeypatch.setattr(tasks, "on_ray", here)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(ROWS)
    done = ferrata("models", "select", file, "--max-parameters", 1000, "--data", data, status=1)
    assert "org/tiny: 342,528 parameters, max_parameters is 1,000" in " ".join(done.output.split())
    # 342,528 parameters * 16 bytes = 0.005104 GiB.
    done = ferrata("models", "select", file, "--max-memory-gib", 0.005, "--data", data, status=1)
    said = "org/tiny: 0.005104 GiB to train it, max_memory_gib is 0.005"
    assert said in " ".join(done.output.split())
