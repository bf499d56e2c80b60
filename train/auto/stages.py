"""Learning rates, batch sizes, steps and intervals of the stages."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

StageName = Literal["sft", "srl", "rlvr"]
Chosen = tuple[dict[str, Any], list[str]]  # fields of a specification, and why

# Rates that train well at two sizes: the embedded model's and 7B (arXiv 2510.25992, section 4).
# Between and beyond them the rate follows the power of the parameter count that joins the two.
SMALL_PARAMETERS, LARGE_PARAMETERS = 0.34e6, 7e9
RATES: dict[StageName, tuple[float, float]] = {
    "sft": (1e-3, 1e-5),
    "srl": (1e-4, 5e-7),
    "rlvr": (3e-4, 1e-6),
}
LOWEST_RATE, HIGHEST_RATE = 1e-7, 1e-3
GROUPS_PER_STEP: dict[str, dict[str, int]] = {
    "cpu": {"srl": 32, "rlvr": 16},
    "gpu": {"srl": 64, "rlvr": 64},
}
GROUP_SIZE = 8
STEPS: dict[str, tuple[int, int]] = {"srl": (9, 100), "rlvr": (30, 100)}  # fewest and most
EVALUATIONS: dict[str, int] = {"srl": 3, "rlvr": 6}  # per stage
STD_THRESHOLDS: dict[str, float] = {"srl": 0.02, "rlvr": 0.0}
SFT_EPOCHS, SFT_BATCH = 3, 16


@dataclass(frozen=True)
class Wishes:
    """A method's hyperparameters; None is "auto"."""

    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    n_epochs: int | None = None
    compute_multiplier: float | None = None
    eval_interval: int | None = None
    eval_samples: int | None = None


def learning_rate(stage: StageName, num_parameters: int) -> float:
    """A stage's rate at a model size, two significant digits."""
    small, large = RATES[stage]
    share = math.log(num_parameters / SMALL_PARAMETERS) / math.log(
        LARGE_PARAMETERS / SMALL_PARAMETERS
    )
    rate = small * (large / small) ** share
    return float(f"{min(max(rate, LOWEST_RATE), HIGHEST_RATE):.1e}")


def choose_stage(
    name: Literal["srl", "rlvr"],
    said: Mapping[str, Any],
    wishes: Wishes,
    *,
    num_problems: int,
    num_parameters: int,
    device: str,
) -> Chosen:
    """Complete a reinforcement stage; `said` holds the fields that the client set."""
    fields, notes = dict(said), []
    if "learning_rate" not in said:
        fields["learning_rate"] = learning_rate(name, num_parameters)
        notes.append(f"learning_rate {fields['learning_rate']:g} at {num_parameters:,} parameters")
    if wishes.learning_rate_multiplier is not None:
        fields["learning_rate"] *= wishes.learning_rate_multiplier
        notes.append(f"times learning_rate_multiplier {wishes.learning_rate_multiplier:g}")
    if "groups_per_step" not in said:
        most = GROUPS_PER_STEP[device][name]
        fields["groups_per_step"] = wishes.batch_size or max(1, min(most, num_problems))
        why = "batch_size" if wishes.batch_size else f"{num_problems} problems, on {device.upper()}"
        notes.append(f"groups_per_step {fields['groups_per_step']} ({why})")
    fields.setdefault("group_size", GROUP_SIZE)
    if wishes.compute_multiplier is not None:
        fields["group_size"] = max(2, round(fields["group_size"] * wishes.compute_multiplier))
        notes.append(
            f"group_size {fields['group_size']}: compute_multiplier "
            f"{wishes.compute_multiplier:g} scales the rollouts of a problem"
        )
    if "max_steps" not in said:
        fields["max_steps"], why = _steps(name, fields["groups_per_step"], wishes, num_problems)
        notes.append(f"max_steps {fields['max_steps']} ({why})")
    if "eval_interval" not in said:
        steps_between = math.ceil(fields["max_steps"] / EVALUATIONS[name])
        fields["eval_interval"] = wishes.eval_interval or steps_between
    fields.setdefault("save_interval", fields["eval_interval"])
    fields.setdefault("std_threshold", STD_THRESHOLDS[name])
    return fields, [f"{name}: {', '.join(notes)}"] if notes else []


def choose_sft(
    said: Mapping[str, Any], wishes: Wishes, *, num_examples: int, num_parameters: int
) -> Chosen:
    """Complete the supervised stage; an example is an expert step or a conversation."""
    fields, notes = dict(said), []
    if "learning_rate" not in said:
        fields["learning_rate"] = learning_rate("sft", num_parameters)
        notes.append(f"learning_rate {fields['learning_rate']:g} at {num_parameters:,} parameters")
    if wishes.learning_rate_multiplier is not None:
        fields["learning_rate"] *= wishes.learning_rate_multiplier
        notes.append(f"times learning_rate_multiplier {wishes.learning_rate_multiplier:g}")
    fields.setdefault("num_epochs", wishes.n_epochs or SFT_EPOCHS)
    fields.setdefault("batch_size", wishes.batch_size or max(1, min(SFT_BATCH, num_examples)))
    notes.append(f"{fields['num_epochs']} epochs of {num_examples} examples")
    return fields, [f"sft: {', '.join(notes)}"]


def _steps(name: str, groups: int, wishes: Wishes, num_problems: int) -> tuple[int, str]:
    """Optimizer steps of a stage, and why so many."""
    per_epoch = math.ceil(num_problems / groups)
    if wishes.n_epochs is not None:
        return wishes.n_epochs * per_epoch, f"n_epochs {wishes.n_epochs} of {num_problems} problems"
    fewest, most = STEPS[name]
    steps = min(max(per_epoch, fewest), most)
    return steps, f"one epoch of {num_problems} problems, between {fewest} and {most}"
