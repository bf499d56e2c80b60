"""Two learner workers do what one does, whatever their shares are."""

import os
import random
import subprocess
import sys

import pytest
import torch
import torch.distributed
from conftest import MODEL, ROOT, free_port

from train.batch import TrainSequence
from train.learner import Learner
from train.spec import LearnerSpec, SRLSpec

NUM_STEPS = 20
DEADLINE_S = 120
# Gradients are summed in another order: 3e-6 was seen. One lost step is more, see below.
TOLERANCE = 2e-5


def recorded_batches(num_sequences: int) -> list[list[TrainSequence]]:
    """Made-up rollouts: unequal lengths, advantages of both signs, a sampler that is a bit off."""
    rng = random.Random(3)
    batches = []
    for _ in range(NUM_STEPS):
        batch = []
        for _ in range(num_sequences):
            tokens = tuple(rng.randrange(4, 60) for _ in range(rng.randrange(2, 20)))
            prompt = tuple(rng.randrange(4, 60) for _ in range(rng.randrange(2, 30)))
            logprobs = tuple(-rng.random() * 5 for _ in tokens)
            batch.append(TrainSequence(prompt, tokens, logprobs, rng.uniform(-2, 2)))
        batches.append(batch)
    return batches


def train(
    batches: list[list[TrainSequence]], share: slice, micro_batch_tokens: int
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    stage = SRLSpec(learning_rate=1e-4)
    learner = Learner(
        str(MODEL), stage, LearnerSpec(micro_batch_tokens=micro_batch_tokens, num_threads=1)
    )
    metrics = [learner.step(batch[share], step) for step, batch in enumerate(batches)]
    return metrics, {k: v.clone() for k, v in learner.state().items()}


def main(rank: int, port: int, num_sequences: int, micro_batch_tokens: int, path: str) -> None:
    """One of two workers, in a process of its own."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    batches = recorded_batches(num_sequences)
    torch.save(train(batches, slice(rank, None, 2), micro_batch_tokens), path)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("num_sequences", "micro_batch_tokens"),
    [(12, 16384), (7, 1), (1, 1)],  # equal shares; unequal micro-batch counts; an empty share
)
def test_two_workers_learn_what_one_learns_over_twenty_steps(
    num_sequences, micro_batch_tokens, tmp_path
):
    batches = recorded_batches(num_sequences)
    alone, weights = train(batches, slice(None), micro_batch_tokens)
    port, paths = free_port(), [tmp_path / f"{rank}.pt" for rank in range(2)]
    settings = [str(port), str(num_sequences), str(micro_batch_tokens)]
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), *settings, str(path)],
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )
        for rank, path in enumerate(paths)
    ]
    assert [process.wait(timeout=DEADLINE_S) for process in workers] == [0, 0]
    for path in paths:
        metrics, ours = torch.load(path)
        for one, two in zip(alone, metrics, strict=True):
            assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
        for name, tensor in weights.items():
            torch.testing.assert_close(ours[name], tensor, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("num_sequences", [12, 7, 1])
def test_one_step_less_is_more_than_the_tolerance(num_sequences):
    batches = recorded_batches(num_sequences)
    _, weights = train(batches, slice(None), 16384)
    _, fewer = train(batches[:-1], slice(None), 16384)
    lost = max((weights[name] - tensor).abs().max().item() for name, tensor in fewer.items())
    assert lost > 2 * TOLERANCE


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:5]), sys.argv[5])
