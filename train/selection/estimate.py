"""What a job will take, before anything starts: expected where the rows show it, and at most."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from train.auto.facts import ModelFacts
from train.data import Row
from train.selection.cost import (
    TurnLengths,
    Work,
    expert_turns,
    longest_rollout,
    num_validations,
    prompt_lengths,
    rollout_work,
    stage_rollouts,
    step_work,
    turn_work,
)
from train.spec import JobSpec, is_srl


@dataclass(frozen=True)
class Throughput:
    """Measured on this cluster, on jobs of the same model."""

    sampled_tokens_per_s: float
    trained_tokens_per_s: float  # prompts included, as in `Work`
    num_steps: int  # optimizer steps that it was measured on


@dataclass(frozen=True)
class Part:
    """One part of a job's work."""

    name: str  # sft, a reinforcement stage's, more_examples, validation, heldout
    expected: Work | None  # None: no row shows how long a solution is
    at_most: Work


def estimate_parts(
    spec: JobSpec,
    rows: Mapping[str, Sequence[Row]],
    model: ModelFacts,
    render: Callable[[Row, Sequence[str]], str],
    count_tokens: Callable[[str], int],
) -> list[Part]:
    """Count a job's work by part; `rows` by use: training, validation, heldout."""

    def bound_of(rows: Sequence[Row], stage: str) -> Work:
        of_steps = is_srl(stage)
        shortest, longest = prompt_lengths(rows, render, count_tokens, of_steps=of_steps)
        if of_steps and spec.srl is not None and spec.srl.title_context:
            # With their titles, prompts are longer: as long as `train.prompts.check_lengths` lets.
            max_tokens = spec.srl.max_tokens or spec.sampling.max_tokens
            longest = spec.rollout.max_model_len - max_tokens
        return longest_rollout(model, spec, shortest, longest, stage)

    training = rows["training"]
    measured = expert_turns(training, render, count_tokens, spec.sampling.protocol)
    stepwise = expert_turns(training, render, count_tokens, "stepwise")
    parts = []
    if spec.sft is not None and stepwise:
        work = sum((_learnt(model, row) for row in stepwise), Work()) * spec.sft.num_epochs
        parts.append(Part("sft", work, work))
    whole = rollout_work(model, measured, trained=False) if measured else None
    stages = spec.reinforcement_stages
    for name, stage in stages.items():
        if name == "srl_2" and (more := spec.more_examples) is not None:
            num_steps = sum(len(row.expert_steps) for row in training)
            problems = more.num_samples * min(more.num_problems, len(training))
            steps = more.num_samples * min(more.num_problems, num_steps)
            one = _sampled(step_work(model, stepwise)) if stepwise else None
            expected = whole * problems + one * steps if whole and one else None
            most = bound_of(training, "evaluate") * problems
            most += _sampled(bound_of(training, "srl_2")) * steps
            parts.append(Part("more_examples", expected, most))
        once, most = stage_rollouts(stage)
        if is_srl(name):
            one = step_work(model, stepwise)
        else:
            one = rollout_work(model, measured, trained=True) if measured else None
        bound = bound_of(training, name)
        parts.append(Part(name, one * once if one else None, bound * most))
    times = {"validation": sum(num_validations(stage) for stage in stages.values())}
    num_policies = len(stages) + (spec.sft is not None) + 1
    times["heldout"] = num_policies * (1 + spec.evaluation.pass_k)
    for use, repeats in times.items():
        if count := repeats * len(rows.get(use, ())):
            bound = bound_of(rows[use], "evaluate")
            parts.append(Part(use, whole * count if whole else None, bound * count))
    return parts


def _sampled(work: Work) -> Work:
    """The work of sampling alone."""
    return replace(work, trained_tokens=0.0, training_flops=0.0)


def _learnt(model: ModelFacts, row: TurnLengths) -> Work:
    """An expert's turns as supervised examples: nothing is sampled."""
    work = sum((turn_work(model, p, s, trained=True) for p, s in row.turns), Work())
    return Work(0.0, 0.0, work.trained_tokens, 0.0, work.training_flops)


def estimate(parts: Sequence[Part], throughput: Throughput | None) -> dict[str, Any]:
    """The estimate as JSON values; each number says how it was come by."""
    known = [part.expected for part in parts if part.expected is not None]
    whole = sum(known, Work()) if len(known) == len(parts) else None
    most = sum((part.at_most for part in parts), Work())
    return {
        "tokens": {"expected": _tokens(whole), "at_most": _tokens(most)},
        "flops": {"expected": _flops(whole), "at_most": _flops(most)},
        "device_seconds": _seconds(whole, throughput),
        "price": None,
        "parts": [
            {
                "name": part.name,
                "tokens": {"expected": _tokens(part.expected), "at_most": _tokens(part.at_most)},
                "flops": {"expected": _flops(part.expected), "at_most": _flops(part.at_most)},
            }
            for part in parts
        ],
        "basis": {
            "tokens": "counted with the model's tokenizer; expected: as long as the rows' expert "
            "solutions"
            + ("" if whole else ", which not every part has")
            + ", every group with a signal; at most: every limit reached",
            "flops": "counted: 2 per parameter and token, attention, three passes to train",
            "device_seconds": _seconds_basis(whole, throughput),
            "price": "null: no price is known for this cluster",
        },
    }


def _tokens(work: Work | None) -> dict[str, int] | None:
    if work is None:
        return None
    values = asdict(work)
    return {name: round(values[f"{name}_tokens"]) for name in ("prompt", "sampled", "trained")}


def _flops(work: Work | None) -> dict[str, float] | None:
    if work is None:
        return None
    sampling, training = work.sampling_flops, work.training_flops
    figures = {"sampling": sampling, "training": training, "total": sampling + training}
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _seconds(work: Work | None, measured: Throughput | None) -> float | None:
    if work is None or measured is None:
        return None
    sampling = work.sampled_tokens / measured.sampled_tokens_per_s
    return round(sampling + work.trained_tokens / measured.trained_tokens_per_s, 1)


def _seconds_basis(work: Work | None, measured: Throughput | None) -> str:
    if measured is None:
        return "null: no job of this model has run here yet, so that no throughput was measured"
    if work is None:
        return "null: no row shows how long a solution is"
    return (
        f"{measured.sampled_tokens_per_s:.0f} sampled and {measured.trained_tokens_per_s:.0f} "
        f"trained tokens per second, measured on {measured.num_steps} steps of this model here; "
        "starting and publishing are not in it"
    )
