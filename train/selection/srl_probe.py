"""A short SRL run of a model that solves nothing yet: how far do a few expert steps take it?

Engine, collector, reward and learner are a job's own; the weights are thrown away. Rows with expert
steps are split: some are trained on, the others measured on before and after. Runs where ray is
connected, once per candidate, and only where pass@k tells no candidate from another.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rollout.types import Problem, RolloutGroup
from train.auto.facts import ModelFacts
from train.selection.cost import Work, turn_work
from train.selection.probe import PROBE_SEED, fleet_of
from train.spec import JobSpec, SRLSpec

if TYPE_CHECKING:
    from rollout.pool import RolloutPool

NUM_STEPS = 4  # of the optimizer
MOST_GROUPS = 8  # in a step
MEASURED_SHARE = 4  # one in so many rows with expert steps is measured on, at least one
MOST_MEASURED = 32  # steps measured on
DEADLINE_S = 1200.0  # of the whole run


@dataclass(frozen=True)
class SRLGain:
    """What a short SRL run did to a model. Rewards are of steps that it was not trained on."""

    num_steps: int
    num_measured: int  # expert steps, each sampled `group_size` times
    before: float  # mean reward, -1 to 1
    after: float
    flops: float  # measuring included
    seconds: float


def srl_probe(spec: JobSpec, facts: ModelFacts) -> SRLGain | None:
    """Train the job's model for a few SRL steps; None where too few rows carry expert steps.

    Raises ProbeError for whatever is this model's fault.
    """
    import ray

    started_s = time.monotonic()
    problems = split_steps(spec)
    if problems is None:
        return None
    with fleet_of(spec) as pool:
        # A task of its own: a learner needs the devices that a job's learner needs.
        task = ray.remote(max_calls=1)(_learn).options(
            num_cpus=spec.learner.cpus_per_worker, num_gpus=spec.learner.gpus_per_worker
        )
        call = task.remote(spec, facts, pool, *problems)
        try:
            before, after, work = ray.get(call, timeout=DEADLINE_S)
        finally:
            ray.cancel(call, force=True)  # past its deadline it would keep the devices
    return SRLGain(
        NUM_STEPS,
        len(problems[1]),
        before,
        after,
        work.sampling_flops + work.training_flops,
        time.monotonic() - started_s,
    )


def split_steps(spec: JobSpec) -> tuple[list[Problem], list[Problem]] | None:
    """(SRL problems to train on, others to measure on): no row is in both."""
    from train.data import read_rows
    from train.prompts import PromptRenderer, load_tokenizer
    from train.srl import srl_problems

    if spec.srl is None:
        return None
    rows = [row for row in read_rows(spec.data.train) if row.expert_steps]
    if len(rows) < 2:
        return None
    random.Random(PROBE_SEED).shuffle(rows)
    num_measured = max(1, len(rows) // MEASURED_SHARE)
    renderer = PromptRenderer(load_tokenizer(spec), spec.prompt)
    measured = srl_problems(rows[:num_measured], renderer, spec.srl)[:MOST_MEASURED]
    training = srl_problems(rows[num_measured:], renderer, spec.srl)
    return (training, measured) if training and measured else None


def probe_stage(stage: SRLSpec) -> SRLSpec:
    """The job's SRL stage, shortened: few groups, and its full learning rate from the start."""
    return stage.model_copy(
        update={
            "max_steps": NUM_STEPS,
            "groups_per_step": min(MOST_GROUPS, stage.groups_per_step),
            "warmup_steps": 0,
            "lr_schedule": "constant",
        }
    )


def _learn(
    spec: JobSpec,
    facts: ModelFacts,
    pool: "RolloutPool",
    training: list[Problem],
    measured: list[Problem],
) -> tuple[float, float, Work]:
    """(reward before, reward after, the work of it)."""
    from rollout.collector import Collector, collect_batch, score_groups
    from train.batch import to_sequences
    from train.learner import Learner
    from train.srl import srl_verifier

    assert spec.srl is not None
    stage = probe_stage(spec.srl)
    verifier: Any = srl_verifier(stage)
    sampling = spec.step_sampling_spec(stage)
    learner = Learner(spec.model, stage, spec.learner)
    collector = Collector(
        training,
        groups_per_batch=stage.groups_per_step,
        std_threshold=stage.std_threshold,
        max_rounds=stage.max_sampling_rounds,
        seed=spec.seed,
    )
    seen: list[RolloutGroup] = []
    work = Work()

    def measure() -> list[RolloutGroup]:
        # The same seed before and after: a difference comes of the weights alone.
        rollouts = pool.generate(measured, stage.group_size, sampling, PROBE_SEED)
        return score_groups(measured, rollouts, lambda pairs: pool.score(verifier, pairs))

    first = measure()
    for step in range(NUM_STEPS):
        groups = collect_batch(
            collector,
            pool.generate,
            lambda pairs: pool.score(verifier, pairs),
            group_size=stage.group_size,
            sampling=sampling,
            seed=PROBE_SEED + 1000 * (step + 1),
            observe=seen.extend,
        )
        sequences = to_sequences(groups, stage.advantage, stage.truncation)
        learner.step(sequences, step)
        pool.publish(learner.state(), step + 1)
        for one in sequences:
            learnt = turn_work(facts, len(one.prompt_ids), len(one.token_ids), trained=True)
            work += Work(0.0, 0.0, learnt.trained_tokens, 0.0, learnt.training_flops)
    last = measure()
    for group in (*first, *seen, *last):
        for rollout in group.rollouts:
            for turn in rollout.turns:
                work += turn_work(facts, len(turn.prompt_ids), len(turn.token_ids), trained=False)
    return mean_reward(first), mean_reward(last), work


def mean_reward(groups: Sequence[RolloutGroup]) -> float:
    """Over every sample with a verdict. Raises RuntimeError when there is none."""
    rewards = [verdict.reward for group in groups for _, verdict in group.scored()]
    if not rewards:
        raise RuntimeError("no step of the SRL probe got a verdict")
    return fmean(rewards)
