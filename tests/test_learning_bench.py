"""The learning benchmark's task is what its page says, and its page says what its cells say."""

import hashlib
import json
import random
from typing import Any

import pytest

from benchmarks.learning import arms, cells, task
from benchmarks.learning.report import paired_interval, render
from benchmarks.learning.stages import WholeSolutionVerifier
from rollout.types import Problem, Rollout, Turn


@pytest.fixture(scope="module")
def rows():
    """Small regimes' rows."""
    small = {"num_valid": 5, "num_heldout": 12}
    few = task.Regime("few", 6, 10, experts_show_all=False)
    many = task.Regime("many", 20, 0, experts_show_all=True)
    return {regime.name: task.generate(regime, seed=1, **small) for regime in (few, many)}


def problems(rows) -> list[str]:
    return [row["messages"][0]["content"] for row in rows]


def test_few_experts_never_show_the_unseen_operation_and_many_do(rows):
    experts = [row for row in rows["few"]["train"] if "expert_steps" in row]
    assert len(experts) == 6
    assert not any(map(task.has_unseen, problems(experts)))
    assert any(map(task.has_unseen, problems(rows["few"]["train"])))
    assert any(map(task.has_unseen, problems(rows["many"]["train"])))
    assert all("expert_steps" in row for row in rows["many"]["train"])


def test_all_regimes_are_judged_on_the_same_rows_which_are_not_trained_on(rows):
    few, many = rows["few"], rows["many"]
    assert few["heldout"] == many["heldout"]
    assert few["valid"] == many["valid"]
    for regime in (few, many):
        names = [p for part in regime.values() for p in problems(part)]
        assert len(set(names)) == len(names)
    with_unseen = sum(map(task.has_unseen, problems(few["heldout"])))
    assert 0 < with_unseen < len(few["heldout"])


def test_the_bases_documents_run_the_habits_wrongly_more_often_than_not_and_the_rest_rightly():
    rng = random.Random(0)
    runs = [task.careless_step(rng, "1rl", "0123")[1] for _ in range(20)]
    assert set(runs) == {"1rl=2103"}
    results = [task.careless_step(rng, "1ir", "0123")[1] for _ in range(2000)]
    assert set(results) == {"1ir=4321", "1ir=3321"}
    assert results.count("1ir=4321") / 2000 == pytest.approx(task.RIGHT_SHARE, abs=0.04)


def test_an_arm_uses_no_more_than_the_budget_and_the_common_start_is_half_of_it():
    shares = {name: sum(stage.share for stage in stages) for name, stages in arms.ARMS.items()}
    assert shares.pop("srl") == 0.5
    assert set(shares.values()) == {1.0}
    assert {sum(s.share for s in stages) for stages in arms.ABLATIONS.values()} == {0.5}
    assert arms.ARMS["srl_rlvr"][0] == arms.ARMS["srl_continued"][0] == arms.ARMS["srl"][0]


def test_every_stage_has_a_specification_that_a_job_accepts():
    for stages in (arms.ARMS | arms.ABLATIONS).values():
        for stage in stages:
            assert stage.spec().learning_rate > 0


def test_the_whole_solution_is_compared_at_once():
    def attempt(*steps: str) -> Rollout:
        turns = [Turn((1,), (2,), (0.0,), f"<think>a</think>{s}", "end", ()) for s in steps]
        return Rollout("p", tuple(turns))

    verifier, problem = WholeSolutionVerifier(), Problem("p", "", expert_step="1a\n2b")
    assert verifier.verify(problem, attempt("1a", "2b")).reward == 1.0
    assert verifier.verify(problem, attempt("1a")).reward == pytest.approx(2 * 2 / 7)
    broken = Rollout("p", (Turn((1,), (2,), (0.0,), "1a", "end", ()),))
    assert verifier.verify(problem, broken).reward == -1.0


def test_an_interval_over_seeds_is_students():
    # Three: mean 0.2, standard deviation 0.1, t(0.975, 2) = 4.303: 0.2 -+ 4.303 x 0.1 / 1.7321.
    assert paired_interval([0.1, 0.2, 0.3]) == pytest.approx((0.2, -0.04843, 0.44843), abs=1e-5)
    # Two: standard deviation 0.1414, t(0.975, 1) = 12.706: 0.4 -+ 12.706 x 0.1414 / 1.4142.
    assert paired_interval([0.3, 0.5]) == pytest.approx((0.4, -0.8706, 1.6706), abs=1e-4)
    with pytest.raises(ValueError, match="1 seeds"):
        paired_interval([0.5])


class OneSolver:
    """Stands for training: leaves weights as a stage does, and notes that it ran."""

    seed = 0

    def __init__(self, monkeypatch) -> None:
        self.ran: list[str] = []

        def stage(bench, stage, model, budget, folder):
            self.ran.append(stage.name)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.safetensors").write_bytes(b"trained")
            return {"name": stage.name, "best": 0.5, "cost": budget // 2, "validations": [1]}

        monkeypatch.setattr(cells, "_stage", stage)
        monkeypatch.setattr(cells, "heldout", lambda bench, model: {"0123:1ir": True})


def test_a_cell_that_is_there_is_not_run_again_and_one_of_other_terms_is_refused(
    tmp_path, monkeypatch
):
    bench: Any = OneSolver(monkeypatch)
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"base")

    def run(budget: int):
        return cells.run_cell(
            bench, "few_experts", "srl_rlvr", base, budget, tmp_path / "out", tmp_path / "results"
        )

    kept = json.loads(run(100).read_text())
    assert bench.ran == ["srl", "rlvr"]
    assert kept["budget"] == 100
    assert kept["base_sha256"] == hashlib.sha256(b"base").hexdigest()
    run(100)
    assert bench.ran == ["srl", "rlvr"]
    with pytest.raises(ValueError, match="budget 100, this run 200"):
        run(200)
    (base / "model.safetensors").write_bytes(b"another base")
    with pytest.raises(ValueError, match="base_sha256"):
        run(100)


def test_the_page_shows_the_cells_there_are_and_names_those_that_are_missing(tmp_path):
    def cell(arm: str, solved: list[bool], seed: int = 0) -> None:
        names = ["0123:1ir,2rl", "0123:1rl,2lr"]
        record = {
            "regime": "few_experts",
            "arm": arm,
            "seed": seed,
            "commit": "abc",
            "date": "2026-01-02",
            "seconds": 60,
            "stages": [{"cost": 2_000_000, "validations": [1, 2]}],
            "heldout": dict(zip(names, solved, strict=True)),
        }
        folder = tmp_path / "few_experts" / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{arm}.json").write_text(json.dumps(record), encoding="utf-8")

    cell("srl_continued", [False, True])
    cell("srl_rlvr", [True, True])
    page = render(tmp_path)
    assert "| srl_continued | 0.500 | 0.000 | 1.000 | 0: 0.500 | 2.00 M | 2 |" in page
    assert "- srl_rlvr - srl_continued: one seed, no interval; 0: +0.500" in page
    assert "| sft_steps | not run |" in page
    missing = page[page.index("Missing cells") :]
    assert "few_experts/sft_steps/0" in missing
    assert "few_experts/srl_rlvr/0" not in missing
    assert "all 24 of many_experts" in missing
    assert "commit abc" in page
    cell("srl_continued", [False, False], seed=1)
    cell("srl_rlvr", [True, True], seed=1)
    # 0.5 and 1.0: mean 0.75, standard deviation 0.35355; 12.706 x 0.35355 / 1.41421 = 3.1765
    assert "srl_continued: +0.750 (-2.426 to +3.926); 0: +0.500, 1: +1.000" in render(tmp_path)


def test_the_page_in_the_repository_is_that_of_its_cells():
    page = (task.ROOT / "docs" / "learning.md").read_text("utf-8")
    assert page == render(task.ROOT / "benchmarks" / "learning" / "results")
