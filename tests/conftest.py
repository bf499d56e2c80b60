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
SCRATCH = tempfile.mkdtemp(prefix="fr")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TMPDIR"] = os.environ["RAY_TMPDIR"] = tempfile.tempdir = SCRATCH
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


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session", autouse=True)
def clean_machine():
    """Afterwards no process and no file of the tests may be left."""
    yield
    deadline = time.monotonic() + EXIT_DEADLINE_S
    while (left := processes_of(SCRATCH)) and time.monotonic() < deadline:
        time.sleep(0.5)
    shutil.rmtree(SCRATCH, ignore_errors=True)
    assert left == [], "the tests left processes running"
