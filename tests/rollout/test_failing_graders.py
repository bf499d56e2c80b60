"""Training statistics do not depend on graders that failed: they are those of what was scored."""

from collections import Counter

from failing_grader import FailingGrader, check_drops, statistics, without_failures

from rollout.collector import Collector, collect_batch
from rollout.pool import VerifierWorker
from rollout.types import Problem, Rollout, RolloutGroup, SamplingSpec, Turn

GROUP_SIZE, STD_THRESHOLD = 8, 0.3
SAMPLING = SamplingSpec("single", max_tokens=4)


def generate(problems, num_rollouts, sampling, seed) -> list[list[Rollout]]:
    """Rollouts of different texts and lengths."""

    def one(problem: Problem, i: int) -> Rollout:
        length = 1 + (seed + i) % 4
        finish = "length" if length == 4 else "end"
        turn = Turn((1, 2), (3,) * length, (-0.5,) * length, f"{seed}/{i}", finish, ((0, length),))
        return Rollout(problem.id, (turn,))

    return [[one(problem, i) for i in range(num_rollouts)] for problem in problems]


def collect(grader: FailingGrader, worker: VerifierWorker):
    """(batch, every scored group, collector) of one training step of 60 groups."""
    collector = Collector(
        [Problem(f"p{i}", "") for i in range(500)],
        groups_per_batch=60,
        std_threshold=STD_THRESHOLD,
        max_rounds=4,
        seed=3,
    )
    seen: list[RolloutGroup] = []
    batch = collect_batch(
        collector,
        generate,
        lambda pairs: worker.score(grader, pairs),
        group_size=GROUP_SIZE,
        sampling=SAMPLING,
        seed=7,
        observe=seen.extend,
    )
    return batch, seen, collector


def test_statistics_equal_those_over_the_remaining_samples_when_a_fifth_of_the_calls_fails():
    batch, seen, collector = collect(FailingGrader(), VerifierWorker())
    assert collector.counters.groups_filtered > 0, "the filter must have had work"
    assert any(len(group.scored()) < GROUP_SIZE for group in batch)
    assert statistics(batch, seen) == statistics(*without_failures(seen, batch))


def test_which_groups_are_kept_is_decided_by_the_remaining_samples_alone():
    batch, seen, _ = collect(FailingGrader(), VerifierWorker())
    _, rest = without_failures(seen, batch)
    collector = Collector(
        [group.problem for group in rest],
        groups_per_batch=len(rest),
        std_threshold=STD_THRESHOLD,
        max_rounds=1,
        seed=0,
    )
    collector.offer([group for group in rest if len(group.rollouts) >= GROUP_SIZE / 2])
    assert [g.problem.id for g in collector.next_batch()] == [g.problem.id for g in batch]


def test_what_was_asked_is_what_was_scored_and_dropped_and_drops_are_counted_by_reason():
    worker = VerifierWorker()
    _, seen, collector = collect(FailingGrader(), worker)
    counts = worker.counts()
    check_drops(collector.counters, seen, Counter(counts["failed"]))
    assert counts["scored"] == sum(len(group.scored()) for group in seen)


def test_without_failures_nothing_is_dropped():
    worker = VerifierWorker()
    _, seen, collector = collect(FailingGrader(fails=False), worker)
    assert collector.counters.rollouts_dropped == collector.counters.groups_dropped == 0
    assert worker.counts() == {"scored": GROUP_SIZE * len(seen), "failed": {}}
