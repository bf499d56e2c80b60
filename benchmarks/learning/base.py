"""Makes a base model of the learning benchmark: the quickstart's tiny base, taught the bad habits.

From scratch a base takes ten minutes on two cores, and knowing the form of the documents is most of
it. So the bases share their first lessons and differ in the last STEPS, whose documents the seed
draws.
"""

import argparse
import random
from pathlib import Path

from benchmarks.learning import task
from rollout.vector_math import use_threads

STEPS, LEARNING_RATE, DOCUMENTS = 200, 2e-3, 128


def train_base(folder: Path, seed: int, threads: int) -> None:
    """Train on this task's documents and save a Hugging Face folder; minutes on one core."""
    import recipe
    import torch
    from transformers import AutoModelForCausalLM

    use_threads(threads)
    torch.manual_seed(seed)
    args = argparse.Namespace(steps=STEPS, documents=DOCUMENTS, learning_rate=LEARNING_RATE)
    tokenizer = recipe.build_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(
        task.ROOT / "models" / "ferrata-tiny", dtype=torch.float32
    )
    recipe.train(model, tokenizer.get_vocab(), args, random.Random(seed), task.sample_document)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
