"""One stage is one `TorchTrainer.fit()`; its result is a folder with a committed model."""

from dataclasses import dataclass
from pathlib import Path

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from rollout.pool import MAX_ATTEMPTS
from train import checkpoint
from train.loop import train_loop
from train.spec import LearnerSpec
from train.stage_events import acknowledged
from train.stage_run import StageConfig
from train.stop import JobStoppedError, StopRequest, run_until_told

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class StageResult:
    """What a stage has to show when it is complete."""

    path: Path  # of the best checkpoint
    step: int  # of the stage
    valid_reward: float | None  # None where nothing was validated (SFT)


def run_stage(config: StageConfig, storage: Path, stop: StopRequest) -> StageResult:
    """Train the stage to its end and return its best checkpoint on validation rows.

    Raises JobStoppedError when a wish to stop ended it early, with its last step committed.
    """
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"config": config},
        scaling_config=scaling(config.job.learner),
        run_config=run_config(config.name, storage, config.job.learner),
        torch_config=TorchConfig(timeout_s=_patience_s(config)),
    )
    tell = config.events.request_stop
    run_until_told(trainer.fit, stop, lambda: acknowledged(tell.remote()))
    last = checkpoint.latest(config.folder)
    if last is None or last.step < config.stage.max_steps:
        if last is not None and stop.requested:
            raise JobStoppedError.at(config.name, last.step)
        raise RuntimeError(f"stage {config.name} ended without its last checkpoint")
    best = last.state["best"][0]
    path = checkpoint.step_folder(config.folder, best["step"])
    checkpoint.load(path)  # raises when its files disagree with its manifest
    return StageResult(path, best["step"], best["reward"])


def _patience_s(config: StageConfig) -> int:
    """How long the other workers wait while rank 0 samples, validates and publishes."""
    rollout = config.job.rollout
    per_round_s = rollout.generate_deadline_s + rollout.start_deadline_s
    return int(MAX_ATTEMPTS * per_round_s * (config.stage.max_sampling_rounds + 1))


def scaling(learner: LearnerSpec) -> ScalingConfig:
    """The learner's worker group. CPUs are logical and fractional; threads are set explicitly."""
    resources = {"CPU": learner.cpus_per_worker}
    if learner.gpus_per_worker:
        resources["GPU"] = learner.gpus_per_worker
    return ScalingConfig(
        num_workers=learner.num_workers,
        use_gpu=learner.gpus_per_worker > 0,
        resources_per_worker=resources,
    )


def run_config(name: str, storage: Path, learner: LearnerSpec) -> RunConfig:
    """Where Ray Train keeps its own notes, and how many worker deaths it survives."""
    return RunConfig(
        name=name,
        storage_path=str(storage),
        failure_config=FailureConfig(
            max_failures=learner.max_failures,
            # Workers that cannot be placed in time; without a limit Ray Train waits for ever.
            controller_failure_limit=learner.max_failures,
        ),
    )
