"""Whole jobs with the real parts: Ray Train, vLLM actors, verifier actors, kill -9."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import JOB, ROOT, SCRATCH, processes_of
from job_world import DEADLINE_S, freeze_worker, run, small_job, start, train_steps
from transformers import AutoModelForCausalLM, AutoTokenizer

from rollout.verifiers.answer import AnswerVerifier
from train import checkpoint
from train.data import read_rows
from train.events import read_events
from train.plan import sft_steps
from train.spec_file import load_spec
from train.statistics import wilson_interval

SRL_ALONE = ("rlvr=null", "data.heldout=null")
TWO_ENGINES = ("rollout.num_engines=2", "rollout.cpus_per_engine=0.3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished small job: (folder, report, what it printed)."""
    tmp = tmp_path_factory.mktemp("job")
    done = run(small_job(tmp / "out", tmp))
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp / "out", json.loads((tmp / "out" / "report.json").read_text()), done.stdout


def test_a_job_reports_base_srl_and_rlvr_on_heldout_rows(finished):
    _, report, printed = finished
    assert [row["name"] for row in report["rows"]] == ["base", "srl", "srl_rlvr"]
    for row in report["rows"]:
        low, high = row["ci95"]
        assert row["num_problems"] == 60
        assert low <= row["greedy"] <= high
        assert row["pass_at_2"] is not None
    assert "stage srl" in printed
    assert "held-out srl_rlvr" in printed


def test_the_engines_own_counters_equal_completions_scored_plus_dropped(finished):
    _, report, _ = finished
    completions = report["completions"]
    assert sum(completions["engine_requests"]) == completions["scored"] + completions["dropped"]
    assert completions["scored"] > 500
    assert len(completions["verifiers"]) == 2
    assert all(v["scored"] > 0 for v in completions["verifiers"])


def test_every_step_is_in_the_event_log_once_with_its_logprob_difference(finished):
    out, _, _ = finished
    assert train_steps(out, "srl") == [1, 2, 3, 4, 5, 6]
    events = read_events(out / "events.jsonl")
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    learnt = [e for e in events if e["type"] == "metrics" and "grad_norm" in e]
    assert learnt
    assert all(e["sampler_learner_logprob_diff_max"] < 1e-4 for e in learnt)


def test_checkpoints_are_told_with_their_place_and_the_best_are_kept(finished):
    out, report, _ = finished
    events = [e for e in read_events(out / "events.jsonl") if e["type"] == "checkpoint"]
    assert [(e["stage"], e["step"]) for e in events] == [
        *(("srl", step) for step in range(1, 7)),
        ("rlvr", 2),
    ]
    assert events[5]["path"] == "srl/checkpoints/step-000006"
    assert events[5]["kept"] == checkpoint.steps(out / "srl/checkpoints") == [3, 6]
    rewards = {e["step"]: e["metrics"]["full_valid_mean_reward"] for e in events[:6]}
    assert [step for step, reward in rewards.items() if reward is not None] == [3, 6]
    assert all(e["metrics"]["train_mean_reward"] > -1 for e in events)
    assert report["best"] == {
        "stage": "rlvr",
        "step": 2,
        "valid_reward": events[6]["metrics"]["full_valid_mean_reward"],
    }


def test_every_event_has_a_uid_of_its_own_and_every_step_its_trained_tokens(finished):
    events = read_events(finished[0] / "events.jsonl")
    assert len({event["uid"] for event in events}) == len(events)
    steps = [event for event in events if event["type"] == "metrics"]
    assert all(0 <= event["trained_tokens"] <= event["num_tokens"] for event in steps)
    assert any(event["trained_tokens"] for event in steps)
    for event in steps:  # the learner reads the prompts too
        assert (event["learner_tokens"] > event["trained_tokens"]) == (event["trained_tokens"] > 0)
    evaluations = [event for event in events if event["type"] == "evaluation"]
    assert [event["step"] for event in evaluations] == [0, 1, 2]


def test_the_rollouts_of_every_step_can_be_read(finished):
    folder = finished[0] / "rollouts"
    names = [*(f"srl-{n:06d}.jsonl" for n in range(1, 7)), "rlvr-000001.jsonl", "rlvr-000002.jsonl"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    for name in names:
        records = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        assert 0 < len({record["problem_id"] for record in records}) <= 8
        for record in records:
            assert (record["expert_step"] is not None) == name.startswith("srl")
            assert record["turns"]


def test_srl_beats_the_base_on_heldout_rows(finished):
    _, report, _ = finished
    base, srl, _ = report["rows"]
    assert srl["ci95"][0] > base["ci95"][1]


def test_the_exported_folder_sampled_as_its_card_says_solves_what_the_report_says(finished):
    out, report, _ = finished
    folder = Path(report["export"])
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code is not None
    card: dict = {}
    exec(code[1], card)  # noqa: S102 (our own card; that it runs is what is tested)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = read_rows(JOB.parent / "heldout.jsonl")[:60]
    reported = (out / "heldout" / "srl_rlvr.jsonl").read_text().splitlines()
    grader = load_spec(JOB).grader
    assert isinstance(grader, AnswerVerifier)
    num_solved, num_equal = 0, 0
    for row, line in zip(rows, reported, strict=True):
        text = card["solve"](model, tokenizer, row.problem_text)
        solved = text is not None and grader.extract(text) == row.reference_answer
        num_solved += solved
        num_equal += solved == json.loads(line)["solved"]
    assert num_solved > 10, "a model that solves nothing proves nothing"
    assert num_equal >= 58, "near-ties may fall differently in another sampler, no more"
    low, high = wilson_interval(num_solved, len(rows))
    assert low <= report["rows"][-1]["greedy"] <= high
    assert not (folder / "optimizer.safetensors").exists()


def test_sft_then_srl_with_two_workers_two_engines_and_the_single_protocol(tmp_path):
    extra = (
        "sft={num_epochs: 1, learning_rate: 1.0e-3, with_thoughts: true}",
        "srl.max_steps=2",
        "srl.eval_interval=2",
        "rlvr=null",
        "learner.num_workers=2",
        "learner.cpus_per_worker=0.3",
        "rollout.num_engines=2",
        "rollout.cpus_per_engine=0.3",
        "sampling.protocol=single",
        "sampling.max_tokens=150",
    )
    out = tmp_path / "out"
    done = run(small_job(out, tmp_path, *extra))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["base", "sft", "sft_srl"]
    assert report["protocol"] == "single"
    assert len(report["completions"]["engine_requests"]) == 2
    assert all(report["completions"]["engine_requests"])
    spec = load_spec(JOB, list(extra))
    num_steps = sft_steps(spec, read_rows(spec.data.train))
    assert train_steps(out, "sft") == list(range(1, num_steps + 1))
    assert train_steps(out, "srl") == [1, 2]
    steps = [e for e in read_events(out / "events.jsonl") if "sampler_learner_kl" in e]
    assert all(e["sampler_learner_logprob_diff_max"] < 1e-4 for e in steps)


def last_srl_weights(out: Path) -> str:
    """sha256 of the weights after the last SRL step."""
    return checkpoint.sha256(out / "srl/checkpoints/step-000006/model.safetensors")


@pytest.fixture(scope="module")
def finished_with_two_engines(tmp_path_factory):
    """The folder of a finished SRL job with two engines."""
    tmp = tmp_path_factory.mktemp("two")
    done = run(small_job(tmp / "out", tmp, *SRL_ALONE, *TWO_ENGINES))
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp / "out"


def killed_three_times(command: list[str], out: Path) -> list[int]:
    """Kill the job in three phases; return the last whole checkpoint after each kill."""
    checkpoints, committed = out / "srl/checkpoints", []
    for phase, step in (("sampling", 1), ("training", 2), ("checkpoint", 3)):
        with start(command) as process:
            worker = freeze_worker(process, out, phase, step)
            process.send_signal(signal.SIGKILL)
            os.kill(worker, signal.SIGKILL)
        before = checkpoint.latest(checkpoints)
        assert before is not None
        assert before.step >= max(1, step - 1)
        committed.append(before.step)
        assert any(checkpoints.glob(".writing-*")) == (phase == "checkpoint")
    return committed


@pytest.mark.parametrize("engines", ["two", pytest.param("one", marks=pytest.mark.slow)])
def test_a_job_killed_in_three_phases_goes_on_each_time_and_ends_bitwise_as_undisturbed(
    engines, tmp_path, request
):
    if engines == "one":
        extra, undisturbed = SRL_ALONE, request.getfixturevalue("finished")[0]
    else:
        extra = (*SRL_ALONE, *TWO_ENGINES)
        undisturbed = request.getfixturevalue("finished_with_two_engines")
    out = tmp_path / "out"
    command = small_job(out, tmp_path, *extra)
    committed = killed_three_times(command, out)
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    resumed = [e["resumed_at"] for e in read_events(out / "events.jsonl") if "resumed_at" in e]
    assert resumed == [0, *committed]
    assert train_steps(out, "srl") == [1, 2, 3, 4, 5, 6]
    assert not list((out / "srl/checkpoints").glob(".writing-*"))
    assert last_srl_weights(out) == last_srl_weights(undisturbed)


def test_a_job_killed_in_rlvrs_second_step_exports_bitwise_what_an_undisturbed_one_does(
    tmp_path, finished
):
    out = tmp_path / "out"
    command = small_job(out, tmp_path)
    with start(command) as process:
        worker = freeze_worker(process, out, "training", step=1, stage="rlvr")
        process.send_signal(signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
    assert train_steps(out, "rlvr") == [1]
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert train_steps(out, "srl") == [1, 2, 3, 4, 5, 6]
    export = json.loads((out / "report.json").read_text())["export"]
    weights = [Path(folder) / "model.safetensors" for folder in (export, finished[1]["export"])]
    assert checkpoint.sha256(weights[0]) == checkpoint.sha256(weights[1])


def test_a_job_outlives_the_death_of_an_engine_and_of_a_learner(tmp_path, finished):
    out = tmp_path / "out"
    with start(small_job(out, tmp_path, *SRL_ALONE)) as process:
        worker = freeze_worker(process, out, "sampling", step=2)
        (engine,) = [p for p in processes_of(SCRATCH) if "ray::Engine" in p]
        os.kill(int(engine.split()[0]), signal.SIGKILL)
        os.kill(worker, signal.SIGCONT)
        worker = freeze_worker(process, out, "training", step=4)
        os.kill(worker, signal.SIGKILL)
        assert process.wait(timeout=DEADLINE_S) == 0
    assert train_steps(out, "srl") == [1, 2, 3, 4, 5, 6]
    assert last_srl_weights(out) == last_srl_weights(finished[0])


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("learner.num_workers=99", "learner.num_workers: is 99"),
        ("grader.type=magic", "grader.type: there is no grader 'magic'; choose answer, "),
        ("model=./nowhere", "there is no folder"),
        ("rollout.max_model_len=40", "rollout.max_model_len"),
        ("srl.max_step=3", "did you mean 'max_steps'?"),
    ],
)
def test_a_wrong_job_ends_with_one_clear_error_before_anything_starts(setting, wrong, tmp_path):
    done = run(small_job(tmp_path / "out", tmp_path, setting))
    assert done.returncode == 2
    assert wrong in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def start_session(command: list[str]) -> subprocess.Popen[str]:
    """A job that leads a process group of its own, as in a terminal."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=pipe, stderr=pipe, text=True
    )


def stopped(command: list[str], out: Path, phase: str, step: int, number: int) -> tuple[int, str]:
    """Signal a whole job in `phase` after `step`; return its exit status and standard error."""
    with start_session(command) as process:
        os.kill(freeze_worker(process, out, phase, step), signal.SIGCONT)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in said
    assert "SIGTERM received" not in said
    return process.returncode, said


def test_a_stopped_job_commits_the_step_under_way_and_ends_bitwise_as_undisturbed(
    tmp_path, finished
):
    out, checkpoints = tmp_path / "out", tmp_path / "out/srl/checkpoints"
    command = small_job(out, tmp_path, *SRL_ALONE, "srl.save_interval=20")

    status, said = stopped(command, out, "training", 1, signal.SIGTERM)  # before any validation
    assert status == 128 + signal.SIGTERM, said
    assert "stopped at step 2 of stage srl; the same command continues" in said
    assert checkpoint.steps(checkpoints) == [2]
    model = AutoModelForCausalLM.from_pretrained(checkpoints / "step-000002")
    assert len(AutoTokenizer.from_pretrained(checkpoints / "step-000002")) <= model.vocab_size
    assert not (out / "srl/result.json").exists()

    status, said = stopped(command, out, "sampling", 4, signal.SIGINT)  # Ctrl-C, after one
    assert status == 128 + signal.SIGINT, said
    assert "stopped at step 5 of stage srl" in said
    assert checkpoint.steps(checkpoints) == [3, 5]
    assert said_at_the_end(out) == "stopped at step 5 of stage srl; the same command continues"

    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert train_steps(out, "srl") == [1, 2, 3, 4, 5, 6]
    assert checkpoint.steps(checkpoints) == [3, 6]  # what stopping committed is no result
    assert last_srl_weights(out) == last_srl_weights(finished[0])
    rollouts = sorted(path.name for path in (out / "rollouts").iterdir())
    assert rollouts == [f"srl-{step:06d}.jsonl" for step in range(1, 7)]
    for name in rollouts:
        assert (out / "rollouts" / name).read_bytes() == (
            finished[0] / "rollouts" / name
        ).read_bytes()


def said_at_the_end(out: Path) -> str:
    return read_events(out / "events.jsonl")[-1]["message"]


def test_a_second_signal_ends_a_job_at_once_without_a_checkpoint(tmp_path):
    out = tmp_path / "out"
    command = small_job(out, tmp_path, "rlvr=null", "srl.groups_per_step=300")
    with start_session(command) as process:
        os.kill(freeze_worker(process, out, "sampling", 0), signal.SIGCONT)
        process.terminate()
        assert process.stderr is not None
        while "once more ends at once" not in (line := process.stderr.readline()):
            assert line, "the first signal was not heard"
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "ended; the same command continues from the last checkpoint"
    assert checkpoint.latest(out / "srl/checkpoints") is None
