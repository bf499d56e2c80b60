"""What a teacher wrote is kept: over a time-out, an outage and a kill."""

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT
from servers import Answer, completion, serve
from teacher_world import (
    GRADER,
    check_sum,
    collect,
    honest,
    row,
    rows,
    spec,
)

from rollout.verifiers.registry import parse_grader
from train.experts import digit_programs
from train.experts.by_teacher import solve_by_teacher
from train.experts.journal import Journal, JournalError


def test_after_its_time_nothing_more_is_asked_and_what_is_there_is_kept(tmp_path):
    def slow(request) -> Answer:
        reply = honest(request)
        reply.wait_s = 0.3
        return reply

    journal = tmp_path / "journal.jsonl"
    with serve(slow) as server:
        teacher = spec(server.url, concurrency=1)
        found = solve_by_teacher(rows(30), teacher, grader=GRADER, journal=journal, deadline_s=1.0)
        assert 1 <= check_sum(found, server)["accepted"] < 30
        assert "time" in str(found.stopped)
        count = len(found.asked)
        rest = solve_by_teacher(rows(30), teacher, count + 1, grader=GRADER, journal=journal)
    assert (rest.count("accepted"), len(server.requests)) == (count + 1, count + 1)


def test_a_call_after_an_outage_asks_again_for_what_the_teacher_failed_at(tmp_path):
    journal = tmp_path / "journal.jsonl"
    with serve(honest, honest, Answer({}, 404)) as server:
        first = collect(server.url, rows(6), journal=journal, concurrency=1)
        assert (first.count("accepted"), first.count("dropped")) == (2, 4)
        url = server.url
    port = int(url.rsplit(":", 1)[1])
    with serve(honest, port=port) as server:
        again = collect(url, rows(6), journal=journal, concurrency=1)
        assert (len(again.asked), again.count("accepted")) == (6, 6)
        assert len(server.requests) == 4
        assert collect(url, rows(6), journal=journal, concurrency=1).count("accepted") == 6
        assert len(server.requests) == 4


def test_a_journal_of_other_settings_is_refused(tmp_path):
    journal = tmp_path / "journal.jsonl"
    with serve(honest) as server:
        collect(server.url, rows(2), journal=journal)
        collect(server.url, rows(2), journal=journal, concurrency=1)
        assert len(server.requests) == 2, "how many are asked at once changes nothing"
        others = [
            ({"temperature": 0.1}, rows(2), GRADER),
            ({"model": "u"}, rows(2), GRADER),
            ({}, [row(100, reference_answer="1"), row(101)], GRADER),
            ({}, rows(2), parse_grader({"type": "answer", "pattern": "(x)"})),
        ]
        for fields, problems, grader in others:
            with pytest.raises(JournalError, match="of another run"):
                solve_by_teacher(
                    problems, spec(server.url, **fields), grader=grader, journal=journal
                )
        with pytest.raises(JournalError, match="of another run"):
            solve_by_teacher(
                rows(2), spec(server.url), grader=GRADER, journal=journal, protocol="single"
            )


def test_who_opens_a_journal_in_use_waits(tmp_path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path, {"seed": 1})
    opened: list[Journal] = []
    thread = threading.Thread(target=lambda: opened.append(Journal(path, {"seed": 1})))
    thread.start()
    first.add({"n": 1})
    thread.join(0.3)
    assert opened == []
    first.close()
    thread.join(10)
    assert opened[0].entries == [{"n": 1}]
    opened[0].close()


def test_a_journal_of_another_run_is_refused_and_a_torn_line_dropped(tmp_path):
    path = tmp_path / "journal.jsonl"
    book = Journal(path, {"seed": 1})
    book.add({"n": 1})
    book.close()
    with path.open("ab") as file:
        file.write(b'{"n": 2, "to')
    again = Journal(path, {"seed": 1})
    assert again.entries == [{"n": 1}]
    again.add({"n": 3})
    again.close()
    last = Journal(path, {"seed": 1})
    assert last.entries == [{"n": 1}, {"n": 3}]
    last.close()
    with pytest.raises(JournalError, match="of another run"):
        Journal(path, {"seed": 2})


def test_nothing_accepted_is_lost_when_the_process_is_killed(tmp_path):
    """The next process asks for the rest, and for no row twice that was decided."""
    journal = tmp_path / "journal.jsonl"
    data = tmp_path / "rows.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": f"{n:04d}:1sr,2li"}], "reference_answer": a}
        for n, a in ((n, digit_programs.solve(f"{n:04d}:1sr,2li")[2]) for n in range(12))
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-c", SCRIPT, str(data), str(journal)]
    asked: collections.Counter[str] = collections.Counter()

    def slowly(request) -> Answer:
        problem = request.json["messages"][1]["content"]
        asked[problem] += 1
        steps, _, answer = digit_programs.solve(problem)
        text = "\n".join(f"{n}. {step}" for n, step in enumerate(steps, start=1))
        reply = completion(f"{text}\nAnswer: {answer}")
        reply.wait_s = 0.2
        return reply

    with serve(slowly) as server:
        environment = os.environ | {"TEACHER": server.url, "PYTHONPATH": str(ROOT)}
        first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b'"accepted"') < 3:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        kept = [json.loads(line) for line in journal.read_bytes().splitlines()[1:]]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=120
        )
    told = json.loads(done.stdout)
    assert (told["asked"], told["accepted"]) == (12, 12)
    whole = [json.loads(line) for line in journal.read_bytes().splitlines()[1:]]
    assert whole[: len(kept)] == kept
    assert len({entry["row_id"] for entry in whole}) == 12
    twice = [problem for problem, count in asked.items() if count > 1]
    assert len(twice) <= 2, "only what was under way is asked again"


SCRIPT = """
import json, os, sys
from pathlib import Path
from rollout.verifiers.registry import parse_grader
from train.data import read_rows
from train.experts.by_teacher import solve_by_teacher
from train.experts.teachers import EndpointTeacherSpec

spec = EndpointTeacherSpec(base_url=os.environ["TEACHER"] + "/v1", model="t", concurrency=2)
found = solve_by_teacher(
    read_rows(Path(sys.argv[1])), spec, grader=parse_grader({"type": "answer"}),
    journal=Path(sys.argv[2]),
)
print(json.dumps(found.summary()))
"""
