"""The per-worker loop, the same for SRL and RLVR.

Consumes problems and a verifier (`StageConfig`), produces committed checkpoints and events. Each
step waits for the engines (rollouts), the verifiers (verdicts) and the other learner workers.
Rank 0 talks to the pool; the others receive their share of the batch from it.
"""

from typing import Any

import ray.train

from train.learner import Learner
from train.stage_run import StageConfig, StageRun
from train.workers import scatter


def train_loop(train_loop_config: dict[str, Any]) -> None:
    """Run one worker of a stage, from the last committed checkpoint on."""
    config: StageConfig = train_loop_config["config"]
    rank = ray.train.get_context().get_world_rank()
    learner = Learner(config.model, config.stage, config.job.learner)
    run = StageRun(config, learner)
    run.restore(is_main=rank == 0)
    if rank == 0:
        config.pool.publish(learner.state(), run.version)
    while run.step < config.stage.max_steps:
        sequences = scatter(run.collect() if rank == 0 else None, learner.world_size)
        if sequences is None:  # the job was asked to stop, and the last step is committed
            break
        metrics = run.learn(sequences)
        if rank == 0:
            run.publish_and_report(metrics)
    # Notifies Ray Train only; what a checkpoint is, our manifest decides.
    ray.train.report({"step": run.step})
