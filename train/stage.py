"""One stage is one `TorchTrainer.fit()`; its result is a folder with a committed model."""

from pathlib import Path

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from rollout.pool import MAX_ATTEMPTS
from train import checkpoint
from train.loop import StageConfig, train_loop
from train.spec import LearnerSpec

RESULT_FILE = "result.json"


def run_stage(config: StageConfig, storage: Path) -> Path:
    """Train the stage to its end and return its best checkpoint on validation rows."""
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"config": config},
        scaling_config=scaling(config.job.learner),
        run_config=run_config(config.name, storage, config.job.learner),
        torch_config=TorchConfig(timeout_s=_patience_s(config)),
    )
    trainer.fit()
    last = checkpoint.latest(config.folder)
    if last is None or last.step < config.stage.max_steps:
        raise RuntimeError(f"stage {config.name} ended without its last checkpoint")
    best = config.folder / f"step-{last.state['best']['step']:06d}"
    checkpoint.load(best)  # raises when its files disagree with its manifest
    return best


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
