"""The log's numbers have no gaps, whatever was cut off or taken again."""

import json
from pathlib import Path

import pytest

from train.events import EventLog, read_events


def seqs_and_steps(path: Path) -> list[tuple[int, object]]:
    """(number, step) of every event on disk."""
    return [(e["seq"], e.get("step")) for e in read_events(path)]


def test_events_are_numbered_from_1_and_on_disk_when_acknowledged(tmp_path):
    path = tmp_path / "new" / "events.jsonl"
    log = EventLog(path)
    assert log.emit({"event": "a", "stage": "srl", "step": 1}) == 1
    assert log.emit({"event": "b"}) == 2
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["seq"], first["event"], first["stage"], first["step"]) == (1, "a", "srl", 1)
    assert (second["seq"], second["event"]) == (2, "b")
    assert isinstance(first["created_at"], int)


def test_a_log_opened_again_goes_on_with_the_next_number(tmp_path):
    path = tmp_path / "events.jsonl"
    EventLog(path).emit({"step": 1})
    assert EventLog(path).emit({"step": 2}) == 2
    assert seqs_and_steps(path) == [(1, 1), (2, 2)]


def test_a_half_line_is_not_read_and_the_next_event_takes_its_number(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.emit({"step": 1})
    log.emit({"step": 2})
    path.write_text(path.read_text()[:-9])  # killed in the middle of the second line
    assert seqs_and_steps(path) == [(1, 1)]
    assert EventLog(path).emit({"step": 3}) == 2
    assert seqs_and_steps(path) == [(1, 1), (2, 3)]


def test_a_whole_event_without_its_line_end_was_never_acknowledged(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.emit({"step": 1})
    log.emit({"step": 2})
    path.write_text(path.read_text()[:-1])
    EventLog(path)
    assert seqs_and_steps(path) == [(1, 1)]
    assert path.read_text().endswith("}\n")


def test_rewinding_forgets_the_stages_later_steps_and_nothing_else(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for event in (
        {"stage": "srl", "step": 1},
        {"stage": "srl"},  # without a step: the stage's own
        {"stage": "srl", "step": 2},
        {"stage": "srl", "step": 3},
        {"stage": "rlvr", "step": 3},
        {"step": 9},
    ):
        log.emit(event)
    log.rewind("srl", 1)
    kept = [(e["seq"], e.get("stage"), e.get("step")) for e in read_events(path)]
    assert kept == [(1, "srl", 1), (2, "srl", None), (3, "rlvr", 3), (4, None, 9)]
    assert log.emit({"stage": "srl", "step": 2}) == 5
    assert [seq for seq, _ in seqs_and_steps(path)] == [1, 2, 3, 4, 5]


def test_rewinding_to_where_the_log_ends_changes_nothing(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.emit({"stage": "srl", "step": 1})
    before = path.read_bytes()
    log.rewind("srl", 1)
    assert path.read_bytes() == before
    assert log.emit({"stage": "srl", "step": 2}) == 2


def test_a_log_that_does_not_exist_has_no_events(tmp_path):
    assert read_events(tmp_path / "none.jsonl") == []


def test_a_number_that_json_does_not_know_is_refused_and_nothing_is_written(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(ValueError, match="Out of range float"):
        log.emit({"reward": float("nan")})
    assert log.emit({"reward": 0.5}) == 1


def test_requests_add_up_over_stages_and_start_anew_with_the_log(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.account(3, 1)
    log.account(4, 0)
    assert log.requests() == {"scored": 7, "dropped": 1}
    assert EventLog(tmp_path / "events.jsonl").requests() == {"scored": 0, "dropped": 0}


def test_the_present_is_one_file_that_is_overwritten(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.now("srl", 1, "sampling", 77)
    log.now("srl", 1, "training", 77)
    now = json.loads((tmp_path / "now.json").read_text())
    assert (now["stage"], now["step"], now["phase"], now["pid"]) == ("srl", 1, "training", 77)
    assert read_events(tmp_path / "events.jsonl") == []


def test_after_a_write_that_failed_half_way_the_log_goes_on_whole(tmp_path, monkeypatch):
    log = EventLog(tmp_path / "events.jsonl")
    log.emit({"step": 1})

    def full_disk(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("train.events.os.fsync", full_disk)  # the line was written, not kept
        with pytest.raises(OSError, match="No space left"):
            log.emit({"step": 2})
    assert log.emit({"step": 3}) == 2
    assert seqs_and_steps(tmp_path / "events.jsonl") == [(1, 1), (2, 3)]


def test_a_line_that_is_no_event_is_named_with_file_and_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"seq": 1}\n{"se{"seq": 3}\n')
    with pytest.raises(ValueError, match=r"events\.jsonl, line 2: is not an event"):
        read_events(path)


def test_an_event_keeps_its_uid_when_the_log_is_rewound_or_opened_again(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for step in (1, 2, 3):
        log.emit({"stage": "srl", "step": step})
    first, _, _ = before = [event["uid"] for event in read_events(path)]
    assert len(set(before)) == 3
    log.rewind("srl", 1)
    log.emit({"stage": "srl", "step": 2})
    EventLog(path)
    kept, taken_again = (event["uid"] for event in read_events(path))
    assert kept == first
    assert taken_again not in before


def test_an_event_that_must_be_there_once_is_not_appended_again(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.emit({"type": "checkpoint", "stage": "srl", "step": 2, "path": "first"})
    log.emit_once({"type": "checkpoint", "stage": "srl", "step": 2, "path": "again"})
    log.emit_once({"type": "checkpoint", "stage": "srl", "step": 4, "path": "new"})
    assert [event["path"] for event in read_events(path)] == ["first", "new"]


def test_who_tells_its_phase_hears_of_a_wish_to_stop(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    assert not log.now("srl", 1, "sampling", 77)
    log.request_stop()
    assert log.now("srl", 2, "sampling", 77)
    assert log.now("rlvr", 0, "sampling", 77)
