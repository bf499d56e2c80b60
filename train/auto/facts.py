"""What is measured before anything is chosen: the model's size and the rows' lengths."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.steps import THINK_CLOSE, THINK_OPEN
from train.data import Row

if TYPE_CHECKING:
    from transformers import PretrainedConfig

HEADER_LENGTH_BYTES = 8  # of a safetensors file: how long its JSON header is, little-endian


@dataclass(frozen=True)
class ModelFacts:
    """A causal language model's size."""

    num_parameters: int
    num_layers: int
    hidden_size: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int | None  # None: the configuration names no limit

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """Keys and values of one position over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * bytes_per_value


@dataclass(frozen=True)
class RowFacts:
    """The training rows' lengths in the model's own tokens."""

    num_rows: int
    num_steps: int  # expert steps over all rows: SRL's problems
    most_steps: int  # in one row; 0 without expert steps
    prompt_tokens: int  # of the longest problem, rendered
    context_tokens: int  # of the longest problem with its expert steps after it
    step_tokens: int  # of the longest generation: think block, step, end
    has_thoughts: bool  # `step_tokens` holds the hidden working too


def read_model_facts(model: str, config: "PretrainedConfig") -> ModelFacts:
    """Count the parameters of a folder's safetensors, or of the configuration of a hub model."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    return ModelFacts(
        num_parameters=_count_in_files(Path(model)) or _count_by_config(config),
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        num_kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocab_size=text.vocab_size,
        max_positions=getattr(text, "max_position_embeddings", None),
    )


def _count_in_files(folder: Path) -> int:
    """Parameters in a folder's weight files, read from their headers; 0 when there are none."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
            header = json.loads(file.read(length))
        total += sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
    return total


def _count_by_config(config: "PretrainedConfig") -> int:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):  # shapes without storage
        return AutoModelForCausalLM.from_config(config).num_parameters()


def measure_rows(
    rows: Sequence[Row],
    render: Callable[[Row, Sequence[str]], str],
    count_tokens: Callable[[str], int],
) -> RowFacts:
    """Measure every row; `render(row, earlier steps)` gives a prompt's text."""
    prompt = context = step_tokens = 0
    for row in rows:
        prompt = max(prompt, count_tokens(render(row, ())))
        if row.expert_steps:
            context = max(context, count_tokens(render(row, row.expert_steps)))
        thoughts = row.expert_thoughts or ("",) * len(row.expert_steps)
        for step, thought in zip(row.expert_steps, thoughts, strict=True):
            text = f"{THINK_OPEN}{thought}{THINK_CLOSE}{step.strip()}"
            step_tokens = max(step_tokens, count_tokens(text) + 1)
    with_steps = [row for row in rows if row.expert_steps]
    return RowFacts(
        num_rows=len(rows),
        num_steps=sum(len(row.expert_steps) for row in with_steps),
        most_steps=max((len(row.expert_steps) for row in with_steps), default=0),
        prompt_tokens=prompt,
        context_tokens=max(prompt, context),
        step_tokens=step_tokens,
        has_thoughts=bool(with_steps) and all(row.expert_thoughts for row in with_steps),
    )
