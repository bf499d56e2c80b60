"""Which models can share an engine: those that differ in nothing but their weights."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import MODEL

from rollout.types import SamplingSpec
from serve.chat_models import other_architecture, perturbed
from serve_app.chat.placement import Locator, ModelGoneError, Place
from serve_app.chat.types import ChatModel


@pytest.fixture
def locator() -> Locator:
    return Locator(num_threads=2, on_gpu=False)


def trained(path: Path, **changes) -> ChatModel:
    fields = {"max_model_len": 128, "dtype": "float32", "sampling": SamplingSpec("single", 9)}
    return ChatModel("m", str(path), trained=True, **fields | changes)


def copy_with(folder: Path, file: str, **changes) -> Path:
    """The embedded model with fields of one JSON file changed."""
    shutil.copytree(MODEL, folder)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_a_base_model_and_what_was_trained_from_it_share_an_engine(locator, tmp_path):
    base = locator.locate(ChatModel("base", str(MODEL)))
    tuned = locator.locate(trained(perturbed(tmp_path / "tuned", 1)))
    assert tuned.fingerprint == base.fingerprint
    assert tuned.weights != base.weights
    assert tuned.spec.max_model_len == 256, "the engine's; the job's own limit is each request's"


def test_other_shapes_numbers_tokens_ends_or_longer_contexts_need_another_engine(locator, tmp_path):
    tokens = json.loads((MODEL / "tokenizer.json").read_text())["added_tokens"]
    places: list[Place] = [
        locator.locate(ChatModel("base", str(MODEL))),
        locator.locate(ChatModel("m", str(other_architecture(tmp_path / "shapes")))),
        locator.locate(trained(MODEL, dtype="bfloat16")),
        locator.locate(trained(MODEL, max_model_len=512)),
        locator.locate(
            trained(copy_with(tmp_path / "t", "tokenizer.json", added_tokens=tokens[:-1]))
        ),
        locator.locate(
            trained(copy_with(tmp_path / "e", "generation_config.json", eos_token_id=[4, 5]))
        ),
    ]
    assert len({place.fingerprint for place in places}) == len(places)


def test_files_that_are_written_anew_are_other_weights(locator, tmp_path):
    folder = perturbed(tmp_path / "m", 1)
    before = locator.locate(trained(folder))
    assert locator.locate(trained(folder)) == before
    perturbed(folder, 2)
    after = locator.locate(trained(folder))
    assert (after.weights == before.weights, after.fingerprint) == (False, before.fingerprint)


def test_the_cache_of_keys_and_values_holds_many_contexts_within_its_budget(locator, tmp_path):
    small = locator.locate(ChatModel("base", str(MODEL))).spec.kv_cache_gib
    large = copy_with(
        tmp_path / "large",
        "config.json",
        num_hidden_layers=36,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
    )
    spec = locator.locate(ChatModel("large", str(large))).spec
    assert small == 0.25
    assert (spec.max_model_len, spec.kv_cache_gib) == (4096, 2.25), "two whole contexts at least"


def test_a_folder_that_is_gone_and_a_hub_model_that_is_not_there_are_said_to_be_gone(
    locator, tmp_path
):
    with pytest.raises(ModelGoneError, match="'m' has no files"):
        locator.locate(trained(tmp_path / "nowhere"))
    with pytest.raises(ModelGoneError, match="not found on the hub"):
        locator.locate(ChatModel("x/y", "no-such-owner-here/nothing", on_hub=True))
