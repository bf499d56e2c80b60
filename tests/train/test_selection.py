"""Counted work against numbers worked by hand, estimates, and the order of candidates."""

import pytest

from rollout.types import Problem, Rollout, RolloutGroup, Turn, Verdict
from train.auto.facts import ModelFacts
from train.data import Row
from train.selection.cost import (
    TurnLengths,
    Work,
    expert_turns,
    forward_flops,
    rollout_work,
    stage_rollouts,
    step_work,
    turn_work,
)
from train.selection.estimate import Throughput, estimate, estimate_parts
from train.selection.probe import summarise
from train.selection.race import as_answer, race, rounds
from train.selection.ranking import Candidate, Measurement, pareto_front, rank
from train.spec import JobSpec, RLVRSpec, SRLSpec

# 1,000 parameters, 2 layers of width 10: 80 operations per token and position attended to.
MODEL = ModelFacts(1000, 2, 10, 1, 10, 50, 256)


def row(number: int, *steps: str) -> Row:
    """A problem of two characters with these expert steps."""
    messages = ({"role": "user", "content": f"p{number}"},)
    return Row(f"train:{number}", messages, "a", steps)


def render(row: Row, steps) -> str:
    """The problem and the steps, one character each."""
    return row.problem_text + "".join(steps)


def test_operations_are_two_per_parameter_and_token_and_four_per_layer_unit_and_position():
    assert forward_flops(MODEL, 10, 5) == 10 * (2 * 1000 + 4 * 2 * 10 * 5)


def test_training_takes_three_forward_passes_and_sampling_one():
    sampled = turn_work(MODEL, 6, 4, trained=False)
    assert sampled.sampling_flops == forward_flops(MODEL, 10, 5)
    assert (sampled.training_flops, sampled.trained_tokens) == (0, 0)
    trained = turn_work(MODEL, 6, 4, trained=True)
    assert trained.training_flops == 3 * trained.sampling_flops
    assert (trained.prompt_tokens, trained.sampled_tokens, trained.trained_tokens) == (6, 4, 10)


def test_every_step_of_a_stepwise_rollout_reads_the_earlier_ones_again():
    tags = len("<think></think>") + 1  # and the end of the step
    measured = expert_turns([row(1, "abc", "de"), row(2)], render, len, "stepwise")
    assert measured == [TurnLengths(((2, tags + 3), (5, tags + 2)))]
    single = expert_turns([row(1, "abc", "de")], render, len, "single")
    assert single == [TurnLengths(((2, 2 * tags + 5),))]


def test_a_rollout_is_the_mean_over_rows_and_a_step_the_mean_over_steps():
    measured = [TurnLengths(((2, 2), (4, 2))), TurnLengths(((8, 2),))]
    assert rollout_work(MODEL, measured, trained=False).prompt_tokens == (6 + 8) / 2
    assert step_work(MODEL, measured).prompt_tokens == pytest.approx((2 + 4 + 8) / 3)


def test_a_stage_samples_at_least_one_round_and_at_most_what_its_rounds_allow():
    stage = RLVRSpec(max_steps=10, groups_per_step=4, group_size=8, max_sampling_rounds=4)
    assert stage_rollouts(stage) == (320, 320 * 7)


def job(**stages) -> JobSpec:
    """A small job."""
    return JobSpec.model_validate(
        {
            "model": "m",
            "data": {"train": "t", "valid": "v", "heldout": "h"},
            "grader": {"type": "answer"},
            "sampling": {"max_tokens": 30, "max_turns": 4},
            "rollout": {"max_model_len": 128},
            **stages,
        }
    )


SMALL = {"max_steps": 2, "groups_per_step": 2, "group_size": 2, "eval_interval": 1}


def test_an_estimate_names_every_part_of_a_job_and_bounds_what_it_expects():
    rows = {"training": [row(1, "abc", "de")], "validation": [row(2)], "heldout": [row(3)] * 5}
    spec = job(srl=SRLSpec(**SMALL), rlvr=RLVRSpec(**SMALL))
    parts = estimate_parts(spec, rows, MODEL, render, len)
    assert [part.name for part in parts] == ["srl", "rlvr", "validation", "heldout"]
    for part in parts:
        assert part.expected is not None
        assert 0 < part.expected.sampling_flops < part.at_most.sampling_flops
    answer = estimate(parts, Throughput(100.0, 50.0, 7))
    whole = sum((part.expected for part in parts if part.expected), Work())
    assert answer["tokens"]["expected"]["sampled"] == round(whole.sampled_tokens)
    assert answer["device_seconds"] == round(
        whole.sampled_tokens / 100 + whole.trained_tokens / 50, 1
    )
    assert "7 steps" in answer["basis"]["device_seconds"]
    assert answer["price"] is None


def test_what_is_not_known_is_null_with_its_reason():
    rows = {"training": [row(1)], "validation": [row(2)]}
    answer = estimate(estimate_parts(job(rlvr=RLVRSpec(**SMALL)), rows, MODEL, render, len), None)
    assert answer["tokens"]["expected"] is None
    assert answer["flops"]["at_most"]["total"] > 0
    assert answer["device_seconds"] is None
    assert "no job of this model has run here" in answer["basis"]["device_seconds"]


def group(*rewards: float | None) -> RolloutGroup:
    """One rollout of one turn, 6 tokens in and 4 out, for each reward; None: no verdict."""
    turn = Turn((0,) * 6, (0,) * 4, (0.0,) * 4, "x", "end", ((0, 4),))
    verdicts = tuple(None if r is None else Verdict(r) for r in rewards)
    return RolloutGroup(Problem("p", "p"), (Rollout("p", (turn,)),) * len(rewards), verdicts)


def test_a_probe_reports_what_was_sampled_and_leaves_out_what_was_not_judged():
    seen = summarise([group(1, 0), group(0, 0), group(1, None)], MODEL, 2, 1.5)
    assert (seen.num_problems, seen.pass_at_k, seen.sampled) == (2, 0.5, 0.25)
    assert seen.tokens_per_problem == 20
    assert seen.flops_per_problem == 2 * forward_flops(MODEL, 10, 5)


def test_a_probe_without_a_verdict_is_an_error():
    with pytest.raises(RuntimeError, match="judged none"):
        summarise([group(None)], MODEL, 1, 1.0)


def candidate(name: str, score: float, flops: float) -> Candidate:
    """A measured candidate."""
    return Candidate(name, 10, Measurement(8, 4, score, score / 2, 50.0, flops, 3.0))


def test_the_better_comes_first_then_the_cheaper_and_the_unmeasured_last():
    unmeasured = Candidate("d", reason="not measured: too long")
    ranked = rank(
        [unmeasured, candidate("a", 0.5, 9), candidate("b", 0.7, 9), candidate("c", 0.5, 1)]
    )
    assert [each.model_id for each in ranked] == ["b", "c", "a", "d"]
    shown = [each.as_json() for each in ranked]
    assert (shown[0]["score"], shown[0]["measured"]["pass_at_4"]) == (0.7, 0.7)
    assert shown[0]["counted"]["flops_per_problem"] == 9
    assert (shown[-1]["score"], shown[-1]["measured"]) == (None, None)


def seen(score: float, *, num: int = 32, flops: float = 9.0, step: float | None = None):
    """What a probe measured."""
    return Measurement(num, 4, score, score / 2, 50.0, flops, 3.0, step)


def test_where_nothing_is_solved_the_step_reward_decides_and_then_the_cost():
    models = [
        Candidate("dear", 10, seen(0.0, flops=9, step=0.4)),
        Candidate("cheap", 10, seen(0.0, flops=1, step=0.4)),
        Candidate("far", 10, seen(0.0, flops=1, step=0.1)),
    ]
    ranked = rank(models)
    assert [each.model_id for each in ranked] == ["cheap", "dear", "far"]
    answer = as_answer(ranked)
    assert answer[0]["reason"] is None
    assert answer[1]["reason"] == "no better than cheap, at 9 times its operations per problem"
    assert "a step reward of 0.100, against 0.400 of cheap" in answer[2]["reason"]


def test_the_front_holds_whom_nobody_beats_in_both():
    models = [
        Candidate("best", 10, seen(0.9, flops=9)),
        Candidate("cheap", 10, seen(0.5, flops=1)),
        Candidate("beaten", 10, seen(0.5, flops=2)),
        Candidate("unseen"),
    ]
    assert pareto_front(models) == {"best", "cheap"}
    reasons = {each["model_id"]: each["reason"] for each in as_answer(rank(models))}
    # Wilson at 16 and 29 of 32, by hand.
    assert reasons["cheap"] == (
        "pass@4 0.500 (0.336-0.664, 32 problems), against 0.900 (0.758-0.968, 32 problems) of best"
    )


def test_a_race_looks_at_all_briefly_and_closely_at_those_that_may_win():
    scores = {"a": 0.9, "b": 0.85, "c": 0.8, "d": 0.4, "e": 0.0}
    asked: list[tuple[str, int]] = []

    def look(model: str, num_problems: int) -> Candidate:
        asked.append((model, num_problems))
        return Candidate(model, 10, seen(scores[model], num=num_problems))

    assert rounds(64) == [8, 16, 32, 64]
    assert rounds(5) == [5]
    ranked = race(list(scores), look, 64)
    assert [each.model_id for each in ranked] == ["a", "b", "c", "d", "e"]
    by_size = {size: [m for m, n in asked if n == size] for size in rounds(64)}
    assert by_size[8] == ["a", "b", "c", "d", "e"]
    assert by_size[16] == ["a", "b", "c"]
    assert by_size[32] == by_size[64] == ["a", "b"]
    assert sum(n for _, n in asked) == 280 < 5 * 64
    asked.clear()
    assert race(["a"], look, 64)[0].model_id == "a"
    assert asked == [("a", 64)]


def test_a_race_ends_when_one_is_surely_best_or_none_can_be_measured():
    asked: list[tuple[str, int]] = []

    def look(model: str, num_problems: int) -> Candidate:
        asked.append((model, num_problems))
        if model == "broken":
            return Candidate(model, reason="not measured: too large")
        return Candidate(model, 10, seen(1.0 if model == "good" else 0.0, num=num_problems))

    ranked = race(["bad", "broken", "good"], look, 64)
    assert [each.model_id for each in ranked] == ["good", "bad", "broken"]
    assert {n for _, n in asked} == {8}, "0 of 8 and 8 of 8 do not overlap"
    assert as_answer(ranked)[2]["reason"] == "not measured: too large"
    alone = race(["broken", "broken"], look, 64)
    assert all(each.measured is None for each in alone)
