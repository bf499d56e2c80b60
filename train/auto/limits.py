"""How long a generation, a rollout and a prompt may be, and how prompts are written."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from rollout.types import InferenceProtocol
from train.auto.facts import ModelFacts, RowFacts

HEADROOM = 1.4  # a policy may need more tokens for a step than the expert
TURNS_HEADROOM = 4 / 3  # and more steps
THINK_TOKENS = 256  # for hidden working that no row shows; less on models of few positions
WHOLE_SOLUTION_TOKENS = {"cpu": 512, "gpu": 2048}  # where no row shows a solution
SYSTEM_SHARE = 8  # a system prompt takes at most one part in so many of the positions
STEP_ENDS = ("\n", "\n\n", "\n\n\n", "\n---\n")
ASSUMED_POSITIONS = 4096  # of a model that names no limit
ROUND_TO = 8


def choose_protocol(has_steps: bool) -> tuple[InferenceProtocol, str]:
    """Stepwise where experts show steps; (protocol, reason)."""
    if has_steps:
        return "stepwise", "protocol stepwise: rows carry expert steps"
    return "single", "protocol single: no row carries expert steps"


def choose_step_end(steps: Iterable[str]) -> str | None:
    """The first text that closes a step and stands in none; None when there is none."""
    steps = [step.strip() for step in steps]
    return next((end for end in STEP_ENDS if not any(end in step for step in steps)), None)


def choose_limits(
    said: Mapping[str, Any],
    max_model_len: int | None,
    protocol: str,
    rows: RowFacts,
    model: ModelFacts,
    device: str,
    stage_tokens: int = 0,
) -> tuple[dict[str, Any], int, list[str]]:
    """Complete `sampling`; return (its fields, rollout.max_model_len, notes).

    `stage_tokens` is the largest `max_tokens` that a stage sets for itself.
    """
    positions = model.max_positions or ASSUMED_POSITIONS
    fields, notes = {"protocol": protocol, **said}, []
    most = max_model_len or positions
    if protocol == "stepwise":
        steps = rows.most_steps or 1
        fields.setdefault("max_turns", math.ceil(steps * TURNS_HEADROOM))
        notes.append(f"max_turns {fields['max_turns']} (experts take at most {steps})")
    if "max_tokens" not in said:
        wanted, least, why = _generation_tokens(protocol, rows, positions, device)
        room = most - (rows.prompt_tokens if protocol == "single" else rows.context_tokens)
        fields["max_tokens"] = max(least, min(wanted, room), 1)
        notes.append(f"max_tokens {fields['max_tokens']} ({why})")
    if max_model_len is None:
        earlier = fields.get("max_turns", 1) * rows.step_tokens if protocol == "stepwise" else 0
        needed = max(rows.prompt_tokens + earlier, rows.context_tokens)
        needed += max(fields["max_tokens"], stage_tokens)
        max_model_len = min(_round_up(needed, 64), positions)
        notes.append(
            f"max_model_len {max_model_len} (prompts of at most {rows.prompt_tokens} tokens; the "
            f"model has {positions} positions)"
        )
    return fields, max_model_len, [f"sampling: {', '.join(notes)}"] if notes else []


def _generation_tokens(
    protocol: str, rows: RowFacts, positions: int, device: str
) -> tuple[int, int, str]:
    """(tokens wanted for one generation, fewest that hold what the experts write, why)."""
    if not rows.most_steps:
        wanted = WHOLE_SOLUTION_TOKENS[device]
        return wanted, 1, f"no row shows a solution; at most {wanted} on {device.upper()}"
    think = 0 if rows.has_thoughts else min(THINK_TOKENS, positions // SYSTEM_SHARE)
    if protocol == "single":
        shown = rows.most_steps * rows.step_tokens
        wanted = _round_up(shown * HEADROOM) + think * rows.most_steps
        return wanted, shown, f"experts write at most {shown} tokens in a solution"
    wanted = _round_up(rows.step_tokens * HEADROOM) + think
    text = f"experts write at most {rows.step_tokens} tokens in a step"
    text += "" if rows.has_thoughts else f", and {think} are for thinking"
    return wanted, rows.step_tokens, text


def system_prompt_fault(
    text: str, written: str, num_tokens: int, model: ModelFacts, *, lost: bool
) -> str | None:
    """Why a model cannot be given the system prompt `text`; None when it can.

    `written` is a conversation with it, rendered by the model's template; `lost`: some of its
    characters have no token; `num_tokens`: of the text.
    """
    positions = model.max_positions or ASSUMED_POSITIONS
    if text not in written:
        return "the model's chat template does not write system messages"
    if lost:
        return "the model's tokenizer has no tokens for some of its characters"
    if num_tokens * SYSTEM_SHARE > positions:
        return f"it takes {num_tokens} of the model's {positions} positions"
    return None


def _round_up(value: float, step: int = ROUND_TO) -> int:
    return math.ceil(value / step) * step
