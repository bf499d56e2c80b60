"""From rows to prompts: one chat template decides where earlier steps stand.

The prompt of step k is the rendered conversation, the opening of the assistant's turn, then the
earlier steps, each closed by `step_end`, without their think blocks. SRL, RLVR, evaluation and
the export all render through this module.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.steps import THINK_CLOSE, THINK_OPEN
from train.data import DataError, Row
from train.spec import JobSpec, PromptSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptRenderer:
    """Renders rows with a model's own chat template. Raises ValueError when it has none."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", spec: PromptSpec) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; add "
                "`chat_template` to its tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.spec = spec

    def render(self, row: Row, earlier_steps: Sequence[str] = (), title: str | None = None) -> str:
        """Return the text from which the policy continues."""
        messages = list(row.messages)
        if self.spec.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.spec.system})
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        steps = "".join(step.strip() + self.spec.step_end for step in earlier_steps)
        return f"{text}{steps}" + (f"{title}: " if title else "")

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered text; the template has placed the special tokens already."""
        return self.tokenizer.encode(text, add_special_tokens=False)


def load_tokenizer(spec: JobSpec) -> "PreTrainedTokenizerBase":
    """Load the job's tokenizer. Raises ValueError, naming the model and the fix."""
    return tokenizer_of(spec.model)


def tokenizer_of(model: str) -> "PreTrainedTokenizerBase":
    """Load a model's tokenizer. Raises ValueError, naming the model and the fix."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model {model!r}: no tokenizer could be loaded ({str(error).splitlines()[0]}); "
            "give a hub name, or a folder that holds config.json, tokenizer.json and "
            "model.safetensors"
        ) from None


def check_lengths(spec: JobSpec, renderer: PromptRenderer, path: Path, rows: Sequence[Row]) -> None:
    """Raise DataError when a row's longest prompt leaves no room for one generation.

    Also when an expert's step is longer than a generation may be: the policy could never write it.
    """
    limits = spec.generation_limits()
    name, most = max(limits.items(), key=lambda item: item[1])
    limit = spec.rollout.max_model_len - most
    step_name = "srl.max_tokens" if "srl.max_tokens" in limits else "sampling.max_tokens"
    step_tokens = limits[step_name]
    titled = spec.srl is not None and spec.srl.title_context
    for row in rows:
        length = max(
            len(renderer.encode(renderer.render(row, row.expert_steps[:k], title)))
            for k, title in _longest_prompts(row, titled=titled)
        )
        if length > limit:
            raise DataError.at(
                path,
                row.line,
                f"its prompt has {length} tokens, but "
                f"rollout.max_model_len {spec.rollout.max_model_len} less {name} "
                f"{most} leaves {limit}; shorten the row or raise "
                "rollout.max_model_len",
            )
        for k, step in enumerate(row.expert_steps):
            target = row.titled_step(k)[1] if titled else step
            least = len(renderer.encode(f"{THINK_OPEN}{THINK_CLOSE}{target.strip()}")) + 1
            if least > step_tokens:
                raise DataError.at(
                    path,
                    row.line,
                    f"expert step {k + 1} takes {least} tokens with its "
                    f"think block and end, but {step_name} is {step_tokens}; shorten the "
                    f"step or raise {step_name}",
                )
        if any(spec.prompt.step_end in step.strip() for step in row.expert_steps):
            raise DataError.at(
                path,
                row.line,
                f"an expert step contains prompt.step_end "
                f"{spec.prompt.step_end!r}, which would cut it in two; choose a `step_end` that "
                "no step contains, such as '\\n\\n'",
            )


def _longest_prompts(row: Row, *, titled: bool) -> list[tuple[int, str | None]]:
    """(number of earlier steps, title) of the prompts that may be the row's longest."""
    last = max(0, len(row.expert_steps) - 1)
    if not titled or not row.expert_steps:
        return [(last, None)]
    return [(k, row.titled_step(k)[0]) for k in range(len(row.expert_steps))]
