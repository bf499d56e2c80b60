"""The bench of `more_examples`: its rows, and the page's numbers from cells."""

import json
from collections import Counter

import pytest
from conftest import ROOT

from benchmarks import more_examples as bench


def test_no_expert_shows_the_operation_and_the_other_rows_have_no_steps():
    rows = bench.training_rows(1)
    kinds = Counter((row["skill"], "expert_steps" in row) for row in rows)
    assert kinds == {
        (bench.WITHOUT, True): bench.NUM_EXPERTS,
        (bench.WITHOUT, False): bench.NUM_BARE,
        (bench.WITH, False): bench.NUM_BARE,
    }
    for row in rows:
        problem = row["messages"][-1]["content"]
        assert ("e" in problem) == (row["skill"] == bench.WITH)
        assert "expert_thoughts" not in row or "expert_steps" in row
    assert bench.training_rows(1) == rows != bench.training_rows(2)


def test_the_page_pairs_ways_by_seed(tmp_path):
    for arm, solved in (("continued", [(0, 1), (1, 1)]), ("weakness", [(1, 1), (1, 1)])):
        for seed, (with_e, without) in enumerate(solved):
            cell = {
                "arm": arm,
                "seed": seed,
                "steps": 4,
                "date": "2026-01-01",
                "commit": "abc",
                "planned": {} if arm == "continued" else {bench.WITH: 20, bench.WITHOUT: 4},
                "heldout": [
                    {"skill": bench.WITH, "solved": bool(with_e)},
                    {"skill": bench.WITHOUT, "solved": bool(without)},
                ],
            }
            (tmp_path / "4").mkdir(exist_ok=True)
            (tmp_path / "4" / f"{arm}-{seed}.json").write_text(json.dumps(cell))
    page = bench.render(tmp_path)
    assert "| continued | 0.750 | 0.500 | 1.000 | 0: 0.500, 1: 1.000 |  |" in page
    assert "| weakness | 1.000 | 1.000 | 1.000 | 0: 1.000, 1: 1.000 | 20, 4; 20, 4 |" in page
    # Differences 0.5 and 0: mean 0.25, and 12.706 * 0.35355 / 1.41421 = 3.1765 to either side.
    assert "- weakness - continued: +0.250 (-2.92" in page
    assert "- uniform - continued: 0 seeds, no interval" in page
    missing = page.rpartition("Missing: ")[2]
    assert "4/uniform-0" in missing and "4/weakness-2" in missing and "4/weakness-0" not in missing


def test_both_ways_take_as_many_steps_as_going_on():
    said = {arm: bench.settings(arm, 0, 5) for arm in bench.ARMS}
    assert "srl.max_steps=10" in said["continued"]
    for arm in ("uniform", "weakness"):
        assert "srl.max_steps=5" in said[arm]
        assert f"mode: {arm}" in said[arm][-1]
        assert "max_steps" not in said[arm][-1], "the second stage takes as many as the first"


def test_the_page_in_the_repository_is_that_of_its_cells():
    assert (ROOT / "docs" / "more_examples.md").read_text("utf-8") == bench.render()


@pytest.mark.parametrize("arm", bench.ARMS)
def test_a_jobs_settings_are_those_of_a_job(arm):
    from train.spec_file import load_spec

    spec = load_spec(bench.QUICKSTART / "job.yaml", bench.settings(arm, 2, 3))
    assert (spec.more_examples is None) == (arm == "continued")
    assert sum(stage.max_steps for stage in spec.reinforcement_stages.values()) == 6
