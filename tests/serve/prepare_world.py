"""What the tests of preparing share: rows, requests, and how a job is prepared."""

import json
from pathlib import Path

import pytest
from conftest import MODEL

from serve_app.prepare import Prepared, PrepareError, prepare
from train.experts import digit_programs

CLUSTER = {"CPU": 2.0, "memory": 8e9, "node:10.0.0.1": 1.0}
ANSWER = {"type": "answer", "pattern": "=(\\d{4})$"}
RFT = {"method": {"type": "reinforcement", "reinforcement": {"grader": ANSWER}}}
BASE = {"model": "ferrata-tiny", "training_file": "file-1", "seed": 1}


def problem(number: int) -> str:
    """Distinct digit programs."""
    return f"{number:04d}:1sr,2li,3ec"


def row(number: int, *, answer: bool = True, steps: bool = False) -> dict:
    """A row of a digit program, with what is asked for."""
    expert, thoughts, result = digit_programs.solve(problem(number))
    made: dict = {"messages": [{"role": "user", "content": problem(number)}]}
    if answer:
        made["reference_answer"] = result
    if steps:
        made |= {"expert_steps": expert, "expert_thoughts": thoughts}
    return made


def rows(start: int, count: int, **what: bool) -> list[dict]:
    """Many rows."""
    return [row(n, **what) for n in range(start, start + count)]


def write(path: Path, lines: list) -> Path:
    """A JSON Lines file; a text is written as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def run(folder: Path, training: list, cluster: dict | None = None, **request: object) -> Prepared:
    """Prepare a job; `validation` and `heldout` rows may ride in the request."""
    files = {"training": write(folder / "t.jsonl", training)}
    for use in ("validation", "heldout"):
        if use in request:
            files[use] = write(folder / f"{use}.jsonl", request.pop(use))  # type: ignore[arg-type]
    return prepare(BASE | request, folder / "job", files, str(MODEL), cluster or CLUSTER)


def fault(folder: Path, training: list, cluster: dict | None = None, **request) -> PrepareError:
    """What a job is refused with."""
    with pytest.raises(PrepareError) as caught:
        run(folder, training, cluster, **request)
    return caught.value


MIXED = [*rows(1000, 20, steps=True), *rows(2000, 60)]
