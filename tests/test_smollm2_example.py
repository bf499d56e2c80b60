"""The SmolLM2 example's rows: right experts' totals, no problem in two files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "smollm2"
STEMS = ("train", "valid", "heldout")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, list[dict]]:
    """The files that the generator writes."""
    out = tmp_path_factory.mktemp("smollm2")
    script = str(FOLDER / "generate.py")
    subprocess.run([sys.executable, script, "--out", str(out)], check=True)
    return {
        stem: [json.loads(line) for line in (out / f"{stem}.jsonl").read_text().splitlines()]
        for stem in STEMS
    }


def expression(row: dict) -> str:
    """`12 + 45 - 8`, from the question's text."""
    found = re.search(r": ([0-9+\- ]+) =", row["messages"][0]["content"])
    assert found
    return found.group(1)


def total_of(terms: str) -> int:
    """The sum of `12 + 45 - 8`."""
    return sum(int(term) for term in re.findall(r"[+-]?\d+", terms.replace(" ", "")))


def test_no_problem_stands_twice(rows):
    everything = [expression(row) for stem in STEMS for row in rows[stem]]
    assert len(everything) == 600 + 50 + 200
    assert len(set(everything)) == len(everything)


def test_answers_and_experts_running_totals_are_right(rows):
    for stem in STEMS:
        for row in rows[stem]:
            assert int(row["reference_answer"]) == total_of(expression(row))
    experts = [row for row in rows["train"] if "expert_steps" in row]
    assert len(experts) == 60
    assert not any("expert_steps" in row for stem in STEMS[1:] for row in rows[stem])
    for row in experts:
        terms = expression(row).split(" ")
        assert len(row["expert_steps"]) == len(terms) // 2
        total = terms[0]
        for i, step in enumerate(row["expert_steps"]):
            sum_text = f"{total} {terms[2 * i + 1]} {terms[2 * i + 2]}"
            total = str(total_of(sum_text))
            assert step == f"{sum_text} = {total}"
        assert total == row["reference_answer"]
