"""The selection benchmark's arithmetic, by hand; its page says what its cells say."""

import json
import random

import pytest
from conftest import ROOT

from benchmarks.selection import bank, timing
from benchmarks.selection.against import full_scores, kendall_tau, select
from benchmarks.selection.checkpoints import CHECKPOINTS, problems, sample_document
from benchmarks.selection.report import BEGIN, END, render, write_report
from train.experts import digit_programs

RESULTS = ROOT / "benchmarks" / "selection" / "results"
PAGE = ROOT / "docs" / "selection.md"


def test_kendalls_tau_counts_pairs_and_leaves_ties_out_of_both_directions():
    one = {"a": 4, "b": 3, "c": 2, "d": 1}
    assert kendall_tau(one, one) == 1.0
    assert kendall_tau(one, {name: -value for name, value in one.items()}) == -1.0
    # Of six pairs one is turned round: (5 - 1) / 6.
    assert kendall_tau(one, one | {"a": 3, "b": 4}) == pytest.approx(4 / 6)
    # One pair is tied in the second: 5 / sqrt(6 * 5).
    assert kendall_tau(one, one | {"a": 3}) == pytest.approx(5 / 30**0.5)


def draws(num_solved: int, num_draws: int, parameters: int) -> list[dict]:
    """Draws in which the first problems are solved by every sample, and none of the others."""
    solved = [bank.K * (i < num_solved) for i in range(64)]
    cell = {"solved": solved, "tokens": [10] * 64, "mflops": [2.0] * 64, "cpu_seconds": 6.4}
    return [cell | {"draw": n, "num_parameters": parameters} for n in range(num_draws)]


def test_a_selection_is_judged_against_the_full_evaluation():
    known = {"good": draws(60, 2, 9), "fair": draws(30, 2, 5), "poor": draws(0, 2, 7)}
    assert full_scores(known) == {"good": 60 / 64, "fair": 30 / 64, "poor": 0.0}
    found = select(known, 1)
    assert (found.chosen, found.regret, found.tau) == ("good", 0.0, 1.0)


def test_a_selection_ends_when_the_best_is_told_apart_and_at_a_third_otherwise():
    # Eight of eight and none of eight: 0.676-1.000 against 0.000-0.324. Three times 8 of 64.
    found = select({"good": draws(64, 2, 9), "bad": draws(0, 2, 5), "poor": draws(0, 2, 7)}, 1)
    assert found.told_apart
    assert found.share == pytest.approx(24 / 192)
    # Two alike: 8 more problems each, and 16 more each would make 72, above 64, which is a third.
    found = select({"good": draws(64, 2, 9), "same": draws(64, 2, 5), "poor": draws(0, 2, 7)}, 1)
    assert not found.told_apart
    assert found.share == pytest.approx(40 / 192)


def test_a_wrong_choice_costs_what_the_full_evaluation_says():
    known = {"good": draws(60, 2, 9), "fair": draws(30, 2, 5)}
    known["good"][1], known["fair"][1] = known["fair"][1], known["good"][1]
    found = select(known, 1)
    assert (found.chosen, found.regret, found.tau) == ("fair", 30 / 64, -1.0)


def test_the_checkpoints_documents_solve_their_problems_and_the_problems_differ():
    rng = random.Random(0)
    for _ in range(50):
        context, target = sample_document(rng)
        problem = context.split("<|user|>")[1].split("<|assistant|>")[0]
        steps, _, _ = digit_programs.solve(problem)
        written = [part for part in (context + target).replace("<|end|>", "\n").split("\n") if part]
        assert written[-1].split("</think>")[-1] in steps
    texts = [row["messages"][0]["content"] for row in problems(64, 7)]
    assert len(set(texts)) == 64
    assert {text.count(",") + 1 for text in texts} == {2, 4, 5, 6}


def test_two_checkpoints_differ_only_in_what_they_drew():
    by_name = {one.name: one for one in CHECKPOINTS}
    a, b = by_name["m-150-a"], by_name["m-150-b"]
    assert (a.steps, a.architecture) == (b.steps, b.architecture)
    assert a.seed != b.seed


def write_timing(folder, seconds_of):
    """Cells of every size and length whose seconds a function gives."""
    for size in (*timing.CALIBRATION_SIZES, *timing.UNSEEN_SIZES):
        runs = []
        for phase in timing.PHASES:
            for length in (*timing.CALIBRATION_LENGTHS, *timing.UNSEEN_LENGTHS):
                flops, tokens = 1e4 * size.width**2 * length, 64.0 * length
                seconds = seconds_of(size, length, flops, tokens)
                run = {"flops": flops, "tokens": tokens, "steps": length, "seconds": seconds}
                runs.append({"phase": phase, "length": length, **run})
        record = {"layers": size.layers, "width": size.width, "runs": runs}
        (folder / "timing").mkdir(exist_ok=True)
        (folder / "timing" / f"{size}.json").write_text(json.dumps(record))


def test_the_cost_model_is_judged_on_cells_that_it_did_not_see(tmp_path):
    def seconds(size, length, flops, tokens):
        slow = 2.0 if size in timing.UNSEEN_SIZES and length == 192 else 1.0
        return slow * (1e-10 * flops + 1e-5 * tokens)

    write_timing(tmp_path, seconds)
    _, found = timing.predictions(tmp_path)
    # One unseen size at five lengths, three seen sizes at two unseen ones, in two phases.
    assert len(found) == 2 * (5 + 3 * 2)
    for one in found:
        expected = 0.5 if (one.size, one.length) == ("4x128", 192) else 1.0
        assert one.ratio == pytest.approx(expected, rel=1e-6)
    unseen = {(one.size, one.length): one.unseen for one in found}
    assert unseen["4x128", 192] == "size and length"
    assert (unseen["4x128", 48], unseen["2x64", 144]) == ("size", "length")


def test_a_page_without_its_marks_is_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="holds no measured part"):
        write_report(RESULTS, page)


def test_the_page_says_what_its_cells_say():
    page = PAGE.read_text(encoding="utf-8")
    assert page[page.index(BEGIN) : page.index(END) + len(END)] == render(RESULTS)


def test_the_cost_model_keeps_within_a_quarter_on_what_it_was_not_fitted_on():
    _, found = timing.predictions(RESULTS)
    unseen = {(one.phase, one.unseen) for one in found}
    parts = ("size", "length", "size and length")
    assert unseen == {(phase, part) for phase in timing.PHASES for part in parts}
    assert all(0.75 <= one.ratio <= 1.25 for one in found)


def test_a_timed_cell_is_the_quickest_of_its_rounds_with_the_work_of_that_time():
    from train.selection.cost import Work

    times = [(3.0, Work(prompt_tokens=9), 7), (2.0, Work(prompt_tokens=5), 4), (2.5, Work(), 9)]
    cell = timing._cell("sampling", 48, times, lambda work: (8.0, work.prompt_tokens))
    assert (cell["seconds"], cell["tokens"], cell["steps"]) == (2.0, 5, 4)
    assert cell["all_seconds"] == [3.0, 2.0, 2.5]
    for path in (RESULTS / "timing").glob("*.json"):
        for run in json.loads(path.read_text(encoding="utf-8"))["runs"]:
            assert len(run["all_seconds"]) == timing.ROUNDS * timing.REPEATS
            assert min(run["all_seconds"]) == pytest.approx(run["seconds"], abs=1e-4)
