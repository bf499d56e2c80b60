"""The generation bench: its task, its sets, and the page's numbers from cells."""

import json
import random

import pytest

from benchmarks.generation import task
from benchmarks.generation.report import RESULTS, accuracy, difference, read_cells, render
from train.experts.draft import read_draft


def test_a_right_document_is_a_solution_and_a_careless_one_forgets_the_last_digit() -> None:
    # swap the first two, +1 each; reverse, rotate left; 9-complement, swap the ends
    problem = "1235:1si,2rl,3ce"
    text = task.document(problem)
    assert text == "1. si 2135 3246\n2. rl 6423 4236\n3. ce 5763 3765\nAnswer: 3765"
    assert read_draft(text).answer == "3765"

    class Careless(random.Random):
        def random(self) -> float:
            return 0.99

    wrong = task.document(problem, Careless())
    # 3246 keeps the 5 of 2135; the complement of 4235, 5764, keeps its 5
    assert wrong == "1. si 2135 3245\n2. rl 5423 4235\n3. ce 5765 5765\nAnswer: 5765"


def test_sets_hold_every_kind_alike_and_share_no_problem() -> None:
    taken: set[str] = set()
    one, other = task.rows(1, "one", 3, taken), task.rows(1, "other", 3, taken)
    assert [sum(r.item["skill"] == kind for r in one) for kind in task.KINDS] == [3, 3, 3, 3]
    assert not {r.problem_text for r in one} & {r.problem_text for r in other}
    assert all(task.kind_of(r.problem_text) == r.item["skill"] for r in one)
    assert len({r.id for r in one}) == 12


def test_the_page_pairs_arms_by_seed_and_names_missing_cells(tmp_path) -> None:
    marks = {"uniform": [(1, 0), (1, 1)], "none": [(0, 0), (1, 0)]}
    for arm, seeds in marks.items():
        for seed, (plain, both) in enumerate(seeds):
            held = {"1:1sr": plain, "1:1ic": both, "1:1ir": plain, "1:1cr": both}
            told = {"arm": arm, "seed": seed, "date": "2026-01-01", "heldout": held}
            if arm != "none":
                told |= {"examples": dict.fromkeys(task.KINDS, 1), "standings": {}}
            file = tmp_path / f"seed-{seed}" / f"{arm}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(told))
    cells = read_cells(tmp_path)
    assert accuracy(cells["uniform", 0]) == 0.5 and accuracy(cells["uniform", 0], "both") == 0.0
    assert difference(cells, "uniform", "none") == pytest.approx({0: 0.5, 1: 0.5})
    page = render(tmp_path)
    assert "- uniform - none: +0.500 (+0.500 to +0.500); 0: +0.500, 1: +0.500" in page
    assert "| weakness | not run |" in page
    assert "weakness/0, none/1" not in page and "weakness/1" in page


def test_the_page_in_the_repository_is_that_of_its_cells() -> None:
    assert (task.ROOT / "docs" / "generation.md").read_text("utf-8") == render(RESULTS)
