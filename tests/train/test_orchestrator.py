"""Solutions by a teacher over real HTTP: honest, lying, stalling, garbled, dying half-way."""

import collections
import dataclasses
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT
from pydantic import ValidationError
from servers import Answer, completion, serve

from rollout.types import Verdict
from rollout.verifiers.registry import parse_grader
from train.data import Row
from train.experts import digit_programs, orchestrator
from train.experts.by_teacher import NothingToAskError, solve_by_teacher
from train.experts.collected import Collected
from train.experts.journal import Journal, JournalError
from train.experts.retriever import Retriever, solved_examples, split_document
from train.experts.solver import with_solution
from train.experts.teachers import EndpointTeacherSpec, repair_of

GRADER = parse_grader({"type": "answer"})
FAST = {"timeout_s": 2.0, "deadline_s": 4.0, "max_attempts": 2}


def row(number: int, **fields: object) -> Row:
    """A sum as a row: `number + 7`."""
    raw = {
        "messages": ({"role": "user", "content": f"What is {number} + 7?"},),
        "reference_answer": str(number + 7),
    } | fields
    item = {name: value for name, value in raw.items() if name != "messages"}
    known = {field.name for field in dataclasses.fields(Row)}
    read = {name: value for name, value in raw.items() if name in known}
    return Row(f"row:{number}", item=item, **read)  # type: ignore[arg-type]


def rows(count: int) -> list[Row]:
    return [row(number) for number in range(100, 100 + count)]


def asked_number(request) -> int:
    """The number that the conversation's problem names."""
    problem = request.json["messages"][1]["content"]
    found = re.search(r"What is (\d+)", problem)
    assert found is not None
    return int(found[1])


def counted(prompt_tokens: bytes) -> Answer:
    """A completion with this count of tokens."""
    usage = b'"usage": {"prompt_tokens": ' + prompt_tokens + b"}"
    return Answer(b'{"choices": [{"message": {"content": "x"}}], ' + usage + b"}")


def solution(number: int, result: int | None = None) -> str:
    total = number + 7 if result is None else result
    steps = f"1. **Read**: The numbers are {number} and 7.\n2. **Add**: It gives {total}."
    return f"{steps}\nAnswer: {total}"


def honest(request) -> Answer:
    return completion(solution(asked_number(request)))


def spec(url: str, **fields: object) -> EndpointTeacherSpec:
    raw = {"base_url": f"{url}/v1", "model": "t", "limits": FAST, "concurrency": 4} | fields
    return EndpointTeacherSpec.model_validate(raw)


def collect(url: str, problems: list[Row], count: int | None = None, **fields: object) -> Collected:
    journal = fields.pop("journal", None)
    return solve_by_teacher(problems, spec(url, **fields), count, grader=GRADER, journal=journal)


def check_sum(found: Collected, server) -> dict:
    """The summary, whose count is that of the problems which the server saw."""
    told = found.summary()
    problems = {request.json["messages"][1]["content"] for request in server.requests}
    assert told["accepted"] + told["rejected"] + told["dropped"] == len(problems)
    assert told["asked"] == len(problems)
    return told


def test_an_honest_teacher_is_asked_for_no_more_than_is_wanted():
    with serve(honest) as server:
        found = collect(server.url, rows(20), 5)
    told = check_sum(found, server)
    assert (told["asked"], told["accepted"], told["repairs"]) == (5, 5, 0)
    assert len(server.requests) == 5
    assert (told["prompt_tokens"], told["completion_tokens"]) == (150, 35)
    one = found.asked[0]
    number = int(one.row_id.split(":")[1])
    assert one.solution is not None
    assert one.solution.steps[-1] == str(number + 7), "the grader reads the last step"
    assert one.provenance["teacher"] == "endpoint:t"
    assert one.provenance["model"] == "judge-2026"
    assert len(one.provenance["prompt_sha256"]) == 64


def test_a_rejected_draft_goes_back_with_reasons_that_do_not_give_the_answer_away():
    def mends(request) -> Answer:
        number, messages = asked_number(request), request.json["messages"]
        if len(messages) == 2:
            return completion(solution(number, number + 8))
        assert messages[2]["content"] == solution(number, number + 8)
        assert f"the answer '{number + 8}' is wrong" in messages[3]["content"]
        assert str(number + 7) not in messages[3]["content"]
        return completion(solution(number))

    with serve(mends) as server:
        told = check_sum(collect(server.url, rows(3), repair="reasons"), server)
    assert (told["accepted"], told["repairs"], told["drafts"]) == (3, 3, 6)


def test_where_a_blind_retry_would_be_the_same_draft_reasons_go_back():
    assert repair_of(None, temperature=0.7) == "blind"
    assert repair_of(None, temperature=0.0) == "reasons"
    assert repair_of("blind", temperature=0.0) == "blind"
    assert repair_of("reasons", temperature=0.7) == "reasons"


def test_a_blind_retry_asks_the_same_with_another_seed():
    seeds: dict[int, list[int]] = collections.defaultdict(list)

    def luckier(request) -> Answer:
        number = asked_number(request)
        assert len(request.json["messages"]) == 2
        seeds[number].append(request.json["seed"])
        return completion(solution(number, None if len(seeds[number]) == 3 else number))

    with serve(luckier) as server:
        told = check_sum(collect(server.url, rows(3), repair="blind"), server)
    assert (told["accepted"], told["repairs"], told["drafts"]) == (3, 3, 9)
    assert all(len(set(drawn)) == 3 for drawn in seeds.values())


def test_a_liar_gives_nothing():
    with serve(lambda r: completion(solution(asked_number(r), 1))) as server:
        found = collect(server.url, rows(4), max_rounds=2)
    told = check_sum(found, server)
    assert (told["accepted"], told["rejected"], told["drafts"]) == (0, 4, 8)
    assert found.solutions == {}
    assert told["reasons"] == {"the answer '1' is wrong": 4}


def test_a_right_answer_by_a_false_equation_is_no_solution():
    def false_line(request) -> Answer:
        number = asked_number(request)
        return completion(f"1. {number} + 7 = {number}\n2. So.\nAnswer: {number + 7}")

    with serve(false_line) as server:
        told = check_sum(collect(server.url, rows(2), max_rounds=1), server)
    assert told["rejected"] == 2
    assert "which is false" in next(iter(told["reasons"]))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Answer(b'{"choices": [', 200), "no_answer"),
        (Answer({"choices": []}), "malformed"),
        (Answer({"error": "x"}), "malformed"),
        (completion(""), "empty"),
        (Answer({}, wait_s=6.0), "no_answer"),
        (Answer({}, 500), "no_answer"),
        (completion("1. one\n2. \ud800\nAnswer: 3"), "malformed"),
        (
            Answer(
                b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}'
            ),
            "malformed",
        ),
        (
            Answer({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -5}}),
            "malformed",
        ),
        (Answer({"choices": [{"message": {"content": "x"}}], "usage": [1]}), "malformed"),
        (Answer([1, 2]), "malformed"),
    ],
)
def test_a_teacher_that_fails_is_no_verdict_and_is_counted(bad, reason):
    def half(request) -> Answer:
        return bad if asked_number(request) % 2 else honest(request)

    with serve(half) as server:
        found = collect(server.url, rows(6))
    told = check_sum(found, server)
    assert (told["accepted"], told["rejected"], told["dropped"]) == (3, 0, 3)
    assert told["reasons"] == {f"teacher: {reason}": 3}
    assert {int(i.split(":")[1]) % 2 for i in found.solutions} == {0}


def test_a_dead_teacher_is_not_asked_for_every_row_and_its_own_words_are_told():
    with serve(Answer({"error": "no such model 't'"}, 404)) as server:
        found = collect(server.url, rows(40))
    told = check_sum(found, server)
    assert 8 <= told["dropped"] <= 8 + 4, "those under way are waited for"
    assert (told["accepted"], told["rejected"]) == (0, 0)
    assert "no such model" in told["first_failures"]["teacher: no_answer"]
    assert "no such model" in found.describe()
    assert "the teacher failed" in found.describe()


def test_a_failure_now_and_then_stops_nothing():
    count = itertools.count(1)

    def every_third(request) -> Answer:
        return Answer({}, 404) if next(count) % 3 else honest(request)

    with serve(every_third) as server:
        told = check_sum(collect(server.url, rows(36), concurrency=1), server)
    assert (told["asked"], told["accepted"], told["dropped"], told["stopped"]) == (36, 12, 24, None)


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


@pytest.mark.parametrize(
    ("text", "key"), [("naïve", "naïve"), ("two\nlines", "two"), ("plain-secret", "plain-secret")]
)
def test_a_key_is_in_no_message(text, key, monkeypatch):
    monkeypatch.setenv("FERRATA_GRADER_KEY", text)

    def echo(request) -> Answer:
        return Answer({"error": f"bad {request.headers['authorization']}"}, 401)

    with serve(echo) as server:
        found = collect(server.url, rows(1), api_key_env="FERRATA_GRADER_KEY")
    assert found.count("dropped") == 1
    assert key not in json.dumps(found.summary(), ensure_ascii=False)
    assert "401" in found.describe() or "no HTTP header can carry" in found.describe()


@pytest.mark.parametrize(
    "base_url",
    ["http://host:99999/v1", "http://host:x/v1", "http://[::1/v1", "http://a b/v1", "ftp://x/v1"],
)
def test_an_address_that_is_none_is_refused_when_it_is_read(base_url):
    with pytest.raises(ValidationError, match="is no address"):
        EndpointTeacherSpec(base_url=base_url, model="t")


@pytest.mark.parametrize(
    ("reward", "outcome"),
    [(5.0, "rejected"), (5.1, "accepted"), (math.nan, "dropped"), (math.inf, "dropped")],
)
def test_the_graders_own_scale_decides_and_no_number_is_no_verdict(reward, outcome):
    class OfTen:
        range = (0.0, 10.0)

        def verify(self, problem, rollout) -> Verdict:
            return Verdict(reward)

    with serve(honest) as server:
        found = solve_by_teacher(rows(2), spec(server.url, max_rounds=1), grader=OfTen())
    assert check_sum(found, server)[outcome] == 2


def test_an_answer_line_that_is_not_what_the_steps_come_to_is_rejected():
    def two_faced(request) -> Answer:
        number = asked_number(request)
        return completion(f"1. Add.\n2. {number + 7}\nAnswer: {number}")

    with serve(two_faced) as server:
        told = check_sum(collect(server.url, rows(2), max_rounds=1), server)
    assert told["rejected"] == 2
    assert "is not what the steps come to" in next(iter(told["reasons"]))


def test_an_answer_line_that_no_verdict_read_is_refused_and_never_a_reference_answer():
    """A grader that needs no reference answer: the answer line itself has to pass."""
    said = "sample['output_text'].endswith(item['target'])"
    source = f"def grade(sample, item):\n    return float({said})"
    grader = parse_grader({"type": "python", "source": source})
    problems = [row(n, reference_answer=None, target=str(n + 7)) for n in (100, 101)]

    def two_faced(request) -> Answer:
        number = asked_number(request)
        answer = number + 7 if number == 100 else number
        return completion(f"1. Add.\n2. {number + 7}\nAnswer: {answer}")

    with serve(two_faced) as server:
        found = solve_by_teacher(problems, spec(server.url, max_rounds=1), grader=grader)
    assert {one.row_id: one.outcome for one in found.asked} == {
        "row:100": "accepted",
        "row:101": "rejected",
    }
    (kept,) = [with_solution(p, found.solutions[p.id]) for p in problems if p.id in found.solutions]
    assert kept.expert_steps == ("Add.", "107")
    assert kept.reference_answer is None


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


def test_a_dead_teacher_is_found_out_over_many_skills_too():
    with serve(Answer({}, 404)) as server:
        problems = [row(n, skill=f"skill {n}") for n in range(60)]
        collect(server.url, problems, 60, concurrency=1)
        assert len(server.requests) == 8


def test_no_part_of_a_key_is_told_where_a_long_reply_is_cut(monkeypatch):
    key = "sk-" + "0123456789abcdef" * 4
    monkeypatch.setenv("FERRATA_GRADER_KEY", key)
    with serve(lambda request: Answer(b"x" * 150 + key.encode() * 3, 401)) as server:
        found = collect(server.url, rows(1), api_key_env="FERRATA_GRADER_KEY")
    assert "xxx" in found.describe()
    assert key[:6] not in json.dumps(found.summary())


def test_the_grader_decides_and_not_the_answers_text():
    def with_point(request) -> Answer:
        return completion(f"1. Add.\n2. So.\nAnswer: {asked_number(request) + 7}.0")

    by_math = parse_grader({"type": "math"})
    with serve(with_point) as server:
        found = solve_by_teacher(rows(2), spec(server.url), grader=by_math)
        assert check_sum(found, server)["accepted"] == 2
    assert found.asked[0].provenance["verified_by"] == "grader math"


def test_a_fault_of_ours_costs_its_row_and_no_other(monkeypatch):
    real = orchestrator.read_draft

    def breaks(text: str):
        if "103" in text:
            raise LookupError("broken")
        return real(text)

    monkeypatch.setattr(orchestrator, "read_draft", breaks)
    with serve(honest) as server:
        told = check_sum(collect(server.url, rows(5)), server)
    assert (told["accepted"], told["dropped"]) == (4, 1)
    assert told["first_failures"] == {"error: LookupError": "broken"}


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


def test_a_teacher_that_dies_half_way_leaves_what_it_gave():
    with serve(*[honest] * 3, Answer({}, 503)) as server:
        told = check_sum(collect(server.url, rows(5), concurrency=1), server)
    assert (told["accepted"], told["dropped"]) == (3, 2)


def test_a_grader_that_fails_is_no_verdict():
    broken = parse_grader(
        {"type": "python", "source": "def grade(sample, item):\n    raise ValueError('x')"}
    )
    with serve(honest) as server:
        found = solve_by_teacher(rows(2), spec(server.url), grader=broken)
    told = check_sum(found, server)
    assert (told["dropped"], told["reasons"]) == (2, {"verifier: no verdict": 2})


def test_rows_that_cannot_be_verified_are_never_asked():
    bare = row(1, reference_answer=None)
    with serve(honest) as server:
        with pytest.raises(NothingToAskError, match="none of the 1 rows without expert_steps"):
            collect(server.url, [bare])
        assert collect(server.url, [bare, row(2)]).count("accepted") == 1
        with pytest.raises(NothingToAskError, match="every row has expert_steps"):
            collect(server.url, [row(3, expert_steps=("10",))])
    assert len(server.requests) == 1


def test_solved_rows_and_documents_reach_the_prompt_where_they_share_a_word():
    known = row(41, expert_steps=("41 + 7 = 48", "48"))
    assert solved_examples([known, row(2)]) == [
        "Problem: What is 41 + 7?\n1. 41 + 7 = 48\n2. 48\nAnswer: 48"
    ]
    with serve(honest) as server:
        collect(server.url, [known, row(2)])
    (request,) = server.requests
    assert "41 + 7 = 48" in request.json["messages"][0]["content"]
    texts = ["cats purr", "Euclid divides", "a gcd by Euclid divides twice"]
    assert Retriever(texts, 2).passages("gcd euclid") == [texts[2], texts[1]]
    assert Retriever(texts).passages("nothing of that") == []
    assert Retriever([]).passages("x") == []
    assert split_document("a\n\nb\n\n" + "c" * 4500) == [
        "a\n\nb",
        "c" * 2000,
        "c" * 2000,
        "c" * 500,
    ]


def test_retrieving_loads_nothing_that_an_engine_cannot_stand_beside():
    code = (
        "import sys; from train.experts.retriever import Retriever; "
        "assert Retriever(['a b', 'c d']).passages('d c') == ['c d']; "
        "print([n for n in sys.modules if n.split('.')[0] in ('numba', 'llvmlite')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


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
from rollout.types import Verdict
from rollout.verifiers.registry import parse_grader
from train.data import read_rows
from train.experts.by_teacher import solve_by_teacher
from train.experts.teachers import EndpointTeacherSpec, repair_of

spec = EndpointTeacherSpec(base_url=os.environ["TEACHER"] + "/v1", model="t", concurrency=2)
found = solve_by_teacher(
    read_rows(Path(sys.argv[1])), spec, grader=parse_grader({"type": "answer"}),
    journal=Path(sys.argv[2]),
)
print(json.dumps(found.summary()))
"""
