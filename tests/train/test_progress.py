"""What a person sees: a line per event in a file, bars on a terminal."""

import io
import time

from rich.console import Console

from train.events import EventLog
from train.progress import ProgressFollower

STEP = {
    "type": "metrics",
    "stage": "srl",
    "message": "Step 1/4",
    "total_steps": 4,
    "step": 1,
    "reward": 0.5,
    "num_tokens": 300,
    "full_valid_mean_reward": None,
    "timing": {"step": {"full_iteration": 2.0}},
}


def shown(tmp_path, *events: dict, terminal: bool = False, earlier: tuple[dict, ...] = ()) -> str:
    """What is printed while `events` are emitted after `earlier` ones."""
    log, stream = EventLog(tmp_path / "events.jsonl"), io.StringIO()
    for event in earlier:
        log.emit(event)
    console = Console(file=stream, force_terminal=terminal, width=80)
    with ProgressFollower(tmp_path / "events.jsonl", console):
        for event in events:
            log.emit(event)
        log.now("srl", 1, "sampling", 77)
        time.sleep(1.2 if terminal else 0)
    return stream.getvalue()


def test_each_event_is_one_line_however_long(tmp_path):
    long = STEP | {"message": "Step 1/4 " + "x" * 100, "full_valid_mean_reward": 0.25}
    lines = shown(tmp_path, {"type": "message", "message": "stage [srl]"}, long).splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("stage [srl]")
    assert lines[1].endswith("reward 0.500, validation 0.250, 150 tok/s, about 6 s left")


def test_a_warning_is_called_one(tmp_path):
    warning = {"type": "message", "level": "warn", "message": "no group carried a signal"}
    assert " warn: no group carried a signal" in shown(tmp_path, warning)


def test_a_step_without_verdicts_says_so(tmp_path):
    assert "no verdicts, 150 tok/s" in shown(tmp_path, STEP | {"reward": None})


def test_what_an_earlier_run_wrote_is_not_shown_again(tmp_path):
    text = shown(tmp_path, STEP | {"step": 2, "message": "Step 2/4"}, earlier=(STEP,))
    assert "Step 1/4" not in text
    assert "Step 2/4" in text


def test_after_a_rewind_what_follows_is_shown_however_short_the_log_became(tmp_path):
    steps = tuple(STEP | {"step": n, "message": f"Step {n}/4"} for n in (1, 2, 3))
    stream = io.StringIO()
    log = EventLog(tmp_path / "events.jsonl")
    for event in steps:
        log.emit(event)
    with ProgressFollower(tmp_path / "events.jsonl", Console(file=stream, width=80)):
        log.rewind("srl", 1)
        log.emit({"type": "message", "message": "stage srl continues at step 1"})
        log.emit(steps[1])
    assert "continues at step 1" in stream.getvalue()
    assert stream.getvalue().count("Step 2/4") == 1


def test_a_terminal_shows_bars_and_what_is_being_done_now(tmp_path):
    text = shown(tmp_path, STEP, terminal=True)
    assert "1/4" in text
    assert "srl after step 1: sampling" in text


def test_a_step_of_the_warm_start_shows_its_loss(tmp_path):
    step = {
        "type": "metrics",
        "stage": "sft",
        "message": "Step 1/4",
        "total_steps": 4,
        "step": 1,
        "loss": 2.5,
        "num_tokens": 300,
        "timing": {"step": {"full_iteration": 2.0}},
    }
    assert "sft Step 1/4: loss 2.500, 150 tok/s, about 6 s left" in shown(tmp_path, step)
