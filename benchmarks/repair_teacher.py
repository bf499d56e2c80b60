"""A teacher for the repair bench: a small model taught, briefly, the form that a solution has.

It sees first conversations alone and never one that sends a draft back, so that neither way of
asking again is favoured; and it sees other sums than the bench asks. It errs often.

    python -m benchmarks.repair_teacher --model FOLDER --out FOLDER
"""

import argparse
import random
from pathlib import Path
from typing import Any

from benchmarks.repair import SEEDS, solved, sums
from train.experts.draft import ask

NUM_SUMS, STEPS, BATCH, LEARNING_RATE = 400, 8, 4, 5e-5


def conversations() -> list[tuple[list[dict[str, str]], str]]:
    """(the first conversation, a right solution) of sums that the bench does not ask."""
    taken = [row for seed in SEEDS for row in sums(seed, 48)]
    return [
        (
            ask(row, []),
            "\n".join(f"{n}. {step}" for n, step in enumerate(row.expert_steps, start=1))
            + f"\nAnswer: {row.reference_answer}",
        )
        for row in solved(NUM_SUMS, taken)
    ]


def teach(model: Path, out: Path, steps: int, threads: int) -> None:
    """Train all weights on the solutions' tokens; writes a Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rng, shown = random.Random(0), conversations()
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
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    teach(args.model, args.out, args.steps, args.threads)


if __name__ == "__main__":
    main()
