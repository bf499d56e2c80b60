"""Counted work against numbers worked by hand, estimates, and the order of candidates."""

import pytest

from rollout.collector import Collector, collect_batch
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
from train.selection.ranking import Candidate, Measurement
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
    # Each of 4 rounds asks for at most twice the groups wanted: 320 * 2 * 4.
    assert stage_rollouts(stage) == (320, 2560)


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


def test_measuring_for_more_examples_and_a_second_srl_stage_are_parts_of_their_own():
    rows = {"training": [row(1, "abc", "de"), row(2)], "validation": [row(2)]}
    more = {"num_examples": 3, "num_problems": 9, "num_samples": 4, "max_steps": 1}
    spec = job(srl=SRLSpec(**SMALL), more_examples=more)
    parts = {part.name: part for part in estimate_parts(spec, rows, MODEL, render, len)}
    assert list(parts) == ["srl", "more_examples", "srl_2", "validation"]
    one, two = parts["srl"].expected, parts["srl_2"].expected
    assert one is not None and two is not None
    assert two.trained_tokens == pytest.approx(one.trained_tokens / 2)  # one step instead of two
    measured = parts["more_examples"].expected
    assert measured is not None
    # Two rows are there, four samples of each. "<think></think>abc" and its end are 19 tokens here,
    # the second step's 18: a whole solution is 37, a step 18.5.
    assert measured.sampled_tokens == pytest.approx(8 * (37 + 18.5))
    assert measured.trained_tokens == 0
    at_most = parts["more_examples"].at_most
    assert 0 < measured.sampling_flops < at_most.sampling_flops
    assert at_most.trained_tokens == 0
    # Six steps in one generation, and six alone: 15 + 1 + 1 tokens each, and the last prompt of a
    # step is the problem and five characters.
    rows["training"] = [row(1, *"abcdef")]
    limits = {"protocol": "single", "max_tokens": 110}
    spec = job(srl=SRLSpec(**SMALL), more_examples=more, sampling=limits)
    (part,) = (
        p for p in estimate_parts(spec, rows, MODEL, render, len) if p.name == "more_examples"
    )
    assert part.expected is not None
    assert part.expected.sampled_tokens == pytest.approx(4 * 6 * 17 + 4 * 6 * 17)
    assert part.expected.prompt_tokens == pytest.approx(4 * 2 + 4 * sum(range(2, 8)))
    assert part.at_most.prompt_tokens >= part.expected.prompt_tokens
    assert part.at_most.sampled_tokens >= part.expected.sampled_tokens


def test_no_collector_and_no_policy_can_take_more_than_the_estimate_says_at_most():
    """The real collector, no group kept; a policy that thinks as long as it may, or not at all."""
    rows = {"training": [row(1, "abc", "de"), row(2, "a" * 20, "b")], "validation": [row(2)]}
    stage = {"max_steps": 3, "groups_per_step": 5, "group_size": 2, "max_sampling_rounds": 3}
    spec = job(rlvr=RLVRSpec(**stage), srl=SRLSpec(**stage))
    bounds = {part.name: part.at_most for part in estimate_parts(spec, rows, MODEL, render, len)}
    # 3 steps of 3 rounds of 2 * 5 groups of 2: 180 rollouts. A turn samples 30 at most, also where
    # the steps before it were short; prompts grow by 30 a turn where they were long.
    assert bounds["rlvr"].sampled_tokens == 180 * 4 * 30
    assert bounds["rlvr"].prompt_tokens == 180 * (2 + 32 + 62 + 92)
    assert bounds["srl"].prompt_tokens == 180 * 22  # the second step of the second row
    for name, num_turns in (("rlvr", 4), ("srl", 1)):
        for step_length in (1, 30):
            prompt = 2 if name == "rlvr" else 22
            lengths = [(prompt + turn * step_length, 30) for turn in range(num_turns)]
            seen = worst_stage(spec, lengths)
            assert seen["rollouts"] > 3 * 5 * 2 * 5  # more than one round and four refills allow
            at_most = bounds[name]
            assert seen["prompt"] <= at_most.prompt_tokens
            assert seen["sampled"] <= at_most.sampled_tokens
            assert seen["flops"] <= at_most.sampling_flops


def worst_stage(spec: JobSpec, lengths: list[tuple[int, int]]) -> dict[str, float]:
    """What the collector has sampled when no group of a stage carries a signal."""
    stage, seen = spec.rlvr, {"rollouts": 0, "prompt": 0, "sampled": 0, "flops": 0.0}
    assert stage is not None
    turns = tuple(Turn((0,) * p, (0,) * s, (0.0,) * s, "", "end", ((0, s),)) for p, s in lengths)
    collector = Collector(
        [Problem("p", "p")],
        groups_per_batch=stage.groups_per_step,
        std_threshold=0.0,
        max_rounds=stage.max_sampling_rounds,
        seed=0,
    )

    def generate(problems, num_rollouts, sampling, seed):
        for _ in range(len(problems) * num_rollouts):
            seen["rollouts"] += 1
            for p, s in lengths:
                work = turn_work(MODEL, p, s, trained=False)
                seen["prompt"] += work.prompt_tokens
                seen["sampled"] += work.sampled_tokens
                seen["flops"] += work.sampling_flops
        return [[Rollout("p", turns)] * num_rollouts for _ in problems]

    for step in range(stage.max_steps):
        kept = collect_batch(
            collector,
            generate,
            lambda pairs: [Verdict(0.0)] * len(pairs),
            group_size=stage.group_size,
            sampling=spec.sampling_spec(1.0),
            seed=step,
        )
        assert kept == []
    return seen


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


def test_a_candidate_tells_its_figures_under_how_they_were_come_by():
    shown = candidate("b", 0.7, 9).as_json()
    assert (shown["score"], shown["measured"]["pass_at_4"]) == (0.7, 0.7)
    assert shown["counted"]["flops_per_problem"] == 9
    unmeasured = Candidate("d", reason="not measured: too long").as_json()
    assert (unmeasured["score"], unmeasured["measured"]) == (None, None)
    assert unmeasured["reason"] == "not measured: too long"
