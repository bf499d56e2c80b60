"""A job keeps the model that it starts from."""

import shutil

import pytest
from conftest import MODEL

from serve_app.catalogue import KnownModel
from serve_app.preparation import pinned
from serve_app.prepare_error import PrepareError

NAME = "ft:ferrata-tiny:ferrata::12345678:ckpt-step-9"


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint's folder: a model, and what its own job needs to go on."""
    folder = tmp_path / "step-000009"
    shutil.copytree(MODEL, folder)
    for name in ("optimizer.safetensors", "manifest.json"):
        (folder / name).write_bytes(b"of the other job")
    return KnownModel(NAME, str(folder), "checkpoint")


def test_a_checkpoint_outlives_its_pruning_in_the_job_that_starts_from_it(checkpoint, tmp_path):
    model = (MODEL / "model.safetensors").read_bytes()
    for _ in range(2):  # the second as after a kill
        path = pinned(checkpoint, tmp_path / "base")
    shutil.rmtree(checkpoint.path)
    kept = {file.name: file for file in (tmp_path / "base").iterdir()}
    assert path == str(tmp_path / "base")
    assert kept["model.safetensors"].read_bytes() == model
    assert {"optimizer.safetensors", "manifest.json"}.isdisjoint(kept)


def test_a_checkpoint_that_was_pruned_before_is_named(checkpoint, tmp_path):
    shutil.rmtree(checkpoint.path)
    with pytest.raises(PrepareError, match="was deleted in the meantime") as caught:
        pinned(checkpoint, tmp_path / "base")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_other_models_stay_where_they_are(tmp_path):
    base = KnownModel("ferrata-tiny", str(MODEL), "base")
    assert pinned(base, tmp_path / "base") == str(MODEL)
    assert not (tmp_path / "base").exists()
