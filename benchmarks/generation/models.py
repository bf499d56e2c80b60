"""The two language models: training on documents, and sampling in batches. Stock transformers."""

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.generation import task
from train.experts.draft import DraftError, read_draft
from train.experts.teachers import Draft

LEARNING_RATE, BASE_STEPS, DOCUMENTS = 2e-3, 250, 64
STUDENT_STEPS, STUDENT_DOCUMENTS, STUDENT_RATE = 100, 32, 1e-3
MAX_TOKENS = 72


def fit(
    start: Path,
    folder: Path,
    sample: Callable[[random.Random], tuple[str, str]],
    seed: int,
    *,
    steps: int = BASE_STEPS,
    documents: int = DOCUMENTS,
    learning_rate: float = LEARNING_RATE,
) -> None:
    """Train from `start` on drawn (problem, text) documents; save a Hugging Face folder."""
    import recipe
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    tokenizer = recipe.build_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)

    def drawn(rng: random.Random) -> tuple[str, str]:
        problem, text = sample(rng)
        return f"{recipe.USER}{problem}{recipe.ASSISTANT}", f"{text}{recipe.END}"

    settings = argparse.Namespace(steps=steps, documents=documents, learning_rate=learning_rate)
    recipe.train(model, tokenizer.get_vocab(), settings, random.Random(seed), drawn)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)  # last: a folder with a tokenizer is whole


class Sampler:
    """A checkpoint that writes solutions."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def write(self, problems: Sequence[str], temperature: float, seed: int) -> list[str]:
        """One text per problem; greedy at temperature 0."""
        prompts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": problem}], tokenize=False, add_generation_prompt=True
            )
            for problem in problems
        ]
        self.torch.manual_seed(seed)
        batch = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
        with self.torch.no_grad():
            found = self.model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=MAX_TOKENS,
                **({"do_sample": False, "temperature": None} | how),
            )
        texts = found[:, batch["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(texts, skip_special_tokens=True)


def solved(text: str, answer: str | None) -> bool:
    """True when the text is a solution in the right form with the right answer."""
    try:
        return read_draft(text).answer == answer
    except DraftError:  # of the model's making, as any wrong answer
        return False


class CheckpointTeacher:
    """A checkpoint as a teacher. Its drafts of all problems are sampled in one batch per round.

    So both arms of a seed are taught by the same drafts; one that nobody asks for costs nothing.
    It was trained on problems alone and is shown no more of the conversation: a repair is another
    sample.
    """

    def __init__(self, sampler: Sampler, name: str, problems: Sequence[str], seed: int) -> None:
        self._sampler, self.name = sampler, name
        self._problems, self._seed = list(problems), seed
        self._rounds: list[dict[str, str]] = []

    def write(self, messages: Sequence[dict[str, str]], seed: int) -> Draft:
        """The draft of this round, which the conversation's length tells."""
        problem = next(m["content"] for m in messages if m["role"] == "user")
        round_number = sum(m["role"] == "assistant" for m in messages)
        while len(self._rounds) <= round_number:
            texts = self._sampler.write(self._problems, 1.0, self._seed + len(self._rounds))
            self._rounds.append(dict(zip(self._problems, texts, strict=True)))
        text = self._rounds[round_number][problem]
        return Draft(text, self.name, len(problem) + 2, len(text) + 1)  # characters are tokens


def careless(rng: random.Random) -> tuple[str, str]:
    """A document of the student's base."""
    problem = task.draw(rng)
    return problem, task.document(problem, rng)


def right(rng: random.Random) -> tuple[str, str]:
    """A document of the teacher."""
    problem = task.draw(rng)
    return problem, task.document(problem)
