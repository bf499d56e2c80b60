"""A job's whole life through each stock OpenAI client, on the real service with real engines."""

import pytest
from conftest import ROOT

from serve.stock import VERSIONS, run_client

QUICKSTART = ROOT / "examples" / "quickstart"
NUM_ROWS = {"train": 200, "valid": 8, "heldout": 8}
STEPS = 6  # three of each stage
LIFE_DEADLINE_S = 800


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """A small part of the quickstart's data."""
    folder = tmp_path_factory.mktemp("rows")
    for name, count in NUM_ROWS.items():
        lines = (QUICKSTART / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:count]))
    return str(folder)


@pytest.mark.parametrize("client", VERSIONS)
def test_a_job_lives_its_whole_life_through_the_stock_client(running_service, data, client):
    environment = {
        "BASE_URL": running_service.base_url,
        "API_KEY": running_service.api_key,
        "DATA": data,
    }
    seen = run_client(client, "lifecycle.py", deadline_s=LIFE_DEADLINE_S, **environment)
    assert seen["created"] == "validating_files"
    assert [s for s in seen["statuses"] if s in ("paused", "succeeded", "cancelled")] == [
        "paused",
        "succeeded",
        "cancelled",
    ]
    assert seen["resumed"] == "queued"
    assert {"srl", "rlvr"} <= set(seen["stages"])
    first = seen["progress"][: seen["progress"].index(1.0) + 1]
    assert first == sorted(first)
    assert seen["paused_at"], "a pause commits a checkpoint"
    assert seen["steps"] == list(range(1, STEPS + 1))
    assert seen["event_ids"][0] == seen["event_ids"][1] > STEPS
    assert seen["streamed"] is True
    check_result(seen)


def check_result(seen: dict) -> None:
    """What came out of the job, and that it can be asked."""
    done = seen["done"]
    assert done["model"].startswith("ft:ferrata-tiny:ferrata:mine:")
    assert done["trained_tokens"] > 0
    assert (done["finished"], done["results"], done["error"]) == (True, 1, None)
    assert "train_mean_reward" in seen["csv"]
    numbers = [step for step, _ in seen["checkpoints"]]
    assert numbers == sorted(numbers, reverse=True)
    assert all(model.endswith(f":ckpt-step-{step}") for step, model in seen["checkpoints"])
    for name in ("chat", "chat_checkpoint"):
        whole, streamed, finish, streamed_finish, counted, _ = seen[name]
        assert whole
        assert whole == streamed
        assert finish == streamed_finish
        assert finish in ("stop", "length")
        assert counted is True
    assert seen["chat"][-1] == done["model"]
    assert seen["completion"] in ("stop", "length")
    assert seen["listed"] is True
    assert seen["cancelled"] == "cancelled"
