"""Whole sweeps: Ray Tune, killed and resumed, with the fake job and with real ones."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import JOB, MODEL
from sweep_world import DEADLINE_S, ENVIRONMENT, FAKE, alive, starts, wait_until, write

from train.sweep.trials import read_trials

# The whole, with Ray Tune and the fake job


def sweep_file(folder: Path, rates: list[float], **fields: object) -> Path:
    """A sweep of the fake job over these learning rates; the default's is 0.2."""
    return write(
        folder,
        set=["srl.learning_rate=0.2", "srl.max_steps=4", "rlvr=null"],
        parameters={"srl.learning_rate": {"choice": rates}},
        num_trials=len(rates) + 1,
        grace_steps=1,
        **fields,
    )


RUN = (
    "import sys; from pathlib import Path; from train.sweep.run import run_sweep\n"
    "from train.sweep.spec import load_sweep\n"
    f"run_sweep(load_sweep(Path(sys.argv[1])), Path(sys.argv[2]), resume=True, command={FAKE!r})"
)


def run_fake(
    spec: Path, out: Path, step_s: float = 0.05, highest_rate: float = 0.9
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(spec), str(out)],
        env=ENVIRONMENT | {"FAKE_STEP_S": str(step_s), "FAKE_HIGHEST_RATE": str(highest_rate)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_sweep_killed_half_way_goes_on_and_no_step_is_taken_twice(tmp_path):
    spec = sweep_file(tmp_path, [0.1, 0.5, 0.7, 0.95, 0.3])
    out = tmp_path / "out"
    first = run_fake(spec, out, step_s=1.0)
    wait_until(lambda: sum(bool(t.validations) for t in read_trials(out / "trials")) == 3)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    pids = [pid for t in read_trials(out / "trials") for pid, _ in starts(t.folder)]
    wait_until(lambda: not any(alive(pid) for pid in pids))
    before = {t.number: t.validations for t in read_trials(out / "trials")}

    second = run_fake(spec, out, step_s=0.5)
    printed, _ = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 0, printed
    result = json.loads((out / "sweep.json").read_text())
    found = {t["setting"]["srl.learning_rate"]: t for t in result["trials"]}
    assert found[0.2]["trial"] == 0
    assert found[0.95]["ended"] == "failed" and "not finite" in found[0.95]["error"]
    assert found[0.7]["trial"] == result["best"] and found[0.7]["steps"] == 4
    assert found[0.1]["ended"] == "stopped" and found[0.1]["steps"] < 4
    for after in read_trials(out / "trials"):
        assert after.validations[: len(before[after.number])] == before[after.number]
        steps = [v.steps for v in after.validations]
        assert steps == list(range(1, len(steps) + 1))
    # 70 rows against 20, of 100: all that the default solves, the best solves too.
    assert (result["heldout"]["gained"], result["heldout"]["lost"]) == (50, 0)
    assert result["verdict"].startswith("The best setting is better than the default: 0.700")


def test_a_trial_that_failed_is_run_again_alone_after_the_sweeps_end_and_compared_anew(tmp_path):
    spec, out = sweep_file(tmp_path, [0.7, 0.95]), tmp_path / "out"
    printed, _ = run_fake(spec, out).communicate(timeout=DEADLINE_S)
    result = json.loads((out / "sweep.json").read_text())
    found = {t["setting"]["srl.learning_rate"]: t for t in result["trials"]}
    assert (found[0.95]["ended"], result["best"]) == ("failed", found[0.7]["trial"]), printed

    # The cause of the failure is gone.
    runs = {t.number: len(starts(t.folder)) for t in read_trials(out / "trials")}
    third = run_fake(spec, out, highest_rate=1.0)
    printed, _ = third.communicate(timeout=DEADLINE_S)
    assert third.returncode == 0, printed
    result = json.loads((out / "sweep.json").read_text())
    again = {t["setting"]["srl.learning_rate"]: t for t in result["trials"]}
    assert (again[0.95]["ended"], again[0.95]["error"]) == ("finished", None)
    assert result["best"] == again[0.95]["trial"]
    assert result["verdict"].startswith("The best setting is better than the default: 0.950")
    ran_again = {
        t.number for t in read_trials(out / "trials") if len(starts(t.folder)) > runs[t.number]
    }
    assert ran_again == {again[0.95]["trial"]}


def test_a_sweep_that_finds_nothing_better_says_so_and_a_folder_holds_one_sweep(tmp_path):
    spec = sweep_file(tmp_path, [0.1, 0.05], max_concurrent=2)
    out = tmp_path / "out"
    done = run_fake(spec, out)
    printed, _ = done.communicate(timeout=DEADLINE_S)
    assert done.returncode == 0, printed
    result = json.loads((out / "sweep.json").read_text())
    assert (result["best"], result["heldout"]) == (0, None)
    assert result["verdict"].startswith("None is better")
    other = run_fake(sweep_file(tmp_path, [0.1, 0.06], max_concurrent=2), out)
    printed, _ = other.communicate(timeout=DEADLINE_S)
    differing = "sweep.parameters.srl.learning_rate.choice, sweep.settings."
    assert f"holds another sweep, which differs in {differing}" in printed


# The whole, with real jobs


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_of_real_jobs_is_killed_goes_on_and_compares_on_heldout_rows(tmp_path):
    for name, count in (("train", 40), ("valid", 8), ("heldout", 8)):
        lines = (JOB.parent / f"{name}.jsonl").read_text().splitlines(keepends=True)[:count]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    job = yaml.safe_load(JOB.read_text())
    job["data"] = {name: f"{name}.jsonl" for name in ("train", "valid", "heldout")}
    job |= {"model": str(MODEL), "evaluation": {"pass_k": 1}}
    del job["rlvr"]
    job["srl"] |= {"max_steps": 3, "groups_per_step": 4, "group_size": 4, "eval_interval": 1}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    spec, out = write(tmp_path, job="job.yaml", num_trials=3, grace_steps=1), tmp_path / "out"
    command = [sys.executable, "-m", "serve_app.cli", "sweep", str(spec), "--out", str(out)]
    first = subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True)
    wait_until(lambda: sum(bool(t.validations) for t in read_trials(out / "trials")) == 2, 900)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = {t.number: t.validations for t in read_trials(out / "trials")}
    done = subprocess.run(
        [*command, "--resume", "--json"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["trials"]) == 3 and result["verdict"]
    for found in result["trials"]:
        seen = [tuple(point) for point in found["validations"]]
        assert [step for step, _ in seen] == list(range(1, len(seen) + 1)), "each step once"
        assert tuple(seen[: len(kept[found["trial"]])]) == kept[found["trial"]]
    if result["best"] != 0:
        assert result["heldout"]["num_problems"] == 8
    assert {path.name for path in out.iterdir()} >= {"sweep.svg", "trials.csv", "sweep.json"}
    again = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 2 and "add --resume" in again.stderr
