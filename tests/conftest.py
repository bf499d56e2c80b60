"""Shared pieces: the embedded model, the quickstart's job, and a clean machine afterwards."""

import os
import secrets
import shutil
import socket
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "ferrata-tiny"
JOB = ROOT / "examples" / "quickstart" / "job.yaml"
EXIT_DEADLINE_S = 60
# Everything that the tests, Ray and vLLM write; short, since Ray's socket paths have 107 bytes.
SCRATCH = os.environ.get("FERRATA_TEST_SCRATCH") or tempfile.mkdtemp(prefix="fr")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TMPDIR"] = os.environ["RAY_TMPDIR"] = tempfile.tempdir = SCRATCH
os.environ["FERRATA_TEST_SCRATCH"] = SCRATCH  # for the tests' own child processes
for name in ("VLLM_CACHE_ROOT", "MPLCONFIGDIR", "XDG_CACHE_HOME", "HF_HOME"):
    os.environ[name] = str(Path(SCRATCH) / name.lower())
# Given here, Ray writes no token file into the home folder.
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def processes_of(ray_folder: str) -> list[str]:
    """Command lines of other processes that were started with this RAY_TMPDIR."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended in the meantime, or is not ours
            continue
        if int(process.name) != os.getpid() and f"RAY_TMPDIR={ray_folder}".encode() in environment:
            found.append(f"{process.name} {command}")
    return found


def files_in_the_repository() -> set[Path]:
    """Every file that is not in the environment, in git's own folder, or a cache."""
    skip = {".venv", ".git", "out", "__pycache__", ".pytest_cache", ".ruff_cache"}
    found = set()
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in skip]
        found |= {Path(folder) / name for name in names if not name.startswith(".coverage")}
    return found


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session", autouse=True)
def clean_machine():
    """Afterwards no process and no file of the tests may be left."""
    before = files_in_the_repository()
    yield
    deadline = time.monotonic() + EXIT_DEADLINE_S
    while (left := processes_of(SCRATCH)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == [], "the tests left processes running"
    shutil.rmtree(SCRATCH)
    assert files_in_the_repository() - before == set(), "the tests left files in the repository"
