"""A teacher for the repair bench: a small model taught, briefly, the form that a solution has.

It sees other sums than the bench asks, and errs often. By itself it sees first conversations alone,
never one that sends a draft back; with `--repairs` every other one does, as a model that was taught
to converse has seen such.

    python -m benchmarks.repair_teacher --model FOLDER --out FOLDER [--repairs]
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.repair import SEEDS, solved, sums
from rollout.vector_math import use_threads
from train.experts.draft import DraftError, ask, ask_again, read_draft

NUM_SUMS, STEPS, BATCH, LEARNING_RATE = 400, 8, 4, 5e-5


def conversations(*, repairs: bool) -> list[tuple[list[dict[str, str]], str]]:
    """(the conversation, a right solution) of sums that the bench does not ask.

    With `repairs` every other conversation sends a draft back whose last sum is wrong, with the
    reasons that its reader gives.
    """
    taken = [row for seed in SEEDS for row in sums(seed, 48)]
    shown, rng = [], random.Random(1)
    for number, row in enumerate(solved(NUM_SUMS, taken)):
        messages, right = ask(row, []), written(row.expert_steps, str(row.reference_answer))
        if repairs and number % 2:
            false = str(int(str(row.reference_answer)) + rng.choice((-10, -1, 1, 10)))
            *before, last = row.expert_steps
            draft = written((*before, f"{last.rpartition('=')[0]}= {false}"), false)
            messages = ask_again(messages, draft, reasons(draft))
        shown.append((messages, right))
    return shown


def written(steps: Sequence[str], answer: str) -> str:
    """As the form asks for it."""
    lines = [f"{n}. {step}" for n, step in enumerate(steps, start=1)]
    return "\n".join([*lines, f"Answer: {answer}"])


def reasons(draft: str) -> str:
    """Why the draft is no solution. Raises ValueError when it is one."""
    try:
        read_draft(draft)
    except DraftError as error:
        return str(error)
    raise ValueError(f"nothing is wrong with {draft!r}")


def teach(model: Path, out: Path, steps: int, threads: int, *, repairs: bool) -> None:
    """Train all weights on the solutions' tokens; writes a Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    use_threads(threads)
    torch.manual_seed(0)
    rng, shown = random.Random(0), conversations(repairs=repairs)
    tokenizer = AutoTokenizer.from_pretrained(model)
    policy: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    for step in range(1, steps + 1):
        loss = torch.zeros(())
        for messages, text in rng.sample(shown, BATCH):
            prompt = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
            target = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
            ids = torch.tensor([[*prompt, *target]])
            labels = torch.tensor([[-100] * len(prompt) + target])
            part = policy(input_ids=ids, labels=labels).loss / BATCH
            part.backward()
            loss += part.detach()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}/{steps}  loss {loss:.4f}", flush=True)
    policy.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Read the options and teach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--repairs", action="store_true", help="also show drafts sent back")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    teach(args.model, args.out, args.steps, args.threads, repairs=args.repairs)


if __name__ == "__main__":
    main()
