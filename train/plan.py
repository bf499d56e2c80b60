"""How much work a job is, known before it starts."""

from collections.abc import Sequence

from train.data import Row
from train.spec import JobSpec


def steps_planned(spec: JobSpec, train_rows: Sequence[Row]) -> int:
    """Optimizer steps of all stages, and one for each policy evaluated on held-out rows."""
    stages = spec.reinforcement_stages.values()
    evaluated = 1 + len(stages) + (spec.sft is not None) if spec.data.heldout else 0
    steps = sum(stage.max_steps for stage in stages)
    return sft_steps(spec, train_rows) + steps + evaluated


def sft_steps(spec: JobSpec, train_rows: Sequence[Row]) -> int:
    """Optimizer steps of the warm start, whose examples are the expert steps; 0 without one."""
    if spec.sft is None:
        return 0
    num_examples = sum(len(row.expert_steps) for row in train_rows)
    return spec.sft.num_steps(num_examples, spec.learner.num_workers)
