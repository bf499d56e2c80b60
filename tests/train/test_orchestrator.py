"""Solutions by a teacher over real HTTP: honest, lying, stalling, garbled, dying half-way."""

import collections
import itertools
import json
import math

import pytest
from pydantic import ValidationError
from servers import Answer, completion, serve
from teacher_world import (
    asked_number,
    check_sum,
    collect,
    honest,
    row,
    rows,
    solution,
    spec,
)

from rollout.types import Verdict
from rollout.verifiers.registry import parse_grader
from train.experts import orchestrator
from train.experts.by_teacher import NothingToAskError, solve_by_teacher
from train.experts.solver import with_solution
from train.experts.teachers import EndpointTeacherSpec, repair_of


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
