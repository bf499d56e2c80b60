"""The checkpoints that selection is asked to rank: three architectures, trained for so long.

The quickstart's task. `m` models go on from the embedded base, which knows single lines and walks
carelessly through longer programs; `s` models are smaller, the `l` model larger, and both start
from random weights, too few steps for what they would need. All learn from documents that solve
their problems rightly, so that more steps make a better model. Two of them differ only in the
documents that they drew: their order may be chance.
"""

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning import task
from rollout.vector_math import use_threads

LINES = (1, 2, 3, 4)  # of a document's problem
PROBLEM_LINES = (2, 4, 5, 6)  # of the problems that models are compared on: some are longer
DOCUMENTS, LEARNING_RATE = 64, 2e-3


@dataclass(frozen=True)
class Checkpoint:
    """How one checkpoint is made."""

    name: str
    steps: int  # 0: the embedded base as it is
    seed: int = 0
    width: int | None = None  # None: goes on from the embedded base
    layers: int | None = None

    @property
    def architecture(self) -> str:
        """Weights of the same architecture fit the same engine."""
        return "base" if self.width is None else f"{self.layers}x{self.width}"


CHECKPOINTS = (
    Checkpoint("m-0", 0),
    Checkpoint("m-20", 20),
    Checkpoint("m-60", 60),
    Checkpoint("m-150-a", 150),
    Checkpoint("m-150-b", 150, seed=1),
    Checkpoint("m-300", 300),
    Checkpoint("s-500", 500, width=64, layers=2),
    Checkpoint("s-1500", 1500, width=64, layers=2),
    Checkpoint("l-200", 200, width=128, layers=4),
)


def make(checkpoint: Checkpoint, folder: Path, threads: int) -> None:
    """Train a checkpoint and save a Hugging Face folder, unless it is there; minutes on a core."""
    if (folder / "tokenizer.json").exists():  # written last
        return
    import torch
    from transformers import AutoModelForCausalLM

    from models import recipe

    use_threads(threads)
    torch.manual_seed(checkpoint.seed)
    tokenizer = recipe.build_tokenizer()
    if checkpoint.width is None:
        base = task.ROOT / "models" / "ferrata-tiny"
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    else:
        shape = argparse.Namespace(width=checkpoint.width, layers=checkpoint.layers)
        model = recipe.build_model(shape, tokenizer)
    settings = argparse.Namespace(
        steps=checkpoint.steps, documents=DOCUMENTS, learning_rate=LEARNING_RATE
    )
    rng = random.Random(checkpoint.seed)
    recipe.train(model, tokenizer.get_vocab(), settings, rng, sample_document)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def sample_document(rng: random.Random) -> tuple[str, str]:
    """Return (context, target) of a problem that is solved rightly."""
    from models import recipe

    problem = task.quickstart.sample_problem(rng, rng.choice(LINES))
    steps, thoughts, _ = task.digit_programs.solve(problem)
    return recipe.write_document(rng, problem, steps, thoughts)


def problems(num: int, seed: int) -> list[dict[str, object]]:
    """Rows of different problems, the expert's steps with each. Same seed, same rows."""
    rng, made = random.Random(seed), {}
    while len(made) < num:
        problem = task.quickstart.sample_problem(rng, rng.choice(PROBLEM_LINES))
        made.setdefault(problem, task.quickstart.make_row(problem, expert=True))
    return list(made.values())
