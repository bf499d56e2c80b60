"""Weights that are published are the weights that sample: real vLLM, real optimizer steps."""

import json

import pytest
import ray
import torch
from conftest import JOB, MODEL

from rollout.engine import Engine, EngineSpec, StalePolicyError
from rollout.payload import pack_weights
from rollout.types import Problem, SamplingSpec, Verdict
from rollout.verifiers.answer import AnswerVerifier
from train.batch import pack, to_sequences
from train.data import read_rows
from train.learner import Learner, attention_mask
from train.prompts import PromptRenderer, load_tokenizer
from train.rlvr import rlvr_problems
from train.spec import LearnerSpec, SRLSpec
from train.spec_file import load_spec

TOLERANCE = 1e-4
NUM_PUBLICATIONS = 20
SAMPLING = SamplingSpec("stepwise", max_tokens=24, max_turns=1)


@pytest.fixture(scope="module")
def engine():
    """One real engine in this process, with Ray's object store beside it."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:  # an engine that cannot be built must not leave Ray to the files that come after
        yield Engine(EngineSpec(model=str(MODEL), max_model_len=256, kv_cache_gib=0.25))
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    spec = load_spec(JOB)
    rows = read_rows(spec.data.valid)[:8]
    return rlvr_problems(rows, PromptRenderer(load_tokenizer(spec), spec.prompt), AnswerVerifier())


def make_learner(learning_rate: float = 2e-3) -> Learner:
    stage = SRLSpec(learning_rate=learning_rate, max_grad_norm=100.0)
    return Learner(str(MODEL), stage, LearnerSpec())


def publish(engine: Engine, state: dict[str, torch.Tensor], version: int) -> None:
    engine.load_weights([ray.put(pack_weights(state))], version)


def sample_groups(engine: Engine, problems: list[Problem], seed: int, version: int):
    """Groups with made-up rewards that differ, so that every step moves the policy."""
    from rollout.types import RolloutGroup

    groups = engine.generate(problems, 4, SAMPLING, seed, version)
    return [
        RolloutGroup(p, tuple(g), tuple(Verdict(float(i % 2)) for i in range(len(g))))
        for p, g in zip(problems, groups, strict=True)
    ]


@torch.no_grad()
def disagreement(learner: Learner, groups) -> float:
    """Largest |learner - sampler| log-probability over the groups' tokens."""
    worst = 0.0
    for batch in pack(to_sequences(groups, "grpo"), 16384):
        logprobs, _ = learner.policy(
            batch.input_ids,
            batch.position_ids,
            attention_mask(batch.segments),
            batch.predicts,
            batch.targets,
        )
        worst = max(worst, (logprobs - batch.sampler_logprobs).abs().max().item())
    return worst


def test_logprobs_agree_after_each_of_twenty_publications_that_follow_real_steps(engine, problems):
    learner = make_learner()
    publish(engine, learner.state(), 0)
    for version in range(1, NUM_PUBLICATIONS + 1):
        groups = sample_groups(engine, problems, seed=version, version=version - 1)
        assert disagreement(learner, groups) < TOLERANCE
        learner.step(to_sequences(groups, "grpo"), version)
        assert disagreement(learner, groups) > 0.1, "the step did not move the policy"
        publish(engine, learner.state(), version)
    groups = sample_groups(engine, problems, seed=99, version=NUM_PUBLICATIONS)
    assert disagreement(learner, groups) < TOLERANCE


def test_a_skipped_publication_is_seen_as_disagreement(engine, problems):
    learner = make_learner()
    publish(engine, learner.state(), 100)
    groups = sample_groups(engine, problems, seed=1, version=100)
    learner.step(to_sequences(groups, "grpo"), 0)
    again = sample_groups(engine, problems, seed=2, version=100)  # nothing was published
    assert disagreement(learner, again) > TOLERANCE


def test_a_publication_without_the_tied_head_is_seen_as_disagreement(engine, problems):
    learner = make_learner()
    publish(engine, learner.state(), 200)
    groups = sample_groups(engine, problems, seed=1, version=200)
    learner.step(to_sequences(groups, "grpo"), 0)
    state = learner.state()
    assert "lm_head.weight" in state, "a full state dict names the tied head"
    publish(engine, {k: v for k, v in state.items() if k != "lm_head.weight"}, 201)
    again = sample_groups(engine, problems, seed=2, version=201)
    assert disagreement(learner, again) > TOLERANCE


def test_an_engine_refuses_work_for_a_policy_version_it_does_not_hold(engine, problems):
    publish(engine, make_learner().state(), 300)
    with pytest.raises(StalePolicyError, match="301 was asked for, the engine holds 300"):
        engine.generate(problems, 1, SAMPLING, 0, 301)


def test_the_same_seed_and_weights_give_the_same_rollouts_bitwise(engine, problems):
    publish(engine, make_learner().state(), 400)
    first = engine.generate(problems, 4, SAMPLING, 7, 400)
    again = engine.generate(problems, 4, SAMPLING, 7, 400)
    other = engine.generate(problems, 4, SAMPLING, 8, 400)
    assert first == again
    assert first != other


def test_vllms_request_counter_equals_the_requests_of_the_rollouts(engine, problems):
    publish(engine, make_learner().state(), 500)
    before = engine.num_requests_finished()
    groups = engine.generate(problems, 2, SamplingSpec("stepwise", 24, 8), 3, 500)
    requests = sum(rollout.num_requests for group in groups for rollout in group)
    assert engine.num_requests_finished() - before == requests
    assert requests > 2 * len(problems), "stepwise rollouts have several turns"


def test_stepwise_contexts_hold_earlier_steps_without_their_thinks(engine, problems):
    publish(engine, make_learner().state(), 600)
    tokenizer = engine._tokenizer
    rollouts = engine.generate(problems, 1, SamplingSpec("stepwise", 24, 8, 0.0), 3, 600)
    rollout = next(g[0] for g in rollouts if len(g[0].turns) > 1)
    second = tokenizer.decode(rollout.turns[1].prompt_ids)
    step = rollout.turns[0].text.split("</think>")[1]
    assert second.endswith(f"<|assistant|>{step}\n"), json.dumps(second)
