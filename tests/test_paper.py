"""The paper's run as a job: a valid specification, and a converter of its data.

The rows are written by us in the form of s1K-1.1's.
"""

import importlib.util
import json
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from train.data import read_rows
from train.spec_file import load_spec, parse_spec

FOLDER = ROOT / "examples" / "paper"
SOLUTION = (
    "To find the sum, follow these steps:\n\n"
    "1. **Pair the numbers**:\n   - First and last: \\(1 + 9 = 10\\)\n   - and so on.\n\n"
    "2. **Count the pairs**: there are four, and 5 is left.\n\n"
    "3. **Add**: \\(4 \\cdot 10 + 5 = 45\\).\n\n"
    "Thus the sum is \\(\\boxed{45}\\)."
)


def load_converter():
    spec = importlib.util.spec_from_file_location("paper_convert", FOLDER / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


convert = load_converter()


def raw(number: int = 0, **changes: str) -> dict[str, str]:
    """A row with the columns of s1K-1.1 that matter."""
    return {
        "question": f"What is the sum of the numbers from 1 to 9? ({number})",
        "solution": "45",
        "deepseek_thinking_trajectory": "Okay, so I need to add them up. Wait, pairs!",
        "deepseek_attempt": SOLUTION,
        "deepseek_grade": "Yes",
    } | changes


def test_the_specification_is_valid_and_holds_the_papers_values():
    parse_spec(yaml.safe_load((FOLDER / "job.yaml").read_text()), source="job.yaml")
    spec = load_spec(FOLDER / "job.yaml")
    assert spec.model == "Qwen/Qwen2.5-7B-Instruct"
    assert spec.srl is not None
    assert spec.rlvr is not None
    assert (spec.srl.learning_rate, spec.srl.group_size, spec.srl.temperature) == (5e-7, 8, 1.0)
    assert (spec.srl.groups_per_step, spec.srl.max_grad_norm) == (512, 1.0)
    assert (spec.srl.targets, spec.srl.title_context) == ("all_but_last", True)


def test_a_converted_row_is_read_with_the_papers_steps_titles_and_answer(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(convert.convert_row(raw())))
    (row,) = read_rows(tmp_path / "train.jsonl")
    assert row.expert_titles == ("Pair the numbers", "Count the pairs", "Add")
    assert row.reference_answer == "45"
    step_end = load_spec(FOLDER / "job.yaml").prompt.step_end
    assert not any(step_end in step for step in row.expert_steps)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deepseek_grade": "No"}, "graded wrong"),
        ({"deepseek_attempt": "It is \\(\\boxed{45}\\)."}, "has no numbered steps"),
        ({"deepseek_attempt": "1. **A**: \\(\\boxed{45}\\)."}, "has a single step"),
        ({"deepseek_attempt": "1. **A**: a\n2. **B**: 45"}, "boxes no answer"),
        ({"deepseek_attempt": "1. a\n3. \\(\\boxed{45}\\)"}, "line 2 of its text: step 3"),
    ],
)
def test_a_row_that_the_method_cannot_use_is_left_out_with_its_reason(changes, reason):
    with pytest.raises(convert.RowLeftOutError, match=reason):
        convert.convert_row(raw(**changes))


def test_the_command_writes_disjoint_files_and_tells_what_it_left_out(tmp_path):
    rows = [raw(n) for n in range(8)] + [raw(9, deepseek_grade="No")]
    (tmp_path / "s1k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, str(FOLDER / "convert.py"), str(tmp_path / "s1k.jsonl")]
    command += ["--out", str(tmp_path), "--num-valid", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "left out: 1 rows, because the solution was graded wrong" in done.stdout
    train, valid = (read_rows(tmp_path / f"{name}.jsonl") for name in ("train", "valid"))
    assert (len(train), len(valid)) == (5, 3)
    assert len({row.problem_text for row in [*train, *valid]}) == 8
