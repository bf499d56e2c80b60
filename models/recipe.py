"""Trains the tiny base model of the quickstart from scratch, by next-token prediction.

The base knows the task's alphabet of skills, but not the plan. Easy problems (1-2 lines) are
solved rightly in its documents; problems of 3-6 lines are solved *sloppily*: lines are skipped and
repeated, although each is run correctly. So long text is in distribution, the base gets a single
next step right now and then, and hardly ever a whole hard problem: what RLVR alone cannot learn
from, and SRL can.

A document comes in one of two forms. *Stepwise*: earlier steps without their thinks, then one
step with its think, the loss on that last step (what a rollout's turn looks like). *Single*: the
whole solution, every think in its place. The turn ends with `<|end|>` after the last step and
with a newline after the others. Called by hand; the result is committed or published, and no
other code imports this file.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "quickstart"))
from generate import HARD_LINES, sample_problem  # noqa: E402

from rollout.vector_math import use_threads  # noqa: E402
from train.experts.digit_programs import parse, solve, write_step  # noqa: E402

PAD, USER, ASSISTANT, SYSTEM, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
THINK, END_THINK = "<think>", "</think>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}"
    "{% if m.role == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# Draws (context, target) as text.
DocumentSampler = Callable[[random.Random], tuple[str, str]]

EASY_SHARE = 0.4
STEPWISE_SHARE = 0.9
MAX_SLOPPY_STEPS = 8
# How many lines a sloppy step advances, and how often. One is right: often enough for SRL to have
# groups with different rewards from the start, so rarely that five in a row hardly happen. The
# errors are structured (skip, repeat) because the base must know where in the program it is: with
# lines drawn at random it learns no such thing, and SRL on few experts then memorises them.
STRIDES = {1: 0.3, 2: 0.3, 3: 0.15, 0: 0.25}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a character-level tokenizer over printable ASCII and the newline.

    The think tags are added tokens but not special ones: they must survive decoding with
    `skip_special_tokens=True`, because the format check reads them.
    """
    special = [PAD, USER, ASSISTANT, SYSTEM, END]
    characters = ["\n", *(chr(code) for code in range(32, 127))]
    vocab = {token: i for i, token in enumerate([*special, THINK, END_THINK, *characters])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens(special)
    core.add_tokens([AddedToken(t, special=False, normalized=False) for t in (THINK, END_THINK)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token="?",
        extra_special_tokens=[USER, ASSISTANT, SYSTEM],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def sloppy_walk(rng: random.Random, num_lines: int) -> list[int]:
    """Return the lines, by position, of a careless walk through a program.

    From the line run last, the walk advances by a random number of lines (`STRIDES`). It ends
    when the program's last line has been run. A walk over `MAX_SLOPPY_STEPS` is drawn again, and
    so is one that happens to solve a hard problem.
    """
    strides, weights = list(STRIDES), list(STRIDES.values())
    while True:
        walk = [-1]
        while walk[-1] < num_lines - 1 and len(walk) <= MAX_SLOPPY_STEPS:
            position = walk[-1] + rng.choices(strides, weights)[0]
            if 0 <= position < num_lines:
                walk.append(position)
        finished = walk[-1] == num_lines - 1
        solved = walk[1:] == list(range(num_lines))
        if finished and not (solved and num_lines in HARD_LINES):
            return walk[1:]


def sloppy_solution(rng: random.Random, problem: str) -> tuple[list[str], list[str]]:
    """Return steps and thoughts of a careless walk; every line of it is run correctly."""
    state, lines = parse(problem)
    steps, thoughts = [], []
    for position in sloppy_walk(rng, len(lines)):
        thought, step, state = write_step(lines[position], state)
        thoughts.append(thought)
        steps.append(step)
    return steps, thoughts


def sample_document(rng: random.Random) -> tuple[str, str]:
    """Return (context, target) as text; the loss falls on the target only."""
    if rng.random() < EASY_SHARE:
        problem = sample_problem(rng, rng.choice((1, 2)))
        steps, thoughts, _ = solve(problem)
    else:
        problem = sample_problem(rng, rng.randint(3, 6))
        steps, thoughts = sloppy_solution(rng, problem)
    return write_document(rng, problem, steps, thoughts)


def write_document(
    rng: random.Random, problem: str, steps: list[str], thoughts: list[str]
) -> tuple[str, str]:
    """Return (context, target): one step of the solution, or all of it, in a form by chance."""
    ends = ["\n"] * (len(steps) - 1) + [END]
    turns = [
        f"{THINK}{thought}{END_THINK}{step}{end}"
        for thought, step, end in zip(thoughts, steps, ends, strict=True)
    ]
    context = f"{USER}{problem}{ASSISTANT}"
    if rng.random() < STEPWISE_SHARE:
        k = rng.randrange(len(steps))
        return context + "".join(f"{step}\n" for step in steps[:k]), turns[k]
    return context, "".join(turns)


def make_batch(
    rng: random.Random,
    encode: dict[str, int],
    num_documents: int,
    num_chunks: int,
    sample: DocumentSampler,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return (ids, labels) chunks `[D/num_chunks, T]` of like length, padded on the right."""
    rows = []
    for _ in range(num_documents):
        context, target = (encode_text(part, encode) for part in sample(rng))
        rows.append((context + target, [-100] * len(context) + target))
    rows.sort(key=lambda row: len(row[0]))
    size = num_documents // num_chunks
    chunks = []
    for start in range(0, num_documents, size):
        part = rows[start : start + size]
        width = max(len(ids) for ids, _ in part)
        ids = torch.tensor([i + [encode[PAD]] * (width - len(i)) for i, _ in part])
        labels = torch.tensor([y + [-100] * (width - len(y)) for _, y in part])
        chunks.append((ids, labels))
    return chunks


def encode_text(text: str, vocab: dict[str, int]) -> list[int]:
    """Encode as the tokenizer does, but without its overhead: tags first, then characters."""
    ids, i = [], 0
    while i < len(text):
        end = i + 1
        if text[i] == "<":  # in a document a `<` always opens a tag
            end = text.index(">", i) + 1
        ids.append(vocab[text[i:end]])
        i = end
    return ids


def build_model(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Return a freshly initialised stock Qwen3."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=args.width,
        intermediate_size=8 * args.width // 3,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // 32,
        num_key_value_heads=args.width // 32,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


def train(
    model: Qwen3ForCausalLM,
    vocab: dict[str, int],
    args: argparse.Namespace,
    rng: random.Random,
    sample: DocumentSampler = sample_document,
) -> None:
    """Train in place for `args.steps` steps: AdamW, linear warm-up, cosine decay to zero.

    `sample` draws a document; the learning benchmark brings its own.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    started_s = time.monotonic()
    for step in range(args.steps):
        warmup = min(1.0, (step + 1) / 100)
        decay = 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * warmup * decay
        chunks = make_batch(rng, vocab, args.documents, num_chunks=4, sample=sample)
        num_targets = sum(int((labels[:, 1:] != -100).sum()) for _, labels in chunks)
        total = 0.0
        for ids, labels in chunks:
            # Padding is on the right, and attention is causal: no mask is needed.
            hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
            wanted = labels[:, 1:] != -100
            logits = model.lm_head(hidden[wanted])
            loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][wanted], reduction="sum")
            (loss / num_targets).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == args.steps - 1:
            elapsed_s = time.monotonic() - started_s
            print(
                f"step {step + 1}/{args.steps}  loss {total / num_targets:.4f}  {elapsed_s:.0f} s",
                flush=True,
            )


MODEL_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# ferrata-tiny

A language model of {num_parameters:,} parameters (stock Qwen3 architecture, {layers} layers of
width {width}, characters as tokens), made for Ferrata's quickstart: small enough to be trained by
SRL and RLVR on a laptop in minutes. It knows one toy task, digit programs, and is of no other use.

- **Can:** run any single program line, and solve problems of one or two lines.
- **Cannot:** keep to the program's order in longer ones. Its training documents solve problems of
  3-6 lines carelessly, and never solve one of {hard} lines.
- **Format:** `<|user|>9037:1ri,2ls<|assistant|><think>1:7309</think>1ri=8410` and a newline, or
  `<|end|>` after the last step. Earlier steps stand in the context without their think blocks.
- **Made by:** `models/recipe.py --seed {seed} --steps {steps}` in about {minutes:.0f} minutes on
  two CPU cores, from generated text only. The same seed gives the same documents and initial
  weights.
"""


def main() -> None:
    """Train the base and write it in the layout of a Hugging Face model repository."""
    parser = argparse.ArgumentParser(description="Train the tiny base model from scratch.")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "ferrata-tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--documents", type=int, default=128, help="documents per step")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--width", type=int, default=96, help="a multiple of 32")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    use_threads(args.threads)
    torch.manual_seed(args.seed)
    started_s = time.monotonic()
    tokenizer = build_tokenizer()
    model = build_model(args, tokenizer)
    train(model, tokenizer.get_vocab(), args, random.Random(args.seed))

    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=1.0,
    )
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    card = MODEL_CARD.format(
        num_parameters=model.num_parameters(),
        layers=args.layers,
        width=args.width,
        hard=" or ".join(map(str, HARD_LINES)),
        seed=args.seed,
        steps=args.steps,
        minutes=(time.monotonic() - started_s) / 60,
    )
    (args.out / "README.md").write_text(card, encoding="utf-8")
    print(f"saved {args.out}")


if __name__ == "__main__":
    main()
