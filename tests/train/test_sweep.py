"""Sweeps: what is refused, what the folders say, what is concluded; and a real small one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import JOB, MODEL, ROOT

from train.spec import SpecError
from train.sweep.run import paired_difference, verdict
from train.sweep.show import draw, table
from train.sweep.spec import load_sweep
from train.sweep.trials import read_trials, validations, write_setting


def write(folder: Path, **fields: object) -> Path:
    raw = {"job": str(JOB), "parameters": {"srl.learning_rate": {"loguniform": [1e-5, 1e-3]}}}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(raw | fields))
    return path


def test_a_sweep_knows_its_jobs_own_setting_and_makes_jobs_of_others(tmp_path):
    spec = load_sweep(write(tmp_path, set=["rlvr.max_steps=3"]))
    assert spec.default() == {"srl.learning_rate": 1e-4}
    job = spec.job_of({"srl.learning_rate": 3e-4})
    assert (job.srl.learning_rate, job.rlvr.max_steps) == (3e-4, 3)
    assert spec.overrides({"a": "x y"}) == ["rlvr.max_steps=3", "a=x y"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"parameters": {"srl.rate": {"choice": [1]}}}, "srl.rate"),
        ({"parameters": {"srl.learning_rate": {"choice": [1], "uniform": [0, 1]}}}, "exactly one"),
        ({"parameters": {"srl.learning_rate": {"uniform": [2, 1]}}}, "the lower end comes first"),
        ({"parameters": {"srl.learning_rate": {"loguniform": [0, 1]}}}, "begin above 0"),
        ({"parameters": {"srl.max_steps": {"choice": [3, 0]}}}, "srl.max_steps"),
        ({"parameters": {"sft.num_epochs": {"choice": [1]}}}, "has no such field"),
        ({"parameters": {}}, "parameters"),
        ({"num_trials": 1}, "num_trials"),
        ({"job": "nowhere.yaml"}, "cannot be read"),
        ({"trials": 3}, "trials"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said_before_it_starts(tmp_path, fields, complaint):
    with pytest.raises(SpecError, match=complaint):
        load_sweep(write(tmp_path, **fields))


def events(folder: Path, *points: tuple[str, int, float | None]) -> None:
    """A log with these steps and validations."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    lines = [
        {"type": "metrics", "stage": stage, "step": step, "full_valid_mean_reward": reward}
        for stage, step, reward in points
    ]
    text = "".join(json.dumps(line) + "\n" for line in [{"type": "message"}, *lines])
    (folder / "out" / "events.jsonl").write_text(text)


def test_steps_count_over_the_stages_and_trials_are_what_their_folders_say(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    write_setting(first, {"x": 1}, is_default=True)
    write_setting(second, {"x": 2}, is_default=False)
    events(first, ("srl", 1, None), ("srl", 2, 0.1), ("rlvr", 1, None), ("rlvr", 2, 0.7))
    (first / "out" / "report.json").write_text("{}")
    assert validations(first / "out") == [(2, 0.1), (4, 0.7)]
    one, two = read_trials(tmp_path)
    assert (one.best, one.last_step, one.finished, one.is_default) == (0.7, 4, True, True)
    assert (two.best, two.last_step, two.finished, two.parameters) == (-1.0, 0, False, {"x": 2})


def test_a_difference_is_paired_and_the_verdict_says_what_it_allows():
    # Of 4 rows one is gained: mean 1/4, variance 3/16, half-width 1.96 * sqrt(3/16 / 4).
    found = paired_difference([1, 0, 0, 0])
    assert found["mean"] == 0.25
    assert found["ci95"] == pytest.approx([0.25 - 0.4243, 0.25 + 0.4243], abs=1e-4)
    assert "No setting is surely better" in verdict(False, {"difference": found})
    better = {"difference": paired_difference([1, 1, 1, 0] * 25)}
    assert verdict(False, better).startswith("The best setting is better than the default")
    worse = {"difference": paired_difference([-1, -1, -1, 0] * 25)}
    assert "is worse than the default" in verdict(False, worse)
    assert verdict(True, None) == "No setting validates better than the job as it stands."
    assert "how much of that is luck" in verdict(False, None)


def small(folder: Path) -> Path:
    """A sweep of three trials of two SRL steps each, on a few rows."""
    for name, count in (("train", 40), ("valid", 8), ("heldout", 8)):
        lines = (JOB.parent / f"{name}.jsonl").read_text().splitlines(keepends=True)[:count]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    job = yaml.safe_load(JOB.read_text())
    job["data"] = {name: f"{name}.jsonl" for name in ("train", "valid", "heldout")}
    job |= {"model": str(MODEL), "rlvr": None}
    job["srl"] |= {"max_steps": 4, "groups_per_step": 4, "group_size": 4, "eval_interval": 1}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return write(folder, job="job.yaml", num_trials=3, grace_steps=2)


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_compares_on_heldout_rows(tmp_path):
    spec, out = small(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "serve_app.cli", "sweep", str(spec), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while not any(trial.validations for trial in read_trials(out / "trials")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = {t.name: t.validations for t in read_trials(out / "trials")}
    done = subprocess.run(
        [*command, "--json"], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((out / "sweep.json").read_text())
    assert len(result["trials"]) == 3
    for trial in result["trials"]:
        seen = [tuple(point) for point in trial["validations"]]
        assert [step for step, _ in seen] == list(range(1, len(seen) + 1)), "each step once"
        assert tuple(seen[: len(kept.get(trial["name"], ()))]) == kept.get(trial["name"], ())
    assert sum(trial["default"] for trial in result["trials"]) == 1
    default = next(trial for trial in result["trials"] if trial["default"])
    assert default["finished"] and len(default["validations"]) == 4
    policies = result["heldout"]["policies"]
    assert {p["num_problems"] for p in policies.values()} == {8}
    assert result["verdict"]
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    refused = subprocess.run(
        [*command[:-1], str(out)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert refused.returncode == 0, "the same sweep is done"


def test_the_table_and_the_picture_show_every_trial(tmp_path):
    trial = {"parameters": {"x": 0.5}, "last_step": 2, "finished": True}
    result = {
        "best": "b",
        "verdict": "so",
        "trials": [
            trial | {"name": "a", "default": True, "best_valid_reward": 0.1, "validations": []},
            trial
            | {"name": "b", "default": False, "best_valid_reward": 0.9, "validations": [[2, 0.9]]},
        ],
    }
    shown = table(result)
    assert shown.row_count == 2
    assert list(shown.columns[0].cells) == ["b", "a"]
    draw(result, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
