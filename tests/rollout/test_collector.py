"""The collector chooses, keeps, filters, drops, counts and continues from a snapshot."""

import json
import random
from dataclasses import dataclass

import pytest

from rollout.collector import MAX_OVERSAMPLING, Collector, collect_batch, score_groups
from rollout.types import Problem, Rollout, RolloutGroup, SamplingSpec, Verdict

SAMPLING = SamplingSpec("single", max_tokens=4)


def problems(count: int) -> list[Problem]:
    """Made-up problems."""
    return [Problem(f"p{i}", f"prompt {i}") for i in range(count)]


def group_of(problem: Problem, rewards: list[float | None]) -> RolloutGroup:
    """A scored group; None is a missing verdict."""
    verdicts = tuple(None if r is None else Verdict(r) for r in rewards)
    return RolloutGroup(problem, tuple(Rollout(problem.id, ()) for _ in rewards), verdicts)


def make(
    count: int = 4, wanted: int = 2, *, threshold: float = 0.0, rounds: int = 3, seed: int = 5
):
    """A collector with small settings."""
    return Collector(
        problems(count),
        groups_per_batch=wanted,
        std_threshold=threshold,
        max_rounds=rounds,
        seed=seed,
    )


@dataclass
class Tally:
    """What the counters must say, worked out apart from the collector."""

    sampled: int = 0
    kept: int = 0
    filtered: int = 0
    dropped: int = 0
    rollouts_dropped: int = 0

    def judge(self, group: RolloutGroup, threshold: float) -> bool:
        """Enter one group; True when it must be kept. Rewards are multiples of a half."""
        halves = [round(2 * v.reward) for v in group.verdicts if v is not None]
        size, scored = len(group.verdicts), len(halves)
        self.sampled += 1
        self.rollouts_dropped += size - scored
        if scored < 2 or 2 * scored < size:
            self.dropped += 1
            return False
        # In whole numbers: scored^2 times the variance of the rewards' halves.
        spread = scored * sum(h * h for h in halves) - sum(halves) ** 2
        keep = spread > (2 * threshold * scored) ** 2
        self.kept += keep
        self.filtered += not keep
        return keep


def run_batch(collector: Collector, rng: random.Random, group_size: int, tally: Tally, threshold):
    """Drive one batch with made-up rewards; return (ids by round, batch, groups to keep)."""
    asked, expected = [], []
    while wanted := collector.next_problems():
        groups = [
            group_of(p, [rng.choice((None, 0.0, 0.5, 1.0)) for _ in range(group_size)])
            if rng.random() < 0.7
            else group_of(p, [rng.choice((0.0, 1.0))] * group_size)
            for p in wanted
        ]
        expected += [g for g in groups if tally.judge(g, threshold)]
        asked.append([p.id for p in wanted])
        collector.offer(groups)
    return asked, collector.next_batch(), expected


def test_a_thousand_made_up_schedules_add_up_and_continue_from_their_snapshots():
    resumed_problems = 0
    for seed in range(1000):
        rng = random.Random(seed)
        count, wanted, rounds = rng.randint(1, 12), rng.randint(1, 6), rng.randint(1, 4)
        group_size, threshold = rng.randint(2, 5), rng.choice((0.0, 0.25))
        settings = {"threshold": threshold, "rounds": rounds, "seed": seed}
        collector = make(count, wanted, **settings)
        tally, handed_out, ended_early = Tally(), [], False
        for _ in range(3):
            snapshot = json.loads(json.dumps(collector.snapshot()))
            state = rng.getstate()
            asked, batch, expected = run_batch(collector, rng, group_size, tally, threshold)
            assert batch == expected
            assert len(asked) <= rounds
            assert len(asked) == rounds or len(batch) >= wanted
            assert wanted <= len(asked[0]) <= MAX_OVERSAMPLING * wanted
            handed_out += [name for names in asked for name in names]
            counters = collector.counters
            assert counters.groups_sampled == tally.sampled == len(handed_out)
            assert counters.groups_kept == tally.kept
            assert counters.groups_filtered == tally.filtered
            assert counters.groups_dropped == tally.dropped
            assert counters.rollouts_dropped == tally.rollouts_dropped
            ended_early |= len(asked) < rounds

            twin, twin_rng = make(count, wanted, **settings), random.Random()
            twin.restore(snapshot)
            twin_rng.setstate(state)
            again, twin_batch, _ = run_batch(twin, twin_rng, group_size, Tally(), threshold)
            assert (again, twin_batch) == (asked, batch)
            assert twin.snapshot() == collector.snapshot()
            resumed_problems += len(again)
        for start in range(0, len(handed_out) - count + 1, count):
            assert len(set(handed_out[start : start + count])) == count
    assert resumed_problems > 3000


def test_every_epoch_covers_every_problem_once_in_an_order_of_its_own():
    collector = make(30, 30, rounds=1)
    epochs = []
    for _ in range(3):
        wanted = collector.next_problems()
        collector.offer([group_of(p, [0.0, 1.0]) for p in wanted])
        collector.next_batch()
        epochs.append([p.id for p in wanted])
    everything = {p.id for p in problems(30)}
    assert all(len(e) == 30 and set(e) == everything for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_seed_alone_decides_the_order():
    def first(seed: int) -> list[str]:
        return [p.id for p in make(30, 30, seed=seed).next_problems()]

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize(
    ("rewards", "kept", "filtered", "dropped"),
    [
        ([0.0, 1.0, None, None], 1, 0, 0),  # exactly half: used
        ([0.0, 1.0, None, None, None], 0, 0, 1),  # less than half: dropped
        ([0.0, None], 0, 0, 1),  # half, but one reward has no spread
        ([None, None], 0, 0, 1),
        ([1.0, 1.0, None, None], 0, 1, 0),
        ([0.3, 0.3, 0.3], 0, 1, 0),  # equal rewards have no spread, rounding or not
        ([0.0, 1.0], 1, 0, 0),
    ],
)
def test_a_group_is_used_when_half_its_rollouts_have_verdicts(rewards, kept, filtered, dropped):
    collector = make()
    group = group_of(problems(1)[0], rewards)
    collector.offer([group])
    counters = collector.counters
    assert (counters.groups_kept, counters.groups_filtered) == (kept, filtered)
    assert counters.groups_dropped == dropped
    assert counters.rollouts_dropped == rewards.count(None)
    assert collector.next_batch() == [group] * kept


def test_a_groups_spread_must_exceed_the_threshold_not_merely_reach_it():
    collector = make(threshold=0.5)
    problem = problems(1)[0]
    collector.offer([group_of(problem, [0.0, 1.0]), group_of(problem, [0.0, 1.0625])])
    assert [g.verdicts[1].reward for g in collector.next_batch()] == [1.0625]


def test_a_round_asks_for_more_when_few_groups_were_kept_but_at_most_twice_as_many():
    collector = make(4, 10, rounds=50)
    sizes = []
    while wanted := collector.next_problems():
        sizes.append(len(wanted))
        collector.offer([group_of(p, [1.0, 1.0]) for p in wanted])
    # The running share of kept groups is 0.8 ** rounds: 1, 0.8, 0.64, 0.512, 0.41.
    assert sizes[:5] == [10, 12, 16, 20, 20]
    assert len(sizes) == 50
    assert max(sizes) == 20


def test_rounds_go_on_for_the_missing_groups_only_and_stop_at_the_limit():
    collector = make(10, 3, rounds=2)
    first = collector.next_problems()
    collector.offer([group_of(first[0], [0.0, 1.0]), *(group_of(p, [1.0, 1.0]) for p in first[1:])])
    # Two are missing; the running share is 0.8 + 0.2 / 3.
    assert len(collector.next_problems()) == round(2 / (0.8 + 0.2 / 3)) == 2
    collector.offer([])
    assert collector.next_problems() == []
    assert len(collector.next_batch()) == 1
    assert len(collector.next_problems()) >= 3


def test_a_snapshot_in_the_middle_of_a_batch_is_refused():
    collector = make()
    collector.next_problems()
    with pytest.raises(RuntimeError, match="middle of a batch"):
        collector.snapshot()
    collector.next_batch()
    assert collector.snapshot()["cursor"] == 2


def test_restoring_forgets_a_batch_that_was_underway():
    collector = make(8, 2)
    snapshot = collector.snapshot()
    wanted = collector.next_problems()
    collector.offer([group_of(p, [0.0, 1.0]) for p in wanted])
    collector.restore(snapshot)
    assert collector.counters.groups_sampled == 0
    assert collector.next_problems() == wanted
    assert collector.next_batch() == []


def test_a_collector_without_problems_is_refused():
    with pytest.raises(ValueError, match="no problems"):
        make(0)


def two_rollouts(problem: Problem) -> list[Rollout]:
    """Two rollouts that can be told apart."""
    return [Rollout(f"{problem.id}/{i}", ()) for i in range(2)]


def test_missing_verdicts_are_asked_for_once_more_and_nothing_else_is():
    calls = []

    def score(pairs):
        calls.append([rollout.problem_id for _, rollout in pairs])
        if len(calls) == 1:
            return [Verdict(0.0), None, None, Verdict(1.0)]
        return [Verdict(0.5), None]

    two = problems(2)
    groups = score_groups(two, [two_rollouts(p) for p in two], score)
    assert calls == [["p0/0", "p0/1", "p1/0", "p1/1"], ["p0/1", "p1/0"]]
    assert groups[0].verdicts == (Verdict(0.0), Verdict(0.5))
    assert groups[1].verdicts == (None, Verdict(1.0))
    assert [g.problem for g in groups] == two


def test_complete_verdicts_are_not_asked_for_again():
    calls = []

    def score(pairs):
        calls.append(len(pairs))
        return [Verdict(1.0) for _ in pairs]

    two = problems(2)
    score_groups(two, [two_rollouts(p) for p in two], score)
    assert calls == [4]


def test_collect_batch_runs_rounds_with_seeds_of_their_own_until_enough_groups_are_kept():
    seeds, asked, seen = [], [], []

    def generate(wanted, num_rollouts, sampling, seed):
        assert (num_rollouts, sampling) == (2, SAMPLING)
        seeds.append(seed)
        asked.append(len(wanted))
        return [two_rollouts(p) for p in wanted]

    def score(pairs):
        # In the first round no group has spread; in the second every one has.
        spread = len(seeds) > 1
        return [Verdict(float(spread and r.problem_id.endswith("1"))) for _, r in pairs]

    collector = make(20, 3)
    batch = collect_batch(
        collector, generate, score, group_size=2, sampling=SAMPLING, seed=100, observe=seen.extend
    )
    assert seeds == [100, 101]
    assert asked[0] == 3
    assert len(batch) == asked[1] >= 3
    assert len(seen) == sum(asked)
    assert seen[3:] == batch


def test_collect_batch_drops_a_group_whose_verdicts_stay_missing_and_counts_its_rollouts():
    def generate(wanted, num_rollouts, sampling, seed):
        return [[Rollout(f"{p.id}/{i}", ()) for i in range(num_rollouts)] for p in wanted]

    def score(pairs):
        return [None if p.id == "p0" else Verdict(float(r.problem_id[-1])) for p, r in pairs]

    collector = make(2, 2, rounds=1)
    batch = collect_batch(collector, generate, score, group_size=2, sampling=SAMPLING, seed=0)
    assert [g.problem.id for g in batch] == ["p1"]
    assert collector.counters.groups_dropped == 1
    assert collector.counters.rollouts_dropped == 2


def test_samples_that_do_not_fit_the_problems_are_refused_before_anything_is_scored():
    def score(pairs):
        raise AssertionError("nothing may be scored")

    with pytest.raises(ValueError, match="shorter"):
        score_groups(problems(2), [two_rollouts(p) for p in problems(1)], score)


def test_a_second_asking_that_answers_too_few_is_refused():
    def score(pairs):
        return [None] * (2 if len(pairs) == 4 else len(pairs) - 1)

    with pytest.raises(ValueError, match="shorter"):
        score_groups(problems(1), [two_rollouts(p) for p in problems(1)], score)
