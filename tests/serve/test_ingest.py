"""A driver's log becomes the job's events, each once, whatever happens to the file meanwhile."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from serve.manager_world import PROJECT, World, spec
from serve_app.contract_events import StepNumbers, contract_event
from serve_app.event_log import DamagedLine, LogPosition, read_new
from serve_app.ingest import has_news, take_events
from serve_app.results import metrics_csv
from serve_app.store.jobs import checkpoints, get_job, get_model, list_models
from train.events import EventLog


def line(uid: str, **event: Any) -> str:
    """One event as the driver writes it."""
    return json.dumps({"seq": 1, "uid": uid, "created_at": 7, "type": "message", **event}) + "\n"


def uids(news: Any) -> list[Any]:
    return [e["uid"] if isinstance(e, dict) else e for e in news.events]


def test_only_whole_lines_are_read_and_reading_goes_on_where_it_stopped(tmp_path):
    log = tmp_path / "events.jsonl"
    log.write_text(line("a") + line("b")[:10])
    first = read_new(log, {})
    assert uids(first) == ["a"]
    log.write_text(line("a") + line("b") + line("c"))
    second = read_new(log, first.position.to_json())
    assert uids(second) == ["b", "c"]
    assert uids(read_new(log, second.position.to_json())) == []


def test_a_log_that_was_written_anew_with_the_same_beginning_is_not_read_twice(tmp_path):
    log = tmp_path / "events.jsonl"
    log.write_text(line("a") + line("b"))
    position = read_new(log, {}).position.to_json()
    log.unlink()
    log.write_text(line("a") + line("b") + line("c"))
    assert uids(read_new(log, position)) == ["c"]


@pytest.mark.parametrize("after", [["a"], ["a", "x", "y", "z"], []])
def test_a_log_that_was_rewound_is_read_from_its_beginning(tmp_path, after):
    log = tmp_path / "events.jsonl"
    log.write_text("".join(line(uid) for uid in ("a", "b", "c")))
    position = read_new(log, {}).position.to_json()
    log.write_text("".join(line(uid) for uid in after))
    assert uids(read_new(log, position)) == after


def test_no_log_yet_is_no_event(tmp_path):
    news = read_new(tmp_path / "events.jsonl", {})
    assert (news.events, news.position) == ([], LogPosition())


def test_a_long_log_is_read_in_pieces_and_a_line_longer_than_a_piece_whole(tmp_path):
    log = tmp_path / "events.jsonl"
    log.write_text(line("a") + line("b", message="x" * 5000) + line("c"))
    position, seen = {}, []
    while (news := read_new(log, position, chunk_bytes=100)).events:
        seen.append(uids(news))
        position = news.position.to_json()
    assert [uid for piece in seen for uid in piece] == ["a", "b", "c"]
    assert len(seen) > 1


def test_a_damaged_line_is_told_and_passed_over(tmp_path):
    log = tmp_path / "events.jsonl"
    log.write_text(line("a") + '{"seq": 2, "uid"\n' + "[1]\n" + line("b"))
    a, broken, other, b = read_new(log, {}).events
    assert isinstance(broken, DamagedLine)
    assert isinstance(other, DamagedLine)
    assert (a["uid"], b["uid"]) == ("a", "b")
    told = contract_event(broken, StepNumbers({}, 0), None)
    assert told.level == "warn"
    assert "damaged at byte" in told.message


def test_steps_are_numbered_over_all_stages_in_the_order_in_which_they_run():
    job = spec(20, sft={}, srl={"max_steps": 10})
    numbers = StepNumbers.of(job, steps_planned=5 + 10 + 20 + 4)
    assert numbers == StepNumbers({"sft": 0, "srl": 5, "rlvr": 15}, 35)
    assert numbers.number("rlvr", 3) == 18


def test_the_second_srl_stage_has_a_place_of_its_own_between_srl_and_rlvr():
    job = spec(20, srl={"max_steps": 10}, more_examples={"max_steps": None})
    numbers = StepNumbers.of(job, steps_planned=10 + 10 + 20 + 4)
    assert numbers == StepNumbers({"srl": 0, "srl_2": 10, "rlvr": 20}, 40)
    job["more_examples"]["max_steps"] = 3
    assert StepNumbers.of(job, 33 + 4) == StepNumbers({"srl": 0, "srl_2": 10, "rlvr": 13}, 33)
    told = contract_event(metrics_event("srl_2"), numbers, job)
    assert (told.data["step"], told.data["stage"]) == (20, "srl_2")
    assert next(grader["type"] for grader in told.data["scores"]["graders"]) == "step_similarity"


def metrics_event(stage: str = "rlvr", **more: Any) -> dict[str, Any]:
    return {
        "seq": 4,
        "uid": "u",
        "created_at": 7,
        "type": "metrics",
        "stage": stage,
        "step": 10,
        "message": "Step 10/20",
        "total_steps": 20,
        "train_mean_reward": 0.42,
        "full_valid_mean_reward": 0.68,
        "reward": 0.42,
        "reward_std": 0.1,
        "entropy": 1.5,
        "clip_ratio": 0.0,
        "grad_norm": 2.0,
        "completions/mean_length": 30.0,
        "completions/clipped_ratio": 0.0,
        "sampler_learner_logprob_diff": 1e-6,
        "rollouts_dropped": 2,
        "timing": {"step": {"sampling": 1.0, "training": 2.0, "eval": 3.0, "full_iteration": 6.0}},
        **more,
    }


def test_a_step_is_told_in_the_words_and_with_all_the_names_of_the_contract():
    told = contract_event(metrics_event(), StepNumbers.of(spec(20), 22), spec(20))
    assert told.message == ("Step 10/20, train mean reward=0.42, full validation mean reward=0.68")
    assert (told.type, told.key, told.created_at) == ("metrics", "rlvr:10:metrics", 7)
    names = (
        "step total_steps train_mean_reward train_reward_mean full_valid_mean_reward "
        "full_valid_mean_parse_error completion_tokens_mean scores errors timing reward reward_std "
        "kl entropy completions/mean_length completions/clipped_ratio clip_ratio grad_norm "
        "sampler_learner_logprob_diff staleness groups_filtered rollouts_dropped"
    )
    assert set(names.split()) <= set(told.data)
    assert told.data["train_reward_mean"] == told.data["train_mean_reward"] == 0.42
    assert told.data["scores"] == {
        "train_reward_mean": 0.42,
        "valid_reward_mean": 0.68,
        "graders": [
            {
                "name": "answer",
                "type": "answer",
                "train_reward_mean": 0.42,
                "valid_reward_mean": 0.68,
            }
        ],
    }
    assert told.data["errors"]["graders"][0]["rollouts_dropped"] == 2
    assert told.data["timing"]["step"] == {
        "sampling": 1.0,
        "training": 2.0,
        "eval": 3.0,
        "full_iteration": 6.0,
    }
    assert told.data["kl"] is None, "there is no reference model to differ from"


def test_srl_is_rewarded_by_step_similarity_and_validated_by_the_jobs_grader():
    told = contract_event(metrics_event("srl"), StepNumbers({"srl": 0}, 20), spec(20))
    steps, answer = told.data["scores"]["graders"]
    assert (steps["name"], steps["train_reward_mean"], steps["valid_reward_mean"]) == (
        "step_similarity",
        0.42,
        None,
    )
    assert (answer["name"], answer["train_reward_mean"], answer["valid_reward_mean"]) == (
        "answer",
        None,
        0.68,
    )


def test_a_step_without_verdicts_or_validation_says_only_its_number():
    event = metrics_event(train_mean_reward=None, full_valid_mean_reward=None)
    assert contract_event(event, StepNumbers({"rlvr": 0}, 20), spec()).message == "Step 10/20"


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "data")


class Log:
    """A job in the store whose log the test writes by itself."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.job_id = world.create()
        with world.database.write() as session:
            job = get_job(session, self.job_id)
            assert job is not None
            job.spec, job.steps_planned = spec(9), 11
            self.path = Path(job.out) / "events.jsonl"
        self.log = EventLog(self.path)

    def step(self, step: int, tokens: int = 10, uid: str | None = None) -> None:
        self.log.emit(metrics_event(uid=uid or f"m{step}", step=step, trained_tokens=tokens))

    def checkpoint(self, step: int, kept: list[int], uid: str | None = None) -> None:
        event = {"type": "checkpoint", "stage": "rlvr", "step": step, "message": "committed"}
        event |= {"path": f"rlvr/checkpoints/step-{step:06d}", "metrics": {"x": step}}
        self.log.emit(event | {"kept": kept, "uid": uid or f"c{step}"})

    def take(self) -> int:
        num = 0
        while True:
            with self.world.database.write() as session:
                job = get_job(session, self.job_id, lock=True)
                assert job is not None
                taken = take_events(session, job, "ferrata")
            if not taken:
                return num
            num += taken

    def steps(self) -> list[int]:
        with self.world.database.read() as session:
            return [c.step_number for c in checkpoints(session, self.job_id)[0]]


def test_events_are_taken_once_and_the_jobs_row_follows(world):
    log = Log(world)
    log.step(1)
    log.step(2, tokens=30)
    assert has_news(world.job(log.job_id))
    assert log.take() == 2
    assert log.take() == 0
    job = world.job(log.job_id)
    assert not has_news(job)
    assert (job.steps_done, job.trained_tokens, job.stage) == (2, 40, "rlvr")
    assert job.metrics["step"] == 2


def test_a_step_that_is_redone_takes_its_events_place(world):
    log = Log(world)
    for step in (1, 2, 3):
        log.step(step)
    log.take()
    before = {e.key: (e.seq, e.id) for e in world.events(log.job_id)}
    log.log = EventLog(log.path)
    log.log.rewind("rlvr", 1)
    log.step(2, tokens=70, uid="again")
    log.take()
    events = {e.key: e for e in world.events(log.job_id)}
    assert {k: (e.seq, e.id) for k, e in events.items()} == before
    assert events["rlvr:2:metrics"].data["trained_tokens"] == 70
    job = world.job(log.job_id)
    assert job.steps_done == 3
    assert job.trained_tokens == 10 + 70 + 10


def test_a_checkpoint_that_gave_its_files_up_is_shown_no_more_nor_its_model(world):
    log = Log(world)
    log.checkpoint(3, [3])
    log.checkpoint(6, [3, 6])
    log.take()
    assert log.steps() == [6, 3]
    log.checkpoint(9, [6, 9])
    log.take()
    assert log.steps() == [9, 6]
    with world.database.read() as session:
        names = [model.name for model in list_models(session, PROJECT)]
        name = f"ft:ferrata-tiny:ferrata::{log.job_id[-8:]}:ckpt-step-9"
        model = get_model(session, name, PROJECT)
    assert len(names) == 2
    assert model is not None
    assert model.path == str(log.path.parent / "rlvr/checkpoints/step-000009")


def test_a_log_that_is_read_again_brings_no_pruned_checkpoint_back(world):
    log = Log(world)
    for step, kept in ((3, [3]), (6, [3, 6]), (9, [6, 9])):
        log.checkpoint(step, kept)
    log.take()
    with world.database.write() as session:
        job = get_job(session, log.job_id)
        assert job is not None
        job.log_position = {}
    log.take()
    assert log.steps() == [9, 6]
    assert len(world.events(log.job_id)) == 4


def test_the_result_file_holds_the_flat_figures_of_every_step():
    rows = [
        {"step": 1, "reward": 0.5, "scores": {"a": 1}},
        {"step": 2, "reward": None, "full_valid_mean_reward": 0.25},
    ]
    text = b"".join(metrics_csv(rows)).decode()
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"step": "1", "full_valid_mean_reward": "", "reward": "0.5"},
        {"step": "2", "full_valid_mean_reward": "0.25", "reward": ""},
    ]
