"""Uploads to a real server in a process of its own: killed, cut off, lied to, large."""

import io
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import ROOT, free_port

from serve.file_requests import MIB, ROWS, num_files
from serve_app.files import FileStorage

SERVER = """
import resource, sys
from pathlib import Path
import uvicorn
from serve.conftest import make_service
from serve_app.api import create_api
from serve_app.settings import Settings
from serve_app.store.database import Database
data, store, port = sys.argv[1:]
settings = Settings(data=Path(data), store=store, models={})
uvicorn.run(create_api(make_service(settings, Database(store))), port=int(port))
"""


@pytest.fixture
def server(settings, store_url, service):
    """A real server in a process of its own: (process, port, key)."""
    port = free_port()
    program = [sys.executable, "-c", SERVER, settings.data, store_url, str(port)]
    process = subprocess.Popen(
        program, cwd=ROOT / "tests", stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while "running on" not in (line := process.stderr.readline()):
        assert line, "the server ended"
    _, key = service.keyring.create_key("first", "server")
    yield process, port, key
    process.kill()
    process.communicate()


def begin_upload(port: int, key: str, num_bytes: int, content: bytes) -> socket.socket:
    """Send the beginning of an upload that is announced with `num_bytes`."""
    head = (
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    )
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: multipart/form-data; boundary=x\r\ncontent-length: {num_bytes}\r\n\r\n"
        "".encode()
        + head
        + content
    )
    return connection


def test_a_server_killed_in_the_middle_of_an_upload_leaves_no_file(server, settings, database):
    process, port, key = server
    with begin_upload(port, key, 64 * MIB, ROWS * 1000):
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert num_files(database) == 0
    assert FileStorage(settings, database).blobs.idle(-60) == ([], [])


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_read(server, database):
    _, port, key = server
    with begin_upload(port, key, 2**50, b"x") as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    assert num_files(database) == 0


def test_a_client_that_hangs_up_in_the_middle_leaves_no_file_and_the_server_goes_on(
    server, settings, database
):
    process, port, key = server
    begin_upload(port, key, 64 * MIB, ROWS).close()
    answer = httpx.get(
        f"http://127.0.0.1:{port}/v1/files", headers={"authorization": f"Bearer {key}"}
    )
    assert answer.json()["data"] == []
    assert process.poll() is None


def test_a_large_upload_does_not_grow_the_server(server, settings):
    process, port, key = server
    peak = lambda: int(  # noqa: E731
        next(
            line.split()[1]
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
    )
    auth = {"authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{port}/v1/files"

    def send(num_mib: int):
        class Zeros(io.RawIOBase):
            left = num_mib * MIB

            def read(self, size: int = -1) -> bytes:
                size = min(size if size >= 0 else MIB, self.left)
                self.left -= size
                return bytes(size)

        return httpx.post(
            url,
            headers=auth,
            data={"purpose": "fine-tune"},
            files={"file": ("zeros", Zeros())},
            timeout=600,
        )

    assert send(2).status_code == 200
    before = peak()
    assert send(96).json()["bytes"] == 96 * MIB
    assert peak() - before < 24 * 1024, "KiB"
