"""Counted work: tokens of a job's stages, and the floating-point operations behind them.

A forward pass takes 2 operations per parameter and token, plus 4 per layer, hidden unit and
position attended to; a training step takes three times its forward pass (Kaplan et al.,
arXiv 2001.08361, section 2.1). Tokens come from the rows, in the model's own tokens: what the
experts write stands for what the policy will write, and the limits bound it. Pure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rollout.collector import MAX_OVERSAMPLING
from rollout.steps import THINK_CLOSE, THINK_OPEN
from train.auto.facts import ModelFacts
from train.data import Row
from train.spec import JobSpec, StageSpec, is_srl

TRAINING_PASSES = 3  # forward, and a backward pass of twice its work


@dataclass(frozen=True)
class Work:
    """Tokens through the model, and the operations that they take."""

    prompt_tokens: float = 0.0  # read while sampling, earlier steps read again for every step
    sampled_tokens: float = 0.0
    trained_tokens: float = 0.0  # prompts included
    sampling_flops: float = 0.0
    training_flops: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            *(getattr(self, name) + getattr(other, name) for name in Work.__dataclass_fields__)
        )

    def __mul__(self, factor: float) -> "Work":
        return Work(*(getattr(self, name) * factor for name in Work.__dataclass_fields__))


def forward_flops(model: ModelFacts, num_tokens: float, context_tokens: float) -> float:
    """Of a forward pass over `num_tokens`, each attending to `context_tokens` on average."""
    attention = 4 * model.num_layers * model.hidden_size * context_tokens
    return num_tokens * (2 * model.num_parameters + attention)


def turn_work(model: ModelFacts, prompt: float, sampled: float, *, trained: bool) -> Work:
    """One generation: `sampled` tokens after a prompt, and what learning from it takes."""
    total = prompt + sampled
    forward = forward_flops(model, total, total / 2)
    return Work(
        prompt_tokens=prompt,
        sampled_tokens=sampled,
        trained_tokens=total if trained else 0.0,
        sampling_flops=forward,
        training_flops=TRAINING_PASSES * forward if trained else 0.0,
    )


@dataclass(frozen=True)
class TurnLengths:
    """Tokens of every turn of a row's expert solution: (prompt, generation) pairs."""

    turns: tuple[tuple[int, int], ...]


def expert_turns(
    rows: Sequence[Row],
    render: Callable[[Row, Sequence[str]], str],
    count_tokens: Callable[[str], int],
    protocol: str,
) -> list[TurnLengths]:
    """Measure the rows that carry expert steps, as the policy would write them."""
    measured = []
    for row in (row for row in rows if row.expert_steps):
        thoughts = row.expert_thoughts or ("",) * len(row.expert_steps)
        written = [
            count_tokens(f"{THINK_OPEN}{thought}{THINK_CLOSE}{step.strip()}") + 1
            for step, thought in zip(row.expert_steps, thoughts, strict=True)
        ]
        if protocol == "single":
            turns = [(count_tokens(render(row, ())), sum(written))]
        else:
            prompts = [
                count_tokens(render(row, row.expert_steps[:k]))
                for k in range(len(row.expert_steps))
            ]
            turns = list(zip(prompts, written, strict=True))
        measured.append(TurnLengths(tuple(turns)))
    return measured


def rollout_work(model: ModelFacts, measured: Sequence[TurnLengths], *, trained: bool) -> Work:
    """Mean work of one whole rollout that is as long as the experts' solutions."""
    works = [
        sum((turn_work(model, p, s, trained=trained) for p, s in row.turns), Work())
        for row in measured
    ]
    return sum(works, Work()) * (1 / len(works))


def step_work(model: ModelFacts, measured: Sequence[TurnLengths]) -> Work:
    """Mean work of one SRL rollout: a single step."""
    turns = [turn for row in measured for turn in row.turns]
    works = [turn_work(model, prompt, sampled, trained=True) for prompt, sampled in turns]
    return sum(works, Work()) * (1 / len(works))


def longest_rollout(
    model: ModelFacts, spec: JobSpec, shortest: int, longest: int, stage: str
) -> Work:
    """Bound the work of a rollout whose first prompt has `shortest` to `longest` tokens.

    Every figure is a bound by itself. A turn that thinks much and writes a short step leaves the
    next prompt short, so that it may think as much again; one that thinks little leaves it long.
    """
    limits, most = spec.sampling, spec.rollout.max_model_len
    own = spec.reinforcement_stages.get(stage)
    max_tokens = (own.max_tokens if own else None) or limits.max_tokens
    turns = limits.max_turns if limits.protocol == "stepwise" and not is_srl(stage) else 1
    sampled, trained, work = min(max_tokens, most - shortest), own is not None, Work()
    for turn in range(turns):
        prompt = min(longest + turn * max_tokens, most)
        total = min(prompt + sampled, most)
        flops = forward_flops(model, total, total / 2)
        work += Work(
            prompt_tokens=prompt,
            sampled_tokens=sampled,
            trained_tokens=total if trained else 0,
            sampling_flops=flops,
            training_flops=TRAINING_PASSES * flops if trained else 0,
        )
    return work


def prompt_lengths(
    rows: Sequence[Row],
    render: Callable[[Row, Sequence[str]], str],
    count_tokens: Callable[[str], int],
    *,
    of_steps: bool,
) -> tuple[int, int]:
    """(shortest, longest) prompt in tokens: of whole problems, or of every expert step."""
    lengths = [
        count_tokens(render(row, row.expert_steps[:k]))
        for row in rows
        for k in range(len(row.expert_steps) if of_steps else 1)
    ]
    return min(lengths), max(lengths)


def stage_rollouts(stage: StageSpec) -> tuple[int, int]:
    """(rollouts of a stage when every group carries a signal, most that it may sample).

    Where no group is kept, each round of a step, the first too, asks for `MAX_OVERSAMPLING` times
    the groups wanted (`rollout.collector`).
    """
    once = stage.max_steps * stage.groups_per_step * stage.group_size
    return once, math.ceil(once * MAX_OVERSAMPLING) * stage.max_sampling_rounds


def num_validations(stage: StageSpec) -> int:
    """How often a stage validates: at every interval, and at its end."""
    return math.ceil(stage.max_steps / stage.eval_interval)
