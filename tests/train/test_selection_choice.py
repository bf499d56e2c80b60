"""Limits, halving, time model and Pareto front, against numbers worked by hand."""

import pytest

from train.selection.budget import training_times
from train.selection.catalogue import (
    Entry,
    Limits,
    NoCandidateError,
    merge,
    read_catalogue,
    within_limits,
)
from train.selection.cost import Work
from train.selection.estimate import Throughput
from train.selection.halving import NothingMeasuredError, ProbeError, Seen, halve
from train.selection.prediction import (
    Point,
    Run,
    device_price,
    fit,
    pareto_front,
    serving_price_per_million,
)
from train.selection.ranking import Measurement
from train.selection.selector import DynamicModelSelector
from train.selection.srl_probe import SRLGain


def entry(name, **fields):
    return Entry(name=name, path=f"/{name}", **fields)


def test_each_limit_names_what_it_removed_with_both_numbers():
    entries = [
        entry("small", num_parameters=2**26, licence="MIT", context_tokens=64, latency_ms=1.0),
        entry("big", num_parameters=5 * 2**26, licence="MIT"),
        entry("closed", num_parameters=10, licence="other"),
        entry("silent", num_parameters=10),
        entry("slow", num_parameters=10, licence="MIT", latency_ms=9.0),
        entry("short", num_parameters=10, licence="MIT", latency_ms=1.0, context_tokens=32),
        entry("dear", num_parameters=10, licence="MIT", latency_ms=1.0, context_tokens=64),
        entry("long", num_parameters=10, licence="MIT", latency_ms=1.0, context_tokens=64),
    ]
    limits = Limits(
        max_memory_gib=1,
        licences=("MIT",),
        max_latency_ms=5,
        min_context_tokens=64,
        max_cost=3,
        max_device_hours=2,
    )
    prices = {"small": 1.0, "short": 1.0, "dear": 3.0}
    entries = [e.model_copy(update={"device_price_per_hour": prices.get(e.name)}) for e in entries]
    hours = dict.fromkeys(("small", "big", "slow", "short"), 1.0) | {"dear": 1.5, "long": 2.5}
    left, removed = within_limits(entries, limits, hours)
    assert [one.name for one in left] == ["small"]  # 2^26 * 16 bytes: just fits
    assert {one.name: (one.limit, one.reason) for one in removed} == {
        "big": ("max_memory_gib", "5 GiB to train it, max_memory_gib is 1.0"),
        "closed": ("licences", "its licence is other, allowed are MIT"),
        "silent": ("licences", "its licence is not known, allowed are MIT"),
        "slow": ("max_latency_ms", "9 ms per token, max_latency_ms is 5.0"),
        "short": ("min_context_tokens", "32 tokens of context, min_context_tokens is 64"),
        "dear": ("max_cost", "4.5 to train it, max_cost is 3.0"),
        "long": (
            "max_device_hours",
            "2.5 device-hours to train it, max_device_hours is 2.0",
        ),
    }


def test_memory_is_compared_before_it_is_rounded():
    entries = [entry("fits", num_parameters=2**26), entry("one_more", num_parameters=2**26 + 1)]
    left, removed = within_limits(entries, Limits(max_memory_gib=1))
    assert [one.name for one in left] == ["fits"]
    assert removed[0].reason == "1.00000001 GiB to train it, max_memory_gib is 1.0"


def test_no_candidate_left_lists_every_removal():
    with pytest.raises(NoCandidateError, match=r"a: 5 parameters, max_parameters is 3; b: .*7"):
        entries = [entry("a", num_parameters=5), entry("b", num_parameters=7)]
        within_limits(entries, Limits(max_parameters=3))


def test_a_catalogue_is_read_from_yaml_and_refuses_a_name_twice(tmp_path):
    file = tmp_path / "catalogue.yaml"
    file.write_text("- {name: a, path: x/a, licence: MIT, device_price_per_hour: 2}\n")
    (one,) = read_catalogue(file)
    assert (one.licence, one.device_price_per_hour) == ("MIT", 2.0)
    with pytest.raises(ValueError, match="names a more than once"):
        merge([one], [one])


def rates(**every):
    """Candidate solves every n-th problem with all 4 samples; a problem takes 10 operations."""
    asked = []

    def measure(name, first, last):
        asked.append((name, first, last))
        solved = tuple(4 * (i % every[name] == 0) for i in range(first, last))
        return Seen(solved, 10.0 * (last - first), 0.5 * (last - first))

    return measure, asked


def test_halving_measures_the_better_half_on_more_problems_within_a_third():
    measure, asked = rates(a=8, b=4, c=2, d=3, e=8)
    found = halve(list("abcde"), measure, num_problems=64, k=4)
    # 8 each; the best three 8 more; the best two 16 more: 40 + 24 + 32 = 96 of 5 * 64 = 320.
    assert [last - first for _, first, last in asked] == [8] * 5 + [8] * 3 + [16] * 2
    assert [s.name for s in found.ranking][:3] == ["c", "d", "b"]
    assert found.share_of_problems == pytest.approx(96 / 320)
    assert (found.flops, found.full_flops, found.seconds) == (960.0, 3200.0, 48.0)
    assert found.ranking[0].pass_at_k == 0.5
    assert found.ranking[0].interval == pytest.approx((0.3363, 0.6637), abs=1e-4)
    assert not found.told_apart  # 0.5 and 11/32 of 32 problems overlap


def test_the_best_is_compared_with_a_second_to_the_end():
    measure, asked = rates(a=2, b=3)
    found = halve(["a", "b"], measure, num_problems=64, k=4)
    # 8 each, 8 more each; 16 more each would make 64 of 128, which is over a third.
    assert [last - first for _, first, last in asked] == [8] * 4
    assert [(s.name, s.rounds) for s in found.ranking] == [("a", 2), ("b", 2)]


def test_rounds_end_early_only_when_the_intervals_lie_apart():
    measure, asked = rates(good=1, bad=1000)
    found = halve(["good", "bad"], measure, num_problems=128, k=4)
    # bad solves problem 0 alone: 1 of 16, at most 0.283; good 16 of 16, at least 0.806.
    assert found.told_apart
    assert asked == [("good", 0, 16), ("bad", 0, 16)]


def test_the_time_model_predicts_a_size_and_length_that_it_did_not_see():
    def run(flops, tokens, steps):
        return Run(flops, tokens, steps, 2e-9 * flops + 1e-4 * tokens + 0.5 * steps)

    found = fit([run(1e9, 1e3, 1), run(4e9, 5e3, 2), run(9e9, 2e3, 8), run(2e9, 9e3, 3)])
    # 2e-9 * 5e10 + 1e-4 * 2e4 + 0.5 * 10 = 100 + 2 + 5
    assert found.seconds(5e10, 2e4, 10) == pytest.approx(107.0)


def test_runs_that_tell_nothing_apart_still_give_the_measured_rate():
    found = fit([Run(1e9, 10, 1, 2.0), Run(2e9, 20, 2, 4.0)])
    assert found.seconds(4e9, 40, 4) == pytest.approx(8.0)
    with pytest.raises(ValueError, match="at least one run"):
        fit([])


def test_prices_of_training_and_of_serving():
    assert device_price(1800, 2, 3.0) == 3.0
    # 1000 tokens a second are 3.6 million an hour.
    assert serving_price_per_million(1000, 7.2) == pytest.approx(2.0)


def test_the_front_holds_what_nothing_beats_and_losers_say_what_beats_them():
    points = [Point("a", 0.5, 1.0), Point("b", 0.9, 4.0), Point("c", 0.4, 2.0), Point("d", 0.9, 5)]
    front, losers = pareto_front(points)
    assert front == ["a", "b"]
    assert losers == {
        "c": "a has a benefit of 0.5 against 0.4, at a cost of 1 against 2",
        "d": "b has a benefit of 0.9 against 0.9, at a cost of 4 against 5",
    }


def test_the_selector_ranks_what_the_limits_leave_and_says_why_the_others_lost():
    # One problem in so many is solved by both samples; operations per problem.
    known = {"good": (1, 100.0), "cheap": (2, 10.0), "poor": (4, 1.0)}

    def probe(name, first, last):
        every, flops = known[name]
        solved = tuple(2 * (i % every == 0) for i in range(first, last))
        share = sum(count > 0 for count in solved) / len(solved)
        return Measurement(len(solved), 2, share, share, 7.0, flops, 1.0, solved)

    entries = [entry(name, num_parameters=5) for name in known]
    entries.append(entry("huge", num_parameters=50))
    choice = DynamicModelSelector(entries, Limits(max_parameters=9)).choose(
        probe, num_problems=64, k=2
    )
    # 8 problems each; 8 more for the better two; more would pass a third of 192.
    found = {c.model_id: c for c in choice.candidates}
    assert list(found) == ["good", "cheap", "poor", "huge"]
    assert [found[n].measured.num_problems for n in known] == [16, 16, 8]
    assert [found[n].measured.pass_at_k for n in known] == [1.0, 0.5, 0.25]
    assert found["good"].lost is None
    assert found["cheap"].lost is None
    assert found["poor"].lost == (
        "left after 8 problems with pass@2 0.25; on them the 2 that went on had 0.5 to 1"
    )
    assert found["huge"].as_json()["reason"] == "left out: 50 parameters, max_parameters is 9"
    assert not found["huge"].as_json()["on_pareto_front"]
    # Cheapest of all, but measured on fewer problems than those it would be compared with.
    assert not found["poor"].as_json()["on_pareto_front"]
    # (16 * 100 + 16 * 10 + 8 * 1) of 64 * 111 operations
    assert choice.cost_json()["share_of_full_evaluation"] == round(1768 / 7104, 4)
    assert choice.halved.seconds == 5.0


def test_where_nothing_is_solved_the_steps_decide_and_then_the_work():
    rewards = {"dear": (0.4, 9.0), "cheap": (0.4, 1.0), "far": (0.1, 1.0)}

    def measure(name: str, first: int, last: int) -> Seen:
        step, flops = rewards[name]
        num = last - first
        return Seen((0,) * num, flops * num, 1.0, (step,) * num)

    found = halve(list(rewards), measure, num_problems=8, k=4, most_share=1.0)
    assert [standing.name for standing in found.ranking] == ["cheap", "dear", "far"]
    assert found.told_apart is False


def failing(broken, **every):
    """As `rates`, but a candidate in `broken` fails from that problem on."""
    measure, asked = rates(**every)

    def fails(name, first, last):
        if name in broken and first >= broken[name]:
            raise ProbeError(f"no engine for {name}")
        return measure(name, first, last)

    return fails, asked


def test_a_candidate_that_fails_is_out_with_its_reason_and_the_others_are_ranked():
    measure, _ = failing({"c": 8, "e": 0}, a=8, b=4, c=2, d=3, e=1)
    found = halve(list("abcde"), measure, num_problems=64, k=4)
    # Of the four left after 8 problems, c (4 of 8) and d (3 of 8) go on; c fails on the next 8.
    assert found.failures == {"e": "no engine for e", "c": "no engine for c"}
    assert [s.name for s in found.ranking] == ["d", "b", "a"]
    # What was measured of c before it failed was paid for.
    assert found.flops == sum(s.seen.flops for s in found.ranking) + 80


def test_where_all_that_went_on_fail_the_best_of_the_others_is_chosen():
    measure, _ = failing({"a": 8, "b": 8}, a=1, b=2, c=4, d=8)
    found = halve(list("abcd"), measure, num_problems=64, k=4)
    assert set(found.failures) == {"a", "b"}
    assert [(s.name, s.left) for s in found.ranking] == [("c", None), ("d", None)]


def test_where_every_candidate_fails_each_reason_is_told():
    measure, _ = failing({"a": 0, "b": 0}, a=1, b=1)
    with pytest.raises(NothingMeasuredError, match=r"a: no engine for a; b: no engine for b"):
        halve(["a", "b"], measure, num_problems=8, k=4)


def test_the_selector_names_what_could_not_be_measured():
    def probe(name, first, last):
        if name == "broken":
            raise ProbeError("its weights cannot be read")
        solved = (2,) * (last - first)
        return Measurement(len(solved), 2, 1.0, 1.0, 7.0, 10.0, 1.0, solved)

    entries = [entry("broken", num_parameters=3), entry("sound", num_parameters=4)]
    choice = DynamicModelSelector(entries, Limits()).choose(probe, num_problems=8, k=2)
    sound, broken = (one.as_json() for one in choice.candidates)
    assert (sound["model_id"], sound["on_pareto_front"]) == ("sound", True)
    assert broken["reason"] == "not measured: its weights cannot be read"
    assert (broken["score"], broken["on_pareto_front"]) == (None, False)


def unsolved(name, first, last):
    """Nothing is solved; the work per problem is the length of the name."""
    num = last - first
    return Measurement(num, 2, 0.0, 0.0, 7.0, float(len(name)), 1.0, (0,) * num, (0.1,) * num)


def gain(after):
    return SRLGain(4, 8, 0.1, after, 50.0, 3.0)


def test_where_nothing_is_solved_a_short_srl_run_decides():
    entries = [entry(name) for name in ("a", "bb", "ccc")]
    asked = []

    def srl_probe(name):
        asked.append(name)
        return gain({"a": 0.2, "bb": 0.6}[name])

    choice = DynamicModelSelector(entries, Limits()).choose(
        unsolved, num_problems=24, k=2, srl_probe=srl_probe
    )
    # 3 problems of three models; 3 more of the two with less work; more would pass a third of 72.
    assert asked == ["a", "bb"]
    shown = [one.as_json() for one in choice.candidates]
    assert [one["model_id"] for one in shown] == ["bb", "a", "ccc"]
    assert shown[0]["measured"]["srl_probe"]["after"] == 0.6
    assert shown[2]["measured"]["srl_probe"] is None
    # Better and dearer, worse and cheaper: neither beats the other.
    assert [one["on_pareto_front"] for one in shown] == [True, True, False]
    assert choice.cost_json()["srl_probe_flops"] == 100.0
    assert choice.cost_json()["seconds"] == 5.0 + 2 * 3.0


def test_a_failed_srl_probe_comes_after_those_that_worked():
    def srl_probe(name):
        if name == "a":
            raise ProbeError("out of memory")
        return gain(-1.0)

    choice = DynamicModelSelector([entry("a"), entry("bb")], Limits()).choose(
        unsolved, num_problems=24, k=2, srl_probe=srl_probe
    )
    first, second = (one.as_json() for one in choice.candidates)
    assert (first["model_id"], second["model_id"]) == ("bb", "a")
    assert second["reason"] == "its SRL probe failed: out of memory"


def test_one_solved_problem_is_enough_to_need_no_srl_run():
    def one_solved(name, first, last):
        solved = tuple(int(i == 0) for i in range(first, last))
        share = sum(solved) / len(solved)
        return Measurement(len(solved), 2, share, share / 2, 7.0, 1.0, 1.0, solved)

    choice = DynamicModelSelector([entry("a"), entry("b")], Limits()).choose(
        one_solved, num_problems=8, k=2, srl_probe=lambda name: pytest.fail("trained")
    )
    assert choice.candidates[0].gain is None


def test_a_cost_that_cannot_be_known_does_not_keep_to_the_limit():
    for known, hours in (({"device_price_per_hour": 1.0}, {}), ({}, {"a": 1.0})):
        with pytest.raises(NoCandidateError, match=r"max_cost is 3.0 and its own"):
            within_limits([entry("a", **known)], Limits(max_cost=3), hours)


def test_training_times_are_measured_where_they_can_be_and_estimated_from_those():
    def work(size: float) -> Work:
        return Work(0.0, 1000.0, 3000.0, 10.0 * size, 60.0 * size)

    works = {"small": work(1), "other": work(2), "unseen": work(4)}
    measured = {
        "small": Throughput(100.0, 60.0, 7),
        "other": Throughput(50.0, 30.0, 9),
        "gone": Throughput(1.0, 1.0, 1),
    }
    devices = {"small": 1.0, "other": 2.0, "unseen": 2.0}
    found = training_times(works, measured, devices)
    # small: 1000 / 100 + 3000 / 60 = 60 s; other 20 + 100 = 120 s; twice the FLOPs, twice the time.
    assert (found["small"].seconds, found["small"].basis) == (60.0, "measured")
    assert found["other"].device_hours == pytest.approx(2 * 120 / 3600)
    assert found["unseen"].seconds == pytest.approx(240.0)
    shown = found["unseen"].as_json(3.0)
    assert shown["basis"] == "estimated, from 2 other models' jobs here"
    assert shown["cost"] == pytest.approx(2 * 240 / 3600 * 3.0)
    assert found["small"].as_json(None) == {
        "device_hours": 0.01667,
        "cost": None,
        "basis": "measured, from 7 optimizer steps of this model here",
    }
    assert training_times(works, {}, devices) == {}
