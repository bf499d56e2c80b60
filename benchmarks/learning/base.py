"""Trains a base model of the learning benchmark: the quickstart's recipe, this task's documents."""

import argparse
import random
from pathlib import Path

from benchmarks.learning import task

STEPS = 1500


def train_base(folder: Path, seed: int, threads: int) -> None:
    """Train from scratch and save a Hugging Face folder; minutes on one core."""
    import recipe
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    args = argparse.Namespace(
        steps=STEPS, documents=128, learning_rate=4e-3, width=96, layers=3, seed=seed
    )
    tokenizer = recipe.build_tokenizer()
    model = recipe.build_model(args, tokenizer)
    recipe.train(model, tokenizer.get_vocab(), args, random.Random(seed), task.sample_document)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
