"""The result: a plain Hugging Face folder whose card says how to sample it."""

import shutil
from pathlib import Path

from train.spec import JobSpec

NOT_EXPORTED = ("optimizer.safetensors", "manifest.json")
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
STEPWISE, MAX_TOKENS, MAX_TURNS = {stepwise}, {max_tokens}, {max_turns}


def solve(model, tokenizer, problem):
    """Return the final text, greedy; None when the model does not end its turn itself."""
    messages = [{{"role": "user", "content": problem}}]
    if SYSTEM:
        messages.insert(0, {{"role": "system", "content": SYSTEM}})
    context = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    for _ in range(MAX_TURNS):
        inputs = tokenizer(context, return_tensors="pt", add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        stop = {{"stop_strings": [STEP_END], "tokenizer": tokenizer}} if STEPWISE else {{}}
        with torch.no_grad():
            output = model.generate(
                **inputs, max_new_tokens=MAX_TOKENS, do_sample=False, **stop
            )
        new = output[0, inputs["input_ids"].shape[1] :]
        text = tokenizer.decode(new, skip_special_tokens=True)
        if new[-1] == tokenizer.eos_token_id:
            return text
        step = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL).strip()
        if not text.endswith(STEP_END) or not step:
            return None
        context += step + STEP_END
    return None
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


def export_model(checkpoint: Path, target: Path, spec: JobSpec) -> Path:
    """Copy a committed checkpoint to `target` and write its card."""
    hidden = target.with_name(f".{target.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    shutil.copytree(checkpoint, hidden, ignore=shutil.ignore_patterns(*NOT_EXPORTED))
    stepwise = spec.sampling.protocol == "stepwise"
    card = CARD.format(
        base=Path(spec.model).name if spec.model.startswith("/") else spec.model,
        stages=" -> ".join(n.upper() for n in ("sft", "srl", "rlvr") if getattr(spec, n)),
        protocol=spec.sampling.protocol,
        how=HOW[spec.sampling.protocol],
        system=spec.prompt.system,
        step_end=spec.prompt.step_end,
        stepwise=stepwise,
        max_tokens=spec.sampling.max_tokens,
        max_turns=spec.sampling.max_turns if stepwise else 1,
    )
    (hidden / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    hidden.rename(target)
    return target
