"""Sweeps: what is refused, drawn, read and concluded; the job process; Tune, killed and resumed."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import yaml
from conftest import JOB, MODEL, ROOT

from train.spec import SpecError
from train.statistics import bonett_price_interval
from train.sweep.compare import compare, verdict
from train.sweep.job import JobFailedError, TrialJob, take_slot
from train.sweep.mix import MixSpec, counts, draw
from train.sweep.progress import TrialLines
from train.sweep.run import choose, conclude
from train.sweep.show import draw as draw_picture
from train.sweep.show import table, write_csv
from train.sweep.spec import load_sweep
from train.sweep.trainable import FolderASHA, Place, SweepTrial
from train.sweep.trials import Trial, Validation, read_trial, read_trials, validations, write_trials

FAKE = (sys.executable, str(Path(__file__).with_name("fake_job.py")))
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
DEADLINE_S = 300


def write(folder: Path, **fields: object) -> Path:
    raw = {"job": str(JOB), "parameters": {"srl.learning_rate": {"loguniform": [1e-5, 1e-3]}}}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(raw | fields))
    return path


def wait_until(holds, deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# What a sweep is


def test_the_jobs_own_setting_is_the_first_and_the_seed_fixes_the_others(tmp_path):
    spec = load_sweep(write(tmp_path, set=["rlvr.max_steps=3"], num_trials=20))
    settings = spec.settings()
    assert settings[0] == {"srl.learning_rate": 1e-4}
    assert settings == spec.settings()
    assert len({s["srl.learning_rate"] for s in settings}) == 20
    assert all(1e-5 <= s["srl.learning_rate"] <= 1e-3 for s in settings)
    assert settings[1:] != spec.model_copy(update={"seed": 1}).settings()[1:]
    job = spec.job_of(settings[5])
    assert (job.srl.learning_rate, job.rlvr.max_steps) == (settings[5]["srl.learning_rate"], 3)


def test_a_log_uniform_domain_is_uniform_in_the_logarithm(tmp_path):
    domain = load_sweep(write(tmp_path)).parameters["srl.learning_rate"]
    rng = random.Random(0)
    below = sum(domain.draw(rng) < 1e-4 for _ in range(2000))
    assert 900 < below < 1100  # 1e-4 is half-way between 1e-5 and 1e-3


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"parameters": {"srl.rate": {"choice": [1]}}}, "srl.rate"),
        ({"parameters": {"srl.learning_rate": {"choice": [1], "uniform": [0, 1]}}}, "exactly one"),
        ({"parameters": {"srl.learning_rate": {"uniform": [2, 1]}}}, "the lower end comes first"),
        ({"parameters": {"srl.learning_rate": {"loguniform": [0, 1]}}}, "begin above 0"),
        ({"parameters": {"srl.max_steps": {"randint": [0, 3]}}}, "srl.max_steps"),
        ({"parameters": {"sft.num_epochs": {"choice": [1]}}}, "has no such field"),
        ({"parameters": {"mix.easy": {"uniform": [0, 1]}}}, "no source 'easy'"),
        ({"parameters": {}}, "parameters"),
        ({"num_trials": 1}, "num_trials"),
        ({"parameters": {"srl.max_steps": {"choice": [3, 4]}}}, "have 3 different"),
        ({"job": "nowhere.yaml"}, "cannot be read"),
        ({"set": ["data.heldout=null"]}, "data.heldout is missing"),
        ({"trials": 3}, "trials"),
        ({"parameters": {"grader.pattern": {"choice": ["(a)", "(b)"]}}}, "must be the same"),
        ({"parameters": {"data.valid": {"choice": ["a", "b"]}}}, "must be the same"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said_before_it_starts(tmp_path, fields, complaint):
    with pytest.raises(SpecError, match=complaint):
        load_sweep(write(tmp_path, **fields))


def test_a_mix_gives_each_source_its_share_and_repeats_a_short_one(tmp_path):
    assert counts({"a": 2.0, "b": 1.0}, 8) == {"a": 5, "b": 3}  # 5.33 and 2.67
    assert counts({"a": 0.0, "b": 3.0}, 5) == {"a": 0, "b": 5}
    with pytest.raises(SpecError, match="add up to 0"):
        counts({"a": 0.0, "b": 0.0}, 5)
    (tmp_path / "a.jsonl").write_text("".join(f"a{i}\n" for i in range(20)))
    (tmp_path / "b.jsonl").write_text("b0\nb1\n\n")
    raw = {"num_rows": 8, "sources": {"a": {"path": "a.jsonl"}, "b": {"path": "b.jsonl"}}}
    mix = MixSpec.model_validate(raw).below(tmp_path)
    rows = draw(mix, {"a": 2.0, "b": 1.0}, seed=1).splitlines()
    assert draw(mix, {"a": 2.0, "b": 1.0}, seed=1).splitlines() == rows
    found = Counter(rows)
    assert len([row for row in found if row.startswith("a")]) == 5
    assert sorted(found[row] for row in ("b0", "b1")) == [1, 2]


def test_a_trials_folder_holds_a_whole_job_with_its_own_mix(tmp_path):
    lines = (JOB.parent / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_text("".join(lines[:10]))
    (tmp_path / "b.jsonl").write_text("".join(lines[10:20]))
    sources = {"a": {"path": "a.jsonl"}, "b": {"path": "b.jsonl", "share": 3}}
    mix = {"num_rows": 8, "sources": sources}
    path = write(tmp_path, mix=mix, num_trials=2, parameters={"mix.a": {"choice": [9]}})
    spec = load_sweep(path)
    assert spec.settings() == [{"mix.a": 1.0}, {"mix.a": 9}]
    write_trials(spec, tmp_path / "trials")
    for number, from_a in ((0, 2), (1, 6)):  # 1 of 4, and 9 of 12, eighths
        job = json.loads((tmp_path / f"trials/00{number}/job.json").read_text())
        rows = Path(job["data"]["train"]).read_text().splitlines(keepends=True)
        assert (len(rows), sum(row in lines[:10] for row in rows)) == (8, from_a)


# What the folders say


def log(folder: Path, *points: tuple[str, int, float | None]) -> None:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    lines = [
        {"type": "metrics", "stage": stage, "step": step, "full_valid_mean_reward": reward}
        for stage, step, reward in points
    ]
    text = "".join(json.dumps(line) + "\n" for line in [{"type": "message"}, *lines])
    (folder / "out" / "events.jsonl").write_text(text)


def test_steps_count_over_the_stages(tmp_path):
    log(tmp_path, ("srl", 1, None), ("srl", 2, 0.1), ("rlvr", 1, None), ("rlvr", 2, 0.7))
    assert validations(tmp_path / "out") == [(2, 0.1), (4, 0.7)]


def trial(number: int, *rewards: float) -> Trial:
    found = tuple(Validation(step, reward) for step, reward in enumerate(rewards, start=1))
    return Trial(number, {}, Path(), found, finished=True)


def test_the_best_trial_is_chosen_by_its_best_validation_and_ties_are_the_defaults():
    assert choose([trial(0, 0.1, 0.5), trial(1, 0.6, 0.2), trial(2)]).number == 1
    assert choose([trial(0, 0.1, 0.6), trial(1, 0.6)]).number == 0
    assert choose([trial(0, 0.1), trial(1, 0.1, 0.6), trial(2, 0.6)]).number == 2
    with pytest.raises(JobFailedError, match="no trial"):
        choose([trial(0)])


# What is concluded


def test_the_paired_interval_is_bonett_and_prices():
    # By hand, 8 gained and 2 lost of 98: p = 9/100, q = 3/100, difference 0.06,
    # variance (0.12 - 0.0036) / 100 = 0.001164, half-width 1.959964 * 0.034117 = 0.066869.
    low, high = bonett_price_interval(8, 2, 98)
    assert (low, high) == pytest.approx((-0.006869, 0.126869), abs=1e-6)


def test_the_comparison_counts_pairs_and_the_verdict_says_what_the_interval_allows():
    best = {"a": True, "b": True, "c": False, "d": True, "only here": True}
    default = {"a": True, "b": False, "c": True, "d": False, "only there": True}
    found = compare(best, default)
    assert (found["num_problems"], found["gained"], found["lost"]) == (4, 2, 1)
    assert (found["best"], found["default"], found["difference"]) == (0.75, 0.5, 0.25)
    assert found["p_value"] == pytest.approx(1.0)  # 2 * (1 + 3) / 8
    assert verdict(found).startswith("None is surely better")
    many = {str(i): True for i in range(50)}
    few = {str(i): i < 25 for i in range(50)}
    assert verdict(compare(many, few)).startswith("The best setting is better than the default: 1.")
    assert "is worse than the default" in verdict(compare(few, many))
    assert verdict(None).startswith("None is better")
    with pytest.raises(SpecError, match="no held-out problem"):
        compare({"a": True}, {"b": True})


def test_the_table_and_the_picture_show_every_trial(tmp_path):
    one = {"setting": {"x": 0.51234}, "steps": 2, "ended": "finished", "error": None}
    bad = {"setting": {"x": 9.0}, "steps": 0, "ended": "failed", "error": "no"}
    result = {
        "best": 1,
        "verdict": "so",
        "trials": [
            one | {"trial": 0, "best_valid_reward": 0.1, "validations": [[1, 0.0], [2, 0.1]]},
            one | {"trial": 1, "best_valid_reward": 0.9, "validations": [[2, 0.9]]},
            bad | {"trial": 2, "best_valid_reward": None, "validations": []},
        ],
    }
    assert list(table(result).columns[0].cells) == ["1", "0", "2"]
    write_csv(result, tmp_path / "x.csv")
    rows = list(csv.reader((tmp_path / "x.csv").open()))
    assert rows == [
        ["trial", "x", "validation", "steps", "end"],
        ["1", "0.512", "0.900", "2", "finished, best"],
        ["0", "0.512", "0.100", "2", "finished, default"],
        ["2", "9", "", "0", "failed"],
    ]
    draw_picture(result, tmp_path / "x.svg")
    svg = ET.parse(tmp_path / "x.svg").getroot()  # noqa: S314 - written just now
    lines = [e.get("points") for e in svg.iter("{http://www.w3.org/2000/svg}polyline")]
    # x: 60 + 520 * step / 2; y: 20 + 350 * (0.9 - reward) / 0.9.
    assert lines == ["580.0,20.0", "320.0,370.0 580.0,331.1", ""]


# The job process


def fake_trial(folder: Path, rate: float, max_steps: int = 3) -> Path:
    folder.mkdir(parents=True)
    job = {"srl": {"learning_rate": rate, "max_steps": max_steps}}
    (folder / "job.json").write_text(json.dumps(job))
    (folder / "setting.json").write_text("{}")
    return folder


def fake_job(folder: Path, *, slots: int = 1, step_s: float = 0.05) -> TrialJob:
    environment = ENVIRONMENT | {"FAKE_STEP_S": str(step_s)}
    return TrialJob(folder, folder.parent / "slots", slots, environment, FAKE)


def starts(folder: Path) -> list[tuple[int, int]]:
    """(process id, steps found) of each start of the fake job."""
    file = folder / "out" / "starts"
    if not file.exists():
        return []
    return [tuple(map(int, line.split())) for line in file.read_text().splitlines()]


def test_validations_are_told_one_by_one_until_the_report(tmp_path):
    job = fake_job(fake_trial(tmp_path / "000", 0.5))
    assert [job.next_validation() for _ in range(4)] == [(1, 0.5), (2, 1.0), (3, 1.5), None]
    ((pid, _),) = starts(tmp_path / "000")
    assert not alive(pid)


def test_a_stopped_job_commits_and_another_goes_on_from_its_folder(tmp_path):
    folder = fake_trial(tmp_path / "000", 0.5)
    first = fake_job(folder, step_s=0.5)
    assert first.next_validation() == (1, 0.5)
    first.stop()
    ((pid, _),) = starts(folder)
    assert (folder / "out" / "stopped").read_text() == str(pid)
    fake_job(folder).run()
    assert [found for _, found in starts(folder)] == [0, 1]
    assert read_trial(folder).validations == ((1, 0.5), (2, 1.0), (3, 1.5))


def test_a_job_that_does_not_heed_is_killed(tmp_path):
    folder = fake_trial(tmp_path / "000", 0.5, max_steps=1000)
    (folder / "stubborn").touch()
    job = fake_job(folder)
    job.next_validation()
    job.stop(grace_s=0.5)
    ((pid, _),) = starts(folder)
    assert not alive(pid)
    assert not (folder / "out" / "stopped").exists()


def test_a_job_that_fails_says_its_last_words(tmp_path):
    job = fake_job(fake_trial(tmp_path / "000", 0.95))
    with pytest.raises(JobFailedError, match=r"status 1: .*the loss is not finite"):
        job.next_validation()


def test_a_job_waits_for_a_slot_and_the_job_itself_holds_it(tmp_path):
    job = fake_job(fake_trial(tmp_path / "000", 0.5, max_steps=1000))
    job.next_validation()
    assert take_slot(tmp_path / "slots", 1) is None
    free = take_slot(tmp_path / "slots", 2)
    assert free is not None
    os.close(free)
    job.stop()
    again = take_slot(tmp_path / "slots", 1)
    assert again is not None
    os.close(again)


def test_a_job_ends_with_the_process_that_follows_it(tmp_path):
    folder = fake_trial(tmp_path / "000", 0.5, max_steps=1000)
    code = (
        "import sys; from pathlib import Path; from train.sweep.job import TrialJob; import os\n"
        f"job = TrialJob(Path({str(folder)!r}), Path({str(tmp_path / 'slots')!r}), 1, os.environ, "
        f"{FAKE!r})\nwhile True: job.next_validation()"
    )
    follower = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT)
    wait_until(lambda: read_trial(folder).validations)
    follower.kill()
    follower.wait()
    ((pid, _),) = starts(folder)
    wait_until(lambda: not alive(pid))
    assert (folder / "out" / "stopped").exists()


# What Tune is given


class Ended(NamedTuple):
    """A trial of Tune's."""

    trial_id: str
    config: dict
    ended: bool

    def is_finished(self) -> bool:
        """As Tune's."""
        return self.ended


class Controller(NamedTuple):
    """Knows all trials."""

    trials: tuple

    def get_trials(self) -> list:
        """As Tune's."""
        return list(self.trials)


def test_the_best_is_chosen_again_when_the_default_has_been_trained_to_its_end(tmp_path):
    """ASHA had stopped the default at 0.2 and another at 0.5; at its end the default has 0.9."""
    for number, reward in ((0, 0.2), (1, 0.5), (2, 1.0)):
        log(tmp_path / f"00{number}", ("srl", 1, reward))
        (tmp_path / f"00{number}" / "setting.json").write_text("{}")
    ran = []

    class Job(NamedTuple):
        number: int

        def run(self) -> None:
            ran.append(self.number)
            folder = tmp_path / f"00{self.number}"
            last = 0.9 if self.number == 0 else 0.6
            log(folder, ("srl", 1, 0.1), ("srl", 2, last))
            (folder / "out" / "report.json").write_text('{"rows": []}')

    place = SimpleNamespace(root=tmp_path, job=Job)
    result = conclude(place, {2: "its loss is not a number"}, lambda line: None)
    assert ran == [1, 0]
    assert (result["best"], result["heldout"]) == (0, None)
    assert result["verdict"].startswith("None is better")
    assert [len(trial["validations"]) for trial in result["trials"]] == [2, 2, 1]


def test_a_line_is_said_for_every_validation_and_none_for_what_is_none(tmp_path):
    said: list[str] = []
    lines, trial = TrialLines(tmp_path, said.append), Ended("t3", {"trial": 3}, False)
    lines.on_trial_result(1, [], trial, {"steps": 4, "valid_reward": 0.25})
    lines.on_trial_result(2, [], trial, {"steps": 4, "valid_reward": 0.25, "done": True})
    lines.on_trial_result(3, [], trial, {"done": True})
    lines.on_trial_result(4, [], trial, {})
    assert said == ["trial 3: step 4, validation 0.250"]


def test_rungs_hold_what_trials_saw_that_ended_before_a_kill(tmp_path):
    for number, rewards in ((0, (0.2, 0.4)), (1, (0.3, 0.6))):
        log(tmp_path / f"00{number}", *(("srl", i + 1, r) for i, r in enumerate(rewards)))
        (tmp_path / f"00{number}" / "setting.json").write_text("{}")
    old = [Ended(f"t{n}", {"trial": n}, True) for n in (0, 1)]
    new = Ended("t2", {"trial": 2}, False)
    scheduler = FolderASHA(tmp_path, grace_steps=1, reduction_factor=2)
    scheduler.set_search_properties("valid_reward", "max")
    controller = Controller((new, *old))
    for trial in controller.trials:  # Tune adds them one by one, the one that ran first
        scheduler.on_trial_add(controller, trial)
    # The median of 0.2 and 0.3 is 0.25: 0.26 goes on. At step 2 it is 0.5 of 0.4 and 0.6.
    say = [{"steps": 1, "valid_reward": 0.26}, {"steps": 2, "valid_reward": 0.49}]
    assert [scheduler.on_trial_result(controller, new, s) for s in say] == ["CONTINUE", "STOP"]


def test_a_trial_tells_validations_then_that_it_is_done_and_leaves_no_job(tmp_path):
    fake_trial(tmp_path / "000", 0.5, max_steps=2)
    place = Place(tmp_path, tmp_path / "slots", 1, ENVIRONMENT, FAKE)
    trainable = SweepTrial.__new__(SweepTrial)  # without Tune's own set-up, which asks Ray
    trainable.setup({"trial": 0}, place)
    found = [trainable.step() for _ in range(3)]
    assert found == [
        {"steps": 1, "valid_reward": 0.5},
        {"steps": 2, "valid_reward": 1.0},
        {"steps": 2, "valid_reward": 1.0, "done": True},
    ]
    fake_trial(tmp_path / "001", 0.5, max_steps=1000)
    trainable.setup({"trial": 1}, place)
    trainable.step()
    trainable.cleanup()
    ((pid, _),) = starts(tmp_path / "001")
    assert not alive(pid)


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

    # The cause of the failure is gone: the failed trial alone is run again, and compared anew.
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
    job = yaml.safe_load(JOB.read_text())
    job["data"] = {name: str(JOB.parent / file) for name, file in job["data"].items()}
    job["model"], file = str(MODEL), tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    rows = [tmp_path / name for name in ("long.jsonl", "short.jsonl")]
    for path in rows:
        path.write_text((JOB.parent / "train.jsonl").read_text())
    mix = {"num_rows": 48, "sources": {path.stem: {"path": str(path)} for path in rows}}
    fields = {"max_concurrent": 2, "job": str(file), "mix": mix}
    spec = sweep_file(tmp_path, [0.1, 0.05], **fields)
    out = tmp_path / "out"
    done = run_fake(spec, out)
    printed, _ = done.communicate(timeout=DEADLINE_S)
    assert done.returncode == 0, printed
    result = json.loads((out / "sweep.json").read_text())
    assert (result["best"], result["heldout"]) == (0, None)
    assert result["verdict"].startswith("None is better")
    rows[0].write_text(rows[0].read_text() + rows[0].read_text().splitlines()[0] + "\n")
    file.write_text(yaml.safe_dump(job | {"seed": 9}))
    other = run_fake(sweep_file(tmp_path, [0.1, 0.06], **fields), out)
    printed, _ = other.communicate(timeout=DEADLINE_S)
    differing = "job.spec.seed, mix_sha256.long, sweep.parameters.srl.learning_rate.choice"
    assert f"holds another sweep, which differs in {differing}:" in printed


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
