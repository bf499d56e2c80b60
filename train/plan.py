"""How much work a job is, known before it starts."""

from collections.abc import Sequence

from train.data import Row
from train.spec import JobSpec


def steps_planned(spec: JobSpec, train_rows: Sequence[Row]) -> int:
    """Optimizer steps of all stages, and one for each policy evaluated on held-out rows."""
    stages = [stage for stage in (spec.sft, spec.srl, spec.rlvr) if stage is not None]
    evaluated = 1 + len(stages) if spec.data.heldout else 0
    steps = sum(stage.max_steps for stage in (spec.srl, spec.rlvr) if stage is not None)
    return sft_steps(spec, train_rows) + steps + evaluated


def sft_steps(spec: JobSpec, train_rows: Sequence[Row]) -> int:
    """Optimizer steps of the warm start, whose examples are the expert steps; 0 without one."""
    if spec.sft is None:
        return 0
    num_examples = sum(len(row.expert_steps) for row in train_rows)
    return spec.sft.num_steps(num_examples, spec.learner.num_workers)
