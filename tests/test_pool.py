"""The fleet with real actors: what dies or hangs is replaced, and nothing it owed is lost."""

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import replace

import failing_grader
import pytest
import ray
from conftest import JOB, MODEL
from failing_grader import FailingGrader, check_drops, statistics, without_failures

from rollout.collector import Collector, collect_batch
from rollout.engine import EngineSpec
from rollout.pool import PoolSpec, RolloutPool
from rollout.types import Problem, Rollout, RolloutGroup, SamplingSpec, Turn
from rollout.verifiers.answer import AnswerVerifier
from train.data import read_rows
from train.policy import load_model
from train.prompts import PromptRenderer, load_tokenizer
from train.rlvr import rlvr_problems
from train.spec_file import load_spec

SAMPLING = SamplingSpec("stepwise", max_tokens=24, max_turns=8)
# Exponential on a row of a's that does not end there: the usual trap of a user's own pattern.
TRAP = AnswerVerifier(pattern=r"^((?:a+)+)$")
HANGING = "a" * 60 + "!"


@pytest.fixture(scope="module")
def pool():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    spec = PoolSpec(
        num_engines=2,
        num_verifiers=2,
        cpus_per_engine=0.5,
        gpus_per_engine=0,
        cpus_per_verifier=0.1,
        start_deadline_s=120,
        generate_deadline_s=120,
        verdict_deadline_s=3,
    )
    fleet = RolloutPool.start(
        spec, EngineSpec(model=str(MODEL), max_model_len=256, kv_cache_gib=0.25, num_threads=1)
    )
    fleet.publish(load_model(str(MODEL), "float32").state_dict(), 0)
    yield fleet
    fleet.stop()
    ray.shutdown()


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    spec = load_spec(JOB)
    rows = read_rows(spec.data.valid)[:64]
    return rlvr_problems(rows, PromptRenderer(load_tokenizer(spec), spec.prompt), AnswerVerifier())


def pair(number: int, text: str) -> tuple[Problem, Rollout]:
    """A problem whose answer is "a", and a rollout that says `text`."""
    turn = Turn((1,), (2,), (-0.5,), text, "end", ((0, 1),))
    return Problem(str(number), "p", reference_answer="a"), Rollout(str(number), (turn,))


def pids(actors) -> list[int]:
    return ray.get([a.__ray_call__.remote(lambda _: __import__("os").getpid()) for a in actors])


def test_an_engine_killed_while_it_samples_comes_back_with_the_weights_and_the_same_rollouts(
    pool, problems
):
    undisturbed = pool.generate(problems, 8, SAMPLING, 5)
    before = pids(pool.engines)
    killer = threading.Timer(0.3, lambda: ray.kill(pool.engines[0], no_restart=False))
    killer.start()
    again = pool.generate(problems, 8, SAMPLING, 5)
    killer.join()
    after = pids(pool.engines)
    assert after[0] != before[0], "the engine was not killed"
    assert after[1] == before[1]
    assert again == undisturbed


def test_an_engine_that_hangs_is_replaced_and_gives_the_same_rollouts(pool, problems):
    undisturbed = pool.generate(problems[:4], 2, SAMPLING, 6)
    hanging = pids(pool.engines)[1]
    impatient = replace(pool, spec=replace(pool.spec, generate_deadline_s=5))
    os.kill(hanging, signal.SIGSTOP)
    assert impatient.generate(problems[:4], 2, SAMPLING, 6) == undisturbed
    assert pids(pool.engines)[1] != hanging


def test_a_verification_that_hangs_costs_its_own_verdict_only_and_the_actor_is_replaced(pool):
    before = pids(pool.verifiers)
    pairs = [pair(i, HANGING if i == 17 else "a") for i in range(40)]
    verdicts = pool.score(TRAP, pairs)
    assert [i for i, verdict in enumerate(verdicts) if verdict is None] == [17]
    assert {v.reward for v in verdicts if v is not None} == {1.0}
    assert pids(pool.verifiers) != before
    started_s = time.monotonic()
    assert None not in pool.score(TRAP, [pair(i, "a") for i in range(40)])
    assert time.monotonic() - started_s < pool.spec.verdict_deadline_s, "an actor still hangs"


def test_a_killed_verifier_is_replaced_and_every_verdict_comes(pool):
    for verifier in pool.verifiers:
        ray.kill(verifier, no_restart=False)
    verdicts = pool.score(AnswerVerifier(), [pair(i, "a") for i in range(10)])
    assert [v.reward for v in verdicts if v] == [1.0] * 10


def test_an_engine_that_cannot_start_ends_in_an_error_that_says_so_and_not_in_waiting(pool):
    spec = replace(pool.spec, num_engines=1, num_verifiers=1)
    with pytest.raises(ray.exceptions.RayActorError, match="nowhere"):
        RolloutPool.start(spec, EngineSpec(model="./nowhere"))


def test_training_statistics_are_those_of_the_remaining_samples_when_a_fifth_of_the_calls_fails(
    pool, problems
):
    # The workers cannot import what stands beside the tests.
    ray.cloudpickle.register_pickle_by_value(failing_grader)

    def failed_calls() -> Counter[str]:
        return sum((Counter(v["failed"]) for v in pool.counts()["verifiers"]), Counter())

    seen: list[RolloutGroup] = []
    collector = Collector(problems, groups_per_batch=16, std_threshold=0.3, max_rounds=2, seed=1)
    before = failed_calls()
    batch = collect_batch(
        collector,
        pool.generate,
        lambda pairs: pool.score(FailingGrader(), pairs),
        group_size=8,
        sampling=SAMPLING,
        seed=9,
        observe=seen.extend,
    )
    check_drops(collector.counters, seen, failed_calls() - before)
    assert len(batch) >= 8
    assert statistics(batch, seen) == statistics(*without_failures(seen, batch))
