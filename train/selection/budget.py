"""What training a candidate would take in device-hours and money: measured, else estimated. Pure.

Measured: the job's counted tokens at the throughput of stored jobs of the same model. Estimated:
the FLOP model (`train.selection.prediction`), fitted on what the same job takes by the measured
throughput of other candidates. A model is not given a figure where neither can be had.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from train.selection.cost import Work
from train.selection.estimate import Throughput
from train.selection.prediction import SECONDS_PER_HOUR, Run, device_price, fit
from train.spec import JobSpec


@dataclass(frozen=True)
class TrainingTime:
    """Of one candidate's whole job; starting and publishing are not in it."""

    seconds: float
    num_devices: float  # held so long; without GPUs the machine counts as one
    basis: Literal["measured", "estimated"]
    num_sources: int  # measured: optimizer steps; estimated: models that the fit is made of

    @property
    def device_hours(self) -> float:
        """Devices times hours."""
        return self.num_devices * self.seconds / SECONDS_PER_HOUR

    def as_json(self, price_per_hour: float | None) -> dict[str, Any]:
        """For the answer; the price is of one device, None where nobody states it."""
        cost = None
        if price_per_hour is not None:
            cost = round(device_price(self.seconds, self.num_devices, price_per_hour), 4)
        of = "optimizer steps of this model" if self.basis == "measured" else "other models' jobs"
        return {
            "device_hours": float(f"{self.device_hours:.4g}"),
            "cost": cost,
            "basis": f"{self.basis}, from {self.num_sources} {of} here",
        }


def training_times(
    works: Mapping[str, Work],
    measured: Mapping[str, Throughput],
    num_devices: Mapping[str, float],
) -> dict[str, TrainingTime]:
    """Times by name, of candidates whose expected work is known.

    Empty when no throughput of any of them was measured.
    """
    phases = {name: _phases(works[name], measured[name]) for name in works if name in measured}
    times = {
        name: TrainingTime(
            sampling.seconds + training.seconds,
            num_devices[name],
            "measured",
            measured[name].num_steps,
        )
        for name, (sampling, training) in phases.items()
    }
    if not phases:
        return {}
    models = [
        fit(runs) if (runs := [run for run in part if run.seconds > 0]) else None
        for part in zip(*phases.values(), strict=True)
    ]
    for name in works.keys() - phases.keys():
        parts = _phases(works[name], None)
        seconds = sum(
            model.seconds(run.flops, run.tokens, run.steps)
            for model, run in zip(models, parts, strict=True)
            if model is not None
        )
        times[name] = TrainingTime(seconds, num_devices[name], "estimated", len(phases))
    return times


def devices_of(spec: JobSpec) -> float:
    """GPUs that the job holds; 1 without any."""
    learner, rollout = spec.learner, spec.rollout
    gpus = learner.num_workers * learner.gpus_per_worker
    return gpus + rollout.num_engines * rollout.gpus_per_engine or 1.0


def _phases(work: Work, measured: Throughput | None) -> tuple[Run, Run]:
    """(sampling, training); without a throughput the seconds are 0."""
    sampling_s = training_s = 0.0
    if measured is not None:
        sampling_s = work.sampled_tokens / measured.sampled_tokens_per_s
        training_s = work.trained_tokens / measured.trained_tokens_per_s
    return (
        Run(work.sampling_flops, work.sampled_tokens, 0.0, sampling_s),
        Run(work.training_flops, work.trained_tokens, 0.0, training_s),
    )
