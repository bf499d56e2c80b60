"""Sweeps: what is refused, drawn, read and concluded."""

import csv
import json
import random
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import JOB, MODEL
from sweep_world import (
    log,
    write,
)
from typer.testing import CliRunner

from serve_app.cli import app
from train.spec import SpecError
from train.statistics import bonett_price_interval
from train.sweep.compare import compare, verdict
from train.sweep.job import JobFailedError
from train.sweep.mix import MixSpec, counts, draw
from train.sweep.run import SweepError, choose, claim
from train.sweep.show import draw as draw_picture
from train.sweep.show import table, write_csv
from train.sweep.spec import load_sweep
from train.sweep.trials import Trial, Validation, validations, write_trials

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
        (
            {"parameters": {"srl.max_steps": {"randint": [0, 3]}}},
            "with srl.max_steps set: srl.max_",
        ),
        ({"parameters": {"sft.num_epochs": {"choice": [1]}}}, "has no such field"),
        ({"parameters": {"mix.easy": {"uniform": [0, 1]}}}, "no source 'easy'"),
        ({"parameters": {}}, "parameters"),
        ({"num_trials": 1}, "num_trials"),
        ({"parameters": {"srl.max_steps": {"choice": [3, 4]}}}, "have 3 different"),
        ({"job": "nowhere.yaml"}, "cannot be read"),
        ({"set": ["data.heldout=null"]}, "data.heldout is missing"),
        ({"trials": 3}, "trials: unknown field; did you mean 'num_trials'"),
        (
            {"parameters": {"srl.max_steps": {"chioce": [3]}}},
            "srl.max_steps.chioce: unknown field; did you mean 'choice'",
        ),
        ({"parameters": {"srl.max_steps": {"of": [3]}}}, "of: unknown field; known fields: choice"),
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


# Whose folder it is


@pytest.fixture
def mixed(tmp_path) -> Path:
    """A sweep with a job and rows of its own; a trial's rows are drawn from two files."""
    folder = tmp_path / "given"
    folder.mkdir()
    job = yaml.safe_load(JOB.read_text()) | {"model": str(MODEL)}
    for name in ("train", "valid", "heldout"):
        (folder / f"{name}.jsonl").write_text((JOB.parent / f"{name}.jsonl").read_text())
    for name in ("long", "short"):
        lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
        shown = "".join(line for line in lines if "expert_steps" in line)
        (folder / f"{name}.jsonl").write_text(shown)
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    sources = {name: {"path": f"{name}.jsonl"} for name in ("long", "short")}
    return write(folder, job="job.yaml", num_trials=2, mix={"num_rows": 8, "sources": sources})


def set_in_job(file: Path, section: str, **fields: object) -> None:
    """Change the job of a sweep's file."""
    path = file.parent / "job.yaml"
    job = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(job | {section: job.get(section, {}) | fields}))


def claimed(file: Path, out: Path, *, resume: bool = True) -> dict:
    """The job of trial 1, once the folder is claimed and the trials are written."""
    spec = load_sweep(file)
    out.mkdir(exist_ok=True)
    claim(spec, out, resume)
    write_trials(spec, out / "trials")
    return json.loads((out / "trials/001/job.json").read_text())


def test_a_folder_is_of_one_sweep_known_by_what_its_files_hold(mixed, tmp_path):
    out = tmp_path / "out"
    before = claimed(mixed, out, resume=False)
    assert claimed(mixed, out) == before
    with pytest.raises(SweepError, match="holds a sweep: add --resume"):
        claimed(mixed, out, resume=False)

    (mixed.parent / "train.jsonl").unlink()  # the job's own, in whose place the mix stands
    assert claimed(mixed, out) == before
    for name, differing in (("long", "mix_sha256.long"), ("valid", "job.sha256.data.valid")):
        path = mixed.parent / f"{name}.jsonl"
        text = path.read_text()
        path.write_text(text + text.splitlines()[0] + "\n")
        with pytest.raises(SweepError, match=f"which differs in {differing}: "):
            claimed(mixed, out)
        path.write_text(text)
    set_in_job(mixed, "srl", max_steps=2)
    with pytest.raises(SweepError, match=r"which differs in job\.spec\.srl\.max_steps: "):
        claimed(mixed, out)


def test_a_sweep_goes_on_with_files_elsewhere_and_with_what_says_how_a_job_is_run(mixed, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    before = claimed(mixed, out, resume=False)
    rows = (out / "trials/001/train.jsonl").read_bytes()
    mixed.parent.rename(elsewhere)
    moved = elsewhere / mixed.name
    set_in_job(moved, "rollout", start_deadline_s=1234.0)
    after = claimed(moved, out)
    assert (before["rollout"]["start_deadline_s"], after["rollout"]["start_deadline_s"]) == (
        600,
        1234,
    )
    assert after["data"]["valid"] == str(elsewhere / "valid.jsonl")
    assert (out / "trials/001/train.jsonl").read_bytes() == rows


def test_a_setting_that_would_get_another_number_is_another_sweep(mixed, tmp_path):
    parameters = {"srl.learning_rate": {"choice": [3e-5, 1e-4, 3e-4]}}
    parameters["learner.max_failures"] = {"choice": [0, 1]}
    raw = yaml.safe_load(mixed.read_text()) | {"parameters": parameters, "num_trials": 4}
    mixed.write_text(yaml.safe_dump(raw))
    set_in_job(mixed, "learner", max_failures=0)
    claimed(mixed, tmp_path / "out", resume=False)
    set_in_job(mixed, "learner", max_failures=1)
    with pytest.raises(SweepError, match=r"differs in sweep\.settings\.0\.learner\.max_failures"):
        claimed(mixed, tmp_path / "out")


def test_a_folder_of_another_version_is_said_to_be_one(mixed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "spec.json").write_text('{"job": "job.yaml", "num_trials": 2}')
    with pytest.raises(SweepError, match="a sweep of another version"):
        claimed(mixed, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("short", None, r"^mix\.sources\.short: .*short\.jsonl cannot be read: No such file"),
        ("short", b"\xff\xfe", r"^mix\.sources\.short: .* cannot be read: 'utf-8' codec"),
        ("short", b"", r"^mix\.sources\.short: .* has no row; remove the source"),
        ("valid", None, r"data\.valid: .*valid\.jsonl is no file"),
    ],
)
def test_a_file_that_is_missing_or_empty_is_named_before_anything_is_claimed(
    mixed, name, text, complaint
):
    path = mixed.parent / f"{name}.jsonl"
    path.unlink() if text is None else path.write_bytes(text)
    with pytest.raises(SpecError, match=complaint):
        load_sweep(mixed)


def test_the_command_checks_the_mixed_rows_and_asks_for_none_of_the_jobs_own(mixed, tmp_path):
    """It comes as far as the claim, which an older folder refuses."""
    (mixed.parent / "train.jsonl").unlink()
    out = tmp_path / "out"
    out.mkdir()
    (out / "spec.json").write_text("{}")
    command = ["sweep", str(mixed), "--out", str(out), "--resume"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "of another version" in done.output
    lines = (mixed.parent / "short.jsonl").read_text().splitlines()
    (mixed.parent / "short.jsonl").write_text("not json\n" * len(lines))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "the mixed rows" in done.output and "JSON" in done.output


# What the folders say


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
