"""What tests of the calls beside jobs share: rows, teachers, and the work done in this process."""

import json
from typing import Any

import pytest
from servers import Answer, completion

from serve.kit import Tenant
from serve_app import native_work, tasks
from serve_app.request_types import RequestError
from train.experts import digit_programs

MODEL = "ferrata-tiny"


CLUSTER = {"CPU": 2.0, "memory": 8e9}


def problems(count: int) -> list[dict]:
    """Problems only, of a family that the solver knows."""
    return [{"messages": [{"role": "user", "content": f"{n:04d}:1sr,2li"}]} for n in range(count)]


def here(service, caller, deadline_s: float, function: str, arguments) -> Any:
    """Run the work in this process instead of on Ray."""
    extra = {"cluster": CLUSTER} if function in tasks.SEES_CLUSTER else {}
    return getattr(native_work, function)(**arguments, **extra)


def uploaded(tenant: Tenant, rows: list[dict]) -> str:
    """The id of an uploaded file of rows."""
    return tenant.upload("".join(json.dumps(row) + "\n" for row in rows).encode())


def folders(whole) -> list:
    """What the calls left behind."""
    return list((whole.settings.data / "tasks").glob("task-*"))


def refusal(call) -> RequestError:
    """What a call is refused with."""
    with pytest.raises(RequestError) as caught:
        call()
    return caught.value


def sums_teacher(server, **fields) -> dict:
    """A body that asks `server` for the quickstart's problems with their answers."""
    rows = problems(6)
    for row in rows:
        row["reference_answer"] = digit_programs.solve(row["messages"][0]["content"])[2]
    teacher = {"type": "endpoint", "base_url": f"{server.url}/v1", "model": "t", "concurrency": 1}
    return {"rows": rows, "teacher": teacher | fields, "grader": {"type": "answer"}}


def honest_teacher(request) -> Answer:
    """Solves the problem that it is asked; ten tokens in, five out."""
    steps, _, answer = digit_programs.solve(request.json["messages"][1]["content"])
    return completion(f"1. {steps[0]}\n2. {steps[1]}\nAnswer: {answer}")
