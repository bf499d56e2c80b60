"""A checkpoint is whole or it is none, whenever the writer was killed."""

import hashlib
import json
import shutil
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from train import checkpoint
from train.checkpoint import MANIFEST, NOT_MODEL, CheckpointError, commit, latest, load, prune


class Killed(BaseException):
    """Stands for a kill: no `except Exception` can catch it."""


def writer(content: bytes = b"weights"):
    """A write callback: one file, and one in a folder."""

    def write(target: Path) -> None:
        (target / "model.bin").write_bytes(content)
        (target / "optimizer").mkdir()
        (target / "optimizer" / "state.bin").write_bytes(content * 2)

    return write


def killed_writer(target: Path) -> None:
    """Writes one file, half of another, and dies."""
    (target / "model.bin").write_bytes(b"new weights")
    (target / "optimizer").mkdir()
    (target / "optimizer" / "state.bin").write_bytes(b"ha")
    raise Killed


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(p.name for p in folder.iterdir())


def test_a_commit_is_read_back_with_its_step_state_and_files(tmp_path):
    state = {"collector": {"cursor": 7}, "best": 0.5, "none": None}
    made = commit(tmp_path / "a" / "b", 3, state, writer())
    assert made.path == tmp_path / "a" / "b" / "step-000003"
    assert load(made.path) == made == latest(tmp_path / "a" / "b")
    assert (made.step, made.state) == (3, state)
    assert (made.path / "optimizer" / "state.bin").read_bytes() == b"weightsweights"
    manifest = json.loads((made.path / MANIFEST).read_text())
    assert manifest["files"].keys() == {"model.bin", "optimizer/state.bin"}
    assert manifest["files"]["model.bin"]["bytes"] == 7
    assert names(made.path) == ["manifest.json", "model.bin", "optimizer"]


def test_the_latest_checkpoint_is_the_one_of_the_highest_step(tmp_path):
    for step in (9, 100, 10):
        commit(tmp_path, step, {}, writer())
    assert latest(tmp_path).step == 100


def test_a_checkpoint_is_frozen(tmp_path):
    with pytest.raises(FrozenInstanceError):
        commit(tmp_path, 1, {}, writer()).step = 2


def test_there_is_no_latest_checkpoint_in_an_empty_or_missing_folder(tmp_path):
    assert latest(tmp_path) is None
    assert latest(tmp_path / "missing") is None


def test_a_second_commit_of_a_step_replaces_the_first(tmp_path):
    commit(tmp_path, 1, {"try": 1}, writer(b"old"))
    commit(tmp_path, 1, {"try": 2}, writer(b"new"))
    assert names(tmp_path) == ["step-000001"]
    assert latest(tmp_path).state == {"try": 2}
    assert (tmp_path / "step-000001" / "model.bin").read_bytes() == b"new"


def test_a_kill_while_writing_leaves_the_earlier_checkpoint_the_latest(tmp_path):
    first = commit(tmp_path, 1, {"n": 1}, writer())
    with pytest.raises(Killed):
        commit(tmp_path, 2, {"n": 2}, killed_writer)
    assert latest(tmp_path) == first
    assert not (tmp_path / "step-000002").exists()


def test_a_kill_while_a_step_is_written_again_leaves_the_first_writing_whole(tmp_path):
    first = commit(tmp_path, 1, {"n": 1}, writer())
    with pytest.raises(Killed):
        commit(tmp_path, 1, {"n": 2}, killed_writer)
    assert latest(tmp_path) == first


def test_the_next_commit_removes_what_a_killed_one_left(tmp_path):
    with pytest.raises(Killed):
        commit(tmp_path, 2, {}, killed_writer)
    assert names(tmp_path) == [".writing-000002"]
    commit(tmp_path, 2, {}, writer())
    assert names(tmp_path) == ["step-000002"]
    assert latest(tmp_path).step == 2


@pytest.mark.parametrize("function", ["write_json", "sha256", "_flush"])
def test_a_kill_after_the_files_but_before_the_manifest_leaves_no_checkpoint(
    tmp_path, monkeypatch, function
):
    def killed(*args):
        raise Killed

    first = commit(tmp_path, 1, {}, writer())
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, function, killed)
        with pytest.raises(Killed):
            commit(tmp_path, 2, {}, writer())
    assert latest(tmp_path) == first
    assert commit(tmp_path, 2, {}, writer()) == latest(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "a file is cut": lambda p: cut(p / "model.bin"),
    "a byte is flipped": lambda p: flip(p / "model.bin"),
    "a byte is flipped in a folder": lambda p: flip(p / "optimizer" / "state.bin"),
    "a file is gone": lambda p: (p / "model.bin").unlink(),
    "a folder is gone": lambda p: shutil.rmtree(p / "optimizer"),
    "the manifest is gone": lambda p: (p / MANIFEST).unlink(),
    "the manifest is cut": lambda p: (p / MANIFEST).write_text('{"version": 1, "st'),
    "the manifest is empty": lambda p: (p / MANIFEST).write_text(""),
    "the manifest is not text": lambda p: (p / MANIFEST).write_bytes(b"\xff\xfe\x00"),
    "the manifest lacks its fields": lambda p: (p / MANIFEST).write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_latest_passes_over_a_checkpoint_when(tmp_path, damage):
    first = commit(tmp_path, 1, {}, writer())
    second = commit(tmp_path, 2, {}, writer(b"more weights"))
    assert latest(tmp_path) == second
    DAMAGE[damage](second.path)
    assert latest(tmp_path) == first
    with pytest.raises(CheckpointError, match="step-000002"):
        load(second.path)


def test_prune_removes_every_checkpoint_but_the_kept_ones(tmp_path):
    for step in (1, 2, 3, 4):
        commit(tmp_path, step, {}, writer())
    assert prune(tmp_path, {2, 4, 99}) == [2, 4]
    assert checkpoint.steps(tmp_path) == [2, 4]
    assert names(tmp_path) == ["step-000002", "step-000004"]
    assert latest(tmp_path).step == 4


def test_a_kill_while_pruning_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    def killed(path):
        raise Killed

    commit(tmp_path, 1, {}, writer())
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            prune(tmp_path, set())
    assert (tmp_path / "step-000001" / "model.bin").exists()
    assert latest(tmp_path) is None
    prune(tmp_path, set())
    assert names(tmp_path) == []


def test_writing_json_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "state.json"
    checkpoint.write_json(path, {"a": list(range(100))})
    checkpoint.write_json(path, {"b": 1})
    assert json.loads(path.read_text()) == {"b": 1}
    assert names(tmp_path) == ["state.json"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.json"
    checkpoint.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        checkpoint.write_json(path, {"b": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_when_every_checkpoint_is_damaged_none_is_taken_for_a_fresh_start(tmp_path):
    for step in (1, 2):
        cut(commit(tmp_path, step, {}, writer()).path / "model.bin")
    with pytest.raises(CheckpointError, match="mend or remove"):
        latest(tmp_path)


def test_a_kill_while_a_step_is_replaced_leaves_an_earlier_one_and_the_next_commit_mends_it(
    tmp_path, monkeypatch
):
    def killed(path):
        raise Killed

    first = commit(tmp_path, 1, {}, writer())
    commit(tmp_path, 2, {}, writer(b"old"))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            commit(tmp_path, 2, {}, writer(b"new"))
    assert latest(tmp_path) == first
    assert commit(tmp_path, 2, {}, writer(b"new")) == latest(tmp_path)


def test_everything_is_flushed_before_it_gets_its_name_and_the_name_after(tmp_path, monkeypatch):
    events = []

    def record_flush(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append(str(path.relative_to(tmp_path)))

    rename = Path.rename

    def record_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(checkpoint.os, "fsync", record_flush)
    monkeypatch.setattr(Path, "rename", record_rename)
    commit(tmp_path, 1, {}, writer())
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    hidden = ".writing-000001"
    written = {f"{hidden}/{n}" for n in ("model.bin", "optimizer", "optimizer/state.bin")}
    manifest = [n for n in before if n.startswith(f"{hidden}/.manifest.json")]
    assert written <= set(before[: before.index(manifest[0])]), "the manifest came too early"
    assert before[-1] == hidden, "the manifest's own name"
    assert after == ["."]


def test_a_commit_leaves_no_file_open(tmp_path):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    commit(tmp_path, 1, {}, writer())
    assert open_files() == before


def test_the_manifest_says_its_version_and_the_files_digests(tmp_path):
    path = commit(tmp_path, 1, {}, writer()).path
    manifest = json.loads((path / MANIFEST).read_text())
    digest = hashlib.sha256(b"weights").hexdigest()
    assert manifest["version"] == 1
    assert manifest["files"]["model.bin"] == {"bytes": 7, "sha256": digest}


def test_a_file_longer_than_a_chunk_is_hashed_whole(tmp_path):
    content = bytes(range(256)) * (checkpoint.HASH_CHUNK_BYTES // 256) + b"end"
    (tmp_path / "file").write_bytes(content)
    assert checkpoint.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_the_optimizers_state_and_the_manifest_belong_to_no_model():
    from train.stage_run import OPTIMIZER_FILE  # brings Ray along, which no other test here needs

    assert sorted(NOT_MODEL) == sorted([OPTIMIZER_FILE, "manifest.json"])
