"""Measures a model on a sample of a job's rows: k rollouts per problem, by the job's grader.

Runs where ray is connected; starts the job's own engines and verifiers and stops them again.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rollout.collector import score_groups
from rollout.types import Problem, RolloutGroup
from train.auto.facts import ModelFacts
from train.selection.cost import Work, turn_work
from train.selection.halving import ProbeError
from train.selection.ranking import Measurement
from train.spec import JobSpec

if TYPE_CHECKING:
    from rollout.pool import RolloutPool

PROBE_SEED = 20_260_101
PROBE_TEMPERATURE = 1.0
MAX_REASON = 300  # characters of what a failed probe says


def probe(spec: JobSpec, facts: ModelFacts, *, first: int, last: int, k: int) -> Measurement:
    """Measure the job's model before any training, on problems [first, last): pass@k, and steps.

    Raises ValueError for rows that cannot be used, ProbeError for whatever is this model's fault.
    """
    started_s = time.monotonic()
    problems = probe_problems(spec)[first:last]
    with fleet_of(spec) as pool:
        groups = sample(spec, pool, problems, k)
        step_rewards = _step_rewards(spec, pool, first, last, k)
        seen = summarise(groups, facts, k, time.monotonic() - started_s, _grader(spec))
    return replace(seen, step_rewards=step_rewards)


@contextmanager
def fleet_of(spec: JobSpec) -> "Iterator[RolloutPool]":
    """The job's engines and verifiers with its model's weights. Raises ProbeError, with the cause.

    Also for what is raised inside.
    """
    from rollout.pool import RolloutPool
    from train.pipeline import engine_spec, pool_spec
    from train.policy import load_model

    try:
        pool = RolloutPool.start(pool_spec(spec), engine_spec(spec))
        try:
            pool.publish(load_model(spec.model, spec.rollout.dtype).state_dict(), 0)
            yield pool
        finally:
            pool.stop()
    except Exception as error:
        # Acceptable: a model's files and its engine raise what they like. The model is left out
        # with the reason, which the answer holds.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ProbeError(lines[-1].strip()[-MAX_REASON:]) from error


def sample(
    spec: JobSpec, pool: "RolloutPool", problems: list[Problem], k: int, seed: int = PROBE_SEED
) -> list[RolloutGroup]:
    """`k` rollouts of each problem by the pool's weights, scored by the job's grader."""
    rollouts = pool.generate(problems, k, spec.sampling_spec(PROBE_TEMPERATURE), seed)
    return score_groups(problems, rollouts, lambda pairs: pool.score(_grader(spec), pairs))


def _step_rewards(
    spec: JobSpec, pool: "RolloutPool", first: int, last: int, k: int
) -> tuple[float, ...]:
    """Rewards of single steps, each from where it stands; none when no row has expert steps."""
    from train.data import read_rows
    from train.prompts import PromptRenderer, load_tokenizer
    from train.srl import srl_problems, srl_verifier

    if spec.srl is None:
        return ()
    renderer = PromptRenderer(load_tokenizer(spec), spec.prompt)
    problems = srl_problems(read_rows(spec.data.train), renderer, spec.srl)
    random.Random(PROBE_SEED).shuffle(problems)
    problems = problems[first:last]
    if not problems:
        return ()
    rollouts = pool.generate(problems, k, spec.step_sampling_spec(spec.srl), PROBE_SEED)
    verifier = srl_verifier(spec.srl)
    groups = score_groups(problems, rollouts, lambda pairs: pool.score(verifier, pairs))
    return tuple(verdict.reward for group in groups for _, verdict in group.scored())


def probe_problems(spec: JobSpec) -> list[Problem]:
    """The job's training and validation rows that the grader can judge, in a seeded order."""
    from train.data import read_rows
    from train.prompts import PromptRenderer, load_tokenizer
    from train.rlvr import rlvr_problems

    rows = [*read_rows(spec.data.train), *read_rows(spec.data.valid)]
    renderer = PromptRenderer(load_tokenizer(spec), spec.prompt)
    problems = rlvr_problems(rows, renderer, _grader(spec))
    random.Random(PROBE_SEED).shuffle(problems)
    return problems


def summarise(
    groups: list[RolloutGroup], facts: ModelFacts, k: int, seconds: float, grader: Any = None
) -> Measurement:
    """The figures of scored groups. A problem without every verdict is left out.

    Raises RuntimeError when none is left.
    """
    from train.evaluate import num_solved
    from train.statistics import pass_at_k

    judged = [group for group in groups if None not in group.verdicts]
    if not judged:
        raise RuntimeError("the grader judged none of the sampled problems; test it on one sample")
    works = [
        sum(
            (
                turn_work(facts, len(turn.prompt_ids), len(turn.token_ids), trained=False)
                for rollout in group.rollouts
                for turn in rollout.turns
            ),
            Work(),
        )
        for group in judged
    ]
    return Measurement(
        num_problems=len(judged),
        k=k,
        pass_at_k=fmean(pass_at_k(k, num_solved(group, grader), k) for group in judged),
        sampled=fmean(num_solved(group, grader) / k for group in judged),
        tokens_per_problem=fmean(w.prompt_tokens + w.sampled_tokens for w in works),
        flops_per_problem=fmean(w.sampling_flops for w in works),
        seconds=seconds,
        solved=tuple(num_solved(group, grader) for group in judged),
    )


def _grader(spec: JobSpec):
    from train.spec import job_grader

    return job_grader(spec)
