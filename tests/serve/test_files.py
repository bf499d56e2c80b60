"""Files are whole or not there, belong to one project, and a job keeps what it was given."""

import hashlib
import io
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest
from conftest import ROOT
from sqlalchemy import update

from serve.file_requests import MIB, ROWS, num_files, upload
from serve_app.errors import ApiError
from serve_app.files import FileStorage, FileUnavailableError
from serve_app.janitor import Janitor
from serve_app.store.files import get_file
from serve_app.store.jobs import create_job, get_job, new_job
from serve_app.store.tables import StoredFile

SAVE_AND_STALL = """
import sys, time
from pathlib import Path
from serve_app.files import FileStorage
from serve_app.settings import Settings
from serve_app.store.database import Database
data, store, project = sys.argv[1:]

def chunks():
    yield b"x" * 2**21
    print("half", flush=True)
    time.sleep(600)

storage = FileStorage(Settings(data=Path(data), store=store), Database(store))
storage.save(project, "a.jsonl", "fine-tune", chunks())
"""


@pytest.fixture(params=["default", "folder", "memory"])
def storage(request, settings, database, tmp_path) -> FileStorage:
    """Storage in the data folder, in another plain folder, and in another kind of filesystem."""
    files = {"default": None, "folder": str(tmp_path / "else"), "memory": f"memory://{tmp_path}"}
    chosen = settings.model_copy(update={"files": files[request.param]})
    return FileStorage(chosen, database)


def age(database, file_id: str, **columns) -> None:
    """Change a file's row, such as its times."""
    with database.write() as session:
        session.execute(update(StoredFile).where(StoredFile.id == file_id).values(**columns))


def test_a_file_comes_back_as_it_was_with_its_checksum(storage, project, tmp_path):
    file = storage.save(project, "a.jsonl", "fine-tune", io.BytesIO(ROWS))
    assert (file.num_bytes, file.sha256) == (len(ROWS), hashlib.sha256(ROWS).hexdigest())
    assert b"".join(storage.chunks(file)) == ROWS
    assert storage.open(file).read() == ROWS
    copy = storage.fetch(file.id, tmp_path / "job" / "train.jsonl")
    assert copy.read_bytes() == ROWS
    assert [path.name for path in copy.parent.iterdir()] == ["train.jsonl"]
    storage.delete(file)
    with pytest.raises(FileUnavailableError, match=file.id):
        storage.open(file)


def test_a_file_that_fails_on_its_way_leaves_no_row_and_no_bytes(storage, project, database):
    def breaks():
        yield ROWS
        raise ConnectionError("gone")

    def refuses(session, file):
        raise ValueError("no")

    with pytest.raises(ConnectionError):
        storage.save(project, "a.jsonl", "fine-tune", breaks())
    with pytest.raises(ValueError, match="no"):
        storage.save(project, "a.jsonl", "fine-tune", [ROWS], also=refuses)
    assert num_files(database) == 0
    assert storage.blobs.idle(-60) == ([], [])


def test_a_file_is_refused_while_it_comes_not_after(settings, database, project):
    small = settings.model_copy(update={"max_file_bytes": 3 * MIB})
    storage = FileStorage(small, database)
    sent = []

    def endless():
        while True:
            sent.append(MIB)
            yield b"x" * MIB

    with pytest.raises(ApiError, match=f"{3 * MIB} bytes.*max_file_bytes") as raised:
        storage.save(project, "a.jsonl", "fine-tune", endless())
    assert raised.value.status == 413
    assert sum(sent) == 4 * MIB
    assert storage.blobs.idle(-60) == ([], [])


def test_a_large_file_is_never_whole_in_memory(storage, project, request):
    size = 64
    tracemalloc.start()
    try:
        file = storage.save(project, "a", "fine-tune", (bytes(MIB) for _ in range(size)))
        if "memory" not in request.node.name:  # that filesystem is itself in memory
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert sum(len(chunk) for chunk in storage.chunks(file)) == size * MIB
        assert tracemalloc.get_traced_memory()[1] - before < 8 * MIB
    finally:
        tracemalloc.stop()


def test_changed_bytes_are_noticed_when_a_job_takes_its_copy(storage, project, tmp_path):
    file = storage.save(project, "a.jsonl", "fine-tune", [ROWS])
    storage.blobs.write(file.id, [ROWS[:-1] + b"x"], MIB)
    target = tmp_path / "train.jsonl"
    with pytest.raises(FileUnavailableError, match=f"{file.id}.*were changed.*{file.sha256}"):
        storage.fetch(file.id, target)
    assert list(tmp_path.glob("*train.jsonl*")) == []


def test_a_process_killed_in_the_middle_of_a_file_leaves_no_row_and_what_a_sweep_removes(
    settings, database, project, store_url
):
    program = [sys.executable, "-c", SAVE_AND_STALL, settings.data, store_url, project]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "half\n"
        worker.send_signal(signal.SIGKILL)
    storage = FileStorage(settings, database)
    assert num_files(database) == 0
    complete, partial = storage.blobs.idle(-60)
    assert (complete, len(partial)) == ([], 1)
    assert storage.sweep() == 0, "another replica may be writing it"
    assert storage.sweep(idle_s=-60) == 1
    assert storage.blobs.idle(-60) == ([], [])


def test_a_sweep_keeps_files_and_removes_bytes_without_a_row(storage, project, database):
    kept = storage.save(project, "a.jsonl", "fine-tune", [ROWS])
    storage.blobs.write("file-without-row", [ROWS], MIB)
    assert storage.sweep(idle_s=-60) == 1
    assert b"".join(storage.chunks(kept)) == ROWS


def test_an_expired_file_is_gone_and_a_sweep_removes_its_bytes(client, service, database, project):
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    body = upload(client, **fields).json()
    assert body["expires_at"] == body["created_at"] + 3600
    kept = upload(client).json()["id"]
    age(database, body["id"], expires_at=int(time.time()))
    for path in (f"/v1/files/{body['id']}", f"/v1/files/{body['id']}/content"):
        assert client.get(path).status_code == 404
    assert client.delete(f"/v1/files/{body['id']}").status_code == 404
    assert [file["id"] for file in client.get("/v1/files").json()["data"]] == [kept]
    service.files.sweep()
    assert service.files.blobs.idle(-60) == ([kept], [])


def test_a_deleted_file_is_kept_for_the_job_that_has_not_copied_it(
    client, service, database, project, tmp_path
):
    ids = [upload(client).json()["id"] for _ in range(3)]
    job = new_job(
        project_id=project,
        request={"training_file": ids[0], "heldout_file": ids[1]},
        out=str(tmp_path / "out"),
        model="tiny",
        seed=1,
        training_file=ids[0],
    )
    with database.write() as session:
        create_job(session, job)
    for file_id in ids:
        assert client.delete(f"/v1/files/{file_id}").json()["deleted"] is True
        assert client.get(f"/v1/files/{file_id}").status_code == 404
    for file_id in ids[:2]:
        assert service.files.fetch(file_id, tmp_path / file_id).read_bytes() == ROWS
    with pytest.raises(FileUnavailableError):
        service.files.fetch(ids[2], tmp_path / "other")
    assert service.files.sweep(idle_s=-60) == 0
    with database.write() as session:
        get_job(session, job.id, lock=True).spec = {"prepared": True}
    assert service.files.sweep(idle_s=-60) == 2


def test_a_janitor_sweeps_again_and_again_also_after_a_failure(storage, project, monkeypatch):
    sweep, calls = storage.sweep, []
    swept = threading.Event()

    def fails_once() -> int:
        calls.append(sweep(idle_s=-60))
        if len(calls) == 1:
            raise ConnectionError("the storage does not answer")
        if len(calls) == 3:
            swept.set()
        return calls[-1]

    storage.blobs.write("file-without-row", [ROWS], MIB)
    monkeypatch.setattr(storage, "sweep", fails_once)
    janitor = Janitor([storage.sweep], interval_s=0.01)
    assert swept.wait(60)
    janitor.stop()
    assert calls[:3] == [1, 0, 0]


def test_a_file_that_a_create_has_found_is_not_deleted_under_it(settings, database, project):
    storage = FileStorage(settings, database)
    file = storage.save(project, "a.jsonl", "fine-tune", io.BytesIO(ROWS))
    with database.write() as session:
        assert get_file(session, file.id, project, keep=True) is not None
        deleting = threading.Thread(target=storage.delete, args=(file,))
        deleting.start()
        deleting.join(1.0)  # it waits for this transaction; without the lock it would be done
        job = new_job(
            project_id=project,
            request={"training_file": file.id},
            out="out",
            model="m",
            seed=1,
            training_file=file.id,
        )
        create_job(session, job)
    deleting.join(30.0)
    assert not deleting.is_alive()
    assert b"".join(storage.chunks(file)) == ROWS, "the job still has to copy it"
