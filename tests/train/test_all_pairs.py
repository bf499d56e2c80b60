"""Every pair of settings runs: a three-step job each for a few jobs that hold all the pairs."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from conftest import JOB
from covering import all_pairs, covering_rows, pairs_of

from train.events import read_events
from train.pipeline import run_job
from train.spec import JobSpec
from train.spec_file import load_spec

NUM_STEPS = 3
FACTORS: dict[str, list[Any]] = {
    "method": ["sft+srl", "srl", "rlvr", "srl+rlvr"],
    "loss": ["dapo", "grpo", "dr_grpo", "gspo", "cispo", "rloo"],
    "advantage": ["grpo", "dr_grpo", "rloo"],
    "workers": [1, 2],
    "engines": [1, 2],
    "protocol": ["single", "stepwise"],
    "truncation": ["keep", "mask"],
    "importance": ["none", "token_truncate", "sequence_mask"],
    "updates": [1, 2],
    "dtype": ["float32", "bfloat16"],
    "targets": ["all", "all_but_last"],
}
ROWS = covering_rows(FACTORS)


def test_the_jobs_hold_every_pair_and_are_few():
    assert set().union(*map(pairs_of, ROWS)) == all_pairs(FACTORS)
    assert 24 <= len(ROWS) <= 28, "6 losses x 4 methods need 24"


def test_a_pair_is_missed_when_a_row_is_taken_away():
    held = set().union(*map(pairs_of, ROWS[1:]))
    assert held < all_pairs(FACTORS)


@pytest.mark.parametrize(
    ("factors", "num_rows"),
    [({"a": [1, 2], "b": [1, 2]}, 4), ({"a": [1, 2], "b": [1, 2], "c": [1, 2]}, 4)],
)
def test_small_coverings_are_as_small_as_can_be(factors, num_rows):
    rows = covering_rows(factors)
    assert set().union(*map(pairs_of, rows)) == all_pairs(factors)
    assert len(rows) == num_rows
    assert all(row.keys() == factors.keys() for row in rows)


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def job(row: dict[str, Any], folder: Path) -> JobSpec:
    """The quickstart's job with a row's settings, on a few rows and three steps a stage."""
    stage: dict[str, Any] = {
        "max_steps": NUM_STEPS,
        "groups_per_step": 8,
        "group_size": 4,
        "max_sampling_rounds": 1,
        "learning_rate": 1e-3,
        "loss": row["loss"],
        "advantage": row["advantage"],
        "truncation": row["truncation"],
        "updates_per_batch": row["updates"],
        "tis_cap": None,
        "save_interval": 2,
    }
    if row["loss"] == "dr_grpo":
        stage["dr_grpo_length"] = 24
    if row["importance"] != "none":
        stage |= {"tis_cap": 2.0, "tis_floor": 0.1, "tis_mode": row["importance"]}
    stages = row["method"].split("+")
    settings = {
        "sft": {"batch_size": 16, "learning_rate": 1e-3} if "sft" in stages else None,
        "srl": stage | {"targets": row["targets"]} if "srl" in stages else None,
        "rlvr": stage if "rlvr" in stages else None,
        "sampling": {
            "protocol": row["protocol"],
            "max_tokens": 24 if row["protocol"] == "stepwise" else 100,
        },
        "learner": {
            "num_workers": row["workers"],
            "cpus_per_worker": 0.3,
            "num_threads": 1,
            "dtype": row["dtype"],
        },
        "rollout": {
            "num_engines": row["engines"],
            "cpus_per_engine": 0.3,
            "num_threads": 1,
            "dtype": row["dtype"],
            "max_model_len": 256,
            "kv_cache_gib": 0.25,
        },
        "data": {"heldout": None},
    }
    for name, count in (("train", 9), ("valid", 4)):
        lines = (JOB.parent / f"{name}.jsonl").read_text().splitlines(keepends=True)[:count]
        (folder / f"{name}.jsonl").write_text("".join(lines))
        settings["data"] |= {name: str(folder / f"{name}.jsonl")}
    return load_spec(JOB, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(str(v) for v in row.values()))
def test_a_job_ends_without_error(row, tmp_path, cluster):
    spec = job(row, tmp_path)
    out = tmp_path / "out"
    report = run_job(spec, out)
    events = read_events(out / "events.jsonl")
    for stage in row["method"].split("+"):
        steps = [e["step"] for e in events if e["type"] == "metrics" and e["stage"] == stage]
        assert steps == list(range(1, NUM_STEPS + 1))
        assert (out / stage / "result.json").exists()
    assert (Path(report["export"]) / "model.safetensors").exists()
    assert report["best"]["stage"] == row["method"].split("+")[-1]
    learnt = [e for e in events if "sampler_learner_logprob_diff_max" in e]
    if row["dtype"] == "float32":
        assert all(e["sampler_learner_logprob_diff_max"] < 1e-4 for e in learnt)
    if row["method"] != "rlvr":
        assert learnt, "a job that learns from nothing shows nothing"
