"""The result: a plain Hugging Face folder whose card says how to sample it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from train.spec import JobSpec

# What only training needs: our optimizer's state, and that of TRL's trainer (SFT).
NOT_EXPORTED = (
    "optimizer.safetensors",
    "manifest.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state*.pth",
    "trainer_state.json",
)
CARD = '''\
---
library_name: transformers
pipeline_tag: text-generation
---

# A model trained with Ferrata

Base model: `{base}`. Stages: {stages}. Inference protocol: **{protocol}**.

{how} Sampling it in another way is not what was trained or evaluated.

```python
import re
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SYSTEM = {system!r}
STEP_END = {step_end!r}
STEPWISE, MAX_TOKENS, MAX_TURNS, MAX_LENGTH = {stepwise}, {max_tokens}, {max_turns}, {max_model_len}


def parse_step(text):
    """Return the step behind the one think block that opens `text`; None for another form."""
    match = re.fullmatch(r"\\s*<think>(.*?)</think>(.*)", text, re.DOTALL)
    if match is None or text.count("<think>") != 1 or text.count("</think>") != 1:
        return None
    return match[2].strip() or None


def generate_turn(model, tokenizer, ids):
    """Return (text, whether the model ended its turn itself, whether the step was closed)."""
    prompt_length, stops = ids.shape[1], {{}}
    if STEPWISE:
        stops = {{"stop_strings": [STEP_END], "tokenizer": tokenizer}}
    ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {{tokenizer.eos_token_id}}
    text, seen = "", 0
    while True:
        room = min(MAX_TOKENS + prompt_length, MAX_LENGTH) - ids.shape[1]
        if room <= 0:
            return text, False, False
        with torch.no_grad():
            ids = model.generate(ids, max_new_tokens=room, do_sample=False, **stops)
        text = tokenizer.decode(ids[0, prompt_length:], skip_special_tokens=True)
        if ids[0, -1].item() in ends:
            return text, True, False
        close = text.find(STEP_END, seen) if STEPWISE else -1
        if close < 0:
            return text, False, False
        if text.count("<think>", 0, close) <= text.count("</think>", 0, close):
            return text[:close], False, True
        seen = len(text)  # STEP_END inside a think block closes nothing: the same turn goes on


def solve(model, tokenizer, problem):
    """Return the text of the last turn, greedy; None when the model does not end it itself."""
    messages = [{{"role": "user", "content": problem}}]
    if SYSTEM:
        messages.insert(0, {{"role": "system", "content": SYSTEM}})
    context = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    for _ in range(MAX_TURNS):
        ids = tokenizer(context, return_tensors="pt", add_special_tokens=False).input_ids
        if ids.shape[1] >= MAX_LENGTH:
            return None
        text, ended, closed = generate_turn(model, tokenizer, ids)
        if ended:
            return text
        step = parse_step(text)
        if not closed or step is None:
            return None
        context += step + STEP_END
    return None


if __name__ == "__main__":  # run it in this folder
    print(
        solve(
            AutoModelForCausalLM.from_pretrained("."),
            AutoTokenizer.from_pretrained("."),
            input("problem: "),
        )
    )
```
'''
HOW = {
    "stepwise": (
        "Each generation is one think block and one step. A step closes with STEP_END, the last "
        "one with the end of turn; the next step's context holds the earlier steps without their "
        "thinks."
    ),
    "single": "One generation holds the whole solution, think blocks inline.",
}


def export_model(checkpoint: Path, target: Path, spec: JobSpec, stages: Sequence[str]) -> Path:
    """Copy a committed checkpoint to `target` and write its card; `stages` made it, in order."""
    hidden = target.with_name(f".{target.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    shutil.copytree(checkpoint, hidden, ignore=shutil.ignore_patterns(*NOT_EXPORTED))
    stepwise = spec.sampling.protocol == "stepwise"
    card = CARD.format(
        base=Path(spec.model).name if spec.model.startswith("/") else spec.model,
        stages=" -> ".join(name.upper() for name in stages),
        protocol=spec.sampling.protocol,
        how=HOW[spec.sampling.protocol],
        system=spec.prompt.system,
        step_end=spec.prompt.step_end,
        stepwise=stepwise,
        max_tokens=spec.sampling.max_tokens,
        max_turns=spec.sampling.max_turns if stepwise else 1,
        max_model_len=spec.rollout.max_model_len,
    )
    (hidden / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    hidden.rename(target)
    return target
