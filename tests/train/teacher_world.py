"""What tests of teachers share: rows, an honest teacher, the sums that have to come out."""

import dataclasses
import re

from servers import Answer, completion

from rollout.verifiers.registry import parse_grader
from train.data import Row
from train.experts.by_teacher import solve_by_teacher
from train.experts.collected import Collected
from train.experts.teachers import EndpointTeacherSpec

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
