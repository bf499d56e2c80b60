"""`pip install .` alone, on several Pythons: a client without torch, Ray or SQLAlchemy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODEL, ROOT, SCRATCH

from serve.running import running_api
from serve_app.settings import Settings

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
ABSENT = ("torch", "ray", "vllm", "transformers", "sqlalchemy", "fastapi", "psutil")
ROW = {"messages": [{"role": "user", "content": "1+1"}], "reference_answer": "2"}
UV = str(Path(sys.executable).with_name("uv"))


def run(*command, env: dict[str, str] | None = None, status: int = 0) -> str:
    """Run a command; returns what it printed on standard output."""
    whole = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | (env or {})
    done = subprocess.run(
        [str(part) for part in command], env=whole, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == status, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def interpreter(version: str) -> str:
    """A Python of this version: this one, one of the machine's, or one that uv can get."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    if found := sorted((root / "versions").glob(f"{version}.*/bin/python")):
        return str(found[-1])
    os.environ["UV_PYTHON_INSTALL_DIR"] = str(Path(SCRATCH) / "uv-python")
    got = subprocess.run([UV, "python", "install", version], capture_output=True, text=True)
    if got.returncode != 0:
        pytest.skip(f"uv cannot get Python {version}: {got.stderr.strip()[-200:]}")
    return version


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """What an installation reads, away from the repository: building writes beside it."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("rollout", "train", "serve_app"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def client(sqlite_template, tmp_path):
    """The environment that names a running service and a key of it."""
    settings = Settings(data=tmp_path / "data", models={"ferrata-tiny": str(MODEL)})
    settings.data.mkdir()
    shutil.copyfile(sqlite_template, settings.data / "ferrata.db")
    with running_api(settings) as data:
        port = json.loads((data / "service.json").read_text())["port"]
        yield {
            "FERRATA_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "FERRATA_API_KEY": (data / "operator.key").read_text().strip(),
        }


@pytest.mark.parametrize("version", PYTHONS)
def test_the_base_installation_uploads_starts_follows_and_downloads(
    version, source, client, tmp_path
):
    venv, rows = tmp_path / "venv", tmp_path / "rows.jsonl"
    rows.write_text(f"{json.dumps(ROW)}\n" * 20)
    run(UV, "venv", "--python", interpreter(version), venv, env=client)
    run(UV, "pip", "install", "--python", venv / "bin/python", source, env=client)
    probe = f"import importlib.util as u; print([n for n in {ABSENT} if u.find_spec(n)])"
    assert run(venv / "bin/python", "-c", probe).strip() == "[]"
    ferrata = venv / "bin" / "ferrata"

    sent = json.loads(run(ferrata, "files", "upload", rows, "--json", env=client))
    run(ferrata, "files", "download", sent["id"], "--out", tmp_path / "back", env=client)
    assert (tmp_path / "back").read_bytes() == rows.read_bytes()

    command = [ferrata, "train", rows, "--model", "ferrata-tiny", "--json"]
    job = json.loads(run(*command, env=client).splitlines()[-1])["job_id"]
    assert json.loads(run(ferrata, "jobs", "list", "--json", env=client))[0]["id"] == job
    run(ferrata, "jobs", "cancel", job, env=client)
    followed = run(ferrata, "jobs", "follow", job, env=client, status=1)
    assert f"Created fine-tuning job: {job}" in followed

    run(ferrata, "models", "download", "ferrata-tiny", "--out", tmp_path / "m", env=client)
    weights = "model.safetensors"
    assert (tmp_path / "m" / weights).read_bytes() == (MODEL / weights).read_bytes()
    assert "ferrata[cpu]" in " ".join(
        subprocess.run(
            [ferrata, "up", "--data", tmp_path / "d"], capture_output=True, text=True
        ).stderr.split()
    )
