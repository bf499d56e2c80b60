"""A learner that refuses what would ruin its policy, and can be stored before its first step."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import MODEL

from train.batch import TrainSequence
from train.learner import Learner
from train.spec import LearnerSpec, SRLSpec

SEQUENCE = TrainSequence((5, 6, 7), (8, 9), (-1.0, -2.0), 1.0)


def make_learner() -> Learner:
    return Learner(str(MODEL), SRLSpec(learning_rate=1e-3), LearnerSpec(num_threads=1))


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state().items()}


def test_a_gradient_that_is_not_finite_is_refused_and_leaves_the_policy_as_it_was():
    learner = make_learner()
    before = weights(learner)
    with pytest.raises(FloatingPointError, match=r"gradient's norm is nan.*Lower learning_rate"):
        learner.step([replace(SEQUENCE, advantage=math.nan)], 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state().items())
    assert learner.step([SEQUENCE], 0)["grad_norm"] > 0


def test_a_batch_without_sequences_changes_nothing_and_has_no_metrics():
    learner = make_learner()
    before = weights(learner)
    assert learner.step([], 0) == {}
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state().items())


@pytest.mark.parametrize("num_steps", [0, 2])
def test_a_learner_stored_after_any_number_of_steps_goes_on_bitwise(num_steps, tmp_path):
    learner = make_learner()
    for step in range(num_steps):
        learner.step([SEQUENCE], step)
    learner.policy.model.save_pretrained(tmp_path)
    learner.save_optimizer(tmp_path / "optimizer.safetensors")
    restored = make_learner()
    restored.load(tmp_path, tmp_path / "optimizer.safetensors")
    assert learner.step([SEQUENCE], num_steps) == restored.step([SEQUENCE], num_steps)
    after = restored.state()
    assert all(torch.equal(after[name], tensor) for name, tensor in learner.state().items())


def test_the_metrics_tell_how_far_the_sampler_is_off():
    learner = make_learner()
    exact = learner.step([SEQUENCE], 0)
    assert exact["sampler_learner_logprob_diff_max"] >= exact["sampler_learner_logprob_diff"] > 0
    assert exact["sampler_learner_kl"] > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_small_learning_rate_moves_the_weights_whatever_the_compute_dtype(dtype):
    stage, spec = SRLSpec(learning_rate=1e-6), LearnerSpec(num_threads=1, dtype=dtype)
    learner = Learner(str(MODEL), stage, spec)
    before = weights(learner)
    for step in range(3):
        learner.step([SEQUENCE], step)
    after = learner.state()
    name = "model.layers.0.mlp.down_proj.weight"
    assert (after[name] != before[name]).float().mean() > 0.5
