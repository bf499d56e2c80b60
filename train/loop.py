"""The per-worker loop, the same for SRL and RLVR.

Consumes problems and a verifier (`StageConfig`), produces committed checkpoints and events. Each
step waits for the engines (rollouts), the verifiers (verdicts) and the other learner workers.
Rank 0 talks to the pool; the others receive their share of the batch from it.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import GetTimeoutError

from rollout.collector import Collector, collect_batch
from rollout.pool import RolloutPool
from rollout.types import Problem, RolloutGroup, SamplingSpec, Verifier
from train import checkpoint
from train.batch import TrainSequence, to_sequences
from train.evaluate import Ledger, evaluate
from train.health import HealthWatch
from train.learner import Learner
from train.prompts import load_tokenizer
from train.spec import JobSpec, StageSpec

OPTIMIZER_FILE = "optimizer.safetensors"
EMIT_DEADLINE_S = 60.0
SEED_STRIDE = 1000  # seeds of one step's sampling rounds never meet the next step's


@dataclass(frozen=True)
class StageConfig:
    """Everything a stage's workers need; complete, picklable."""

    name: str  # "srl" or "rlvr"
    job: JobSpec
    stage: StageSpec
    model: str  # folder or hub name that the stage starts from
    problems: list[Problem]
    verifier: Verifier
    sampling: SamplingSpec
    valid_problems: list[Problem]
    folder: Path  # of the stage's checkpoints
    first_version: int  # policy version of the stage's initial weights
    pool: RolloutPool
    events: Any  # actor handle of train.events.EventLog


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
        sequences = _scatter(run.collect() if rank == 0 else None, learner.world_size)
        metrics = run.learn(sequences)
        if rank == 0:
            run.publish_and_report(metrics)
    # Notifies Ray Train only; what a checkpoint is, our manifest decides.
    ray.train.report({"step": run.step})


class StageRun:
    """The state of a stage in one worker, and the verbs that the loop calls."""

    def __init__(self, config: StageConfig, learner: Learner) -> None:
        self.config = config
        self.learner = learner
        self.step = 0  # optimizer batches taken
        self.best: dict[str, Any] | None = None  # {"step", "reward"} on validation rows
        self.seen: list[RolloutGroup] = []  # this step's scored groups, kept or not
        self.num_kept = 0  # of them, those with a learning signal
        self.timing: dict[str, float] = {}
        self.collector = Collector(
            config.problems,
            groups_per_batch=config.stage.groups_per_step,
            std_threshold=config.stage.std_threshold,
            max_rounds=config.stage.max_sampling_rounds,
            seed=config.job.seed,
        )

        grader: Any = config.verifier
        self.health = HealthWatch(
            getattr(grader, "name", grader.type), compares_with_validation=config.name == "rlvr"
        )

    @property
    def version(self) -> int:
        """Policy version of the learner's weights."""
        return self.config.first_version + self.step

    def restore(self, *, is_main: bool) -> None:
        """Continue from the last committed checkpoint, if there is one."""
        found = _same_everywhere(checkpoint.latest(self.config.folder), self.learner.world_size)
        if found is not None:
            self.learner.load(found.path, found.path / OPTIMIZER_FILE)
            self.step, self.best = found.step, found.state["best"]
            self.collector.restore(found.state["collector"])
            self.health.restore(found.state["health"])
        if is_main:
            events = self.config.events
            _acknowledged(events.rewind.remote(self.config.name, self.step))
            how = f"continues at step {self.step}" if found else "starts"
            self._emit("message", message=f"stage {self.config.name} {how}", resumed_at=self.step)

    def collect(self) -> list[TrainSequence]:
        """Roll out, score and filter until the batch is full; rank 0 only."""
        self._phase("sampling")
        started_s = time.monotonic()
        config, pool = self.config, self.config.pool
        self.seen = []
        groups = collect_batch(
            self.collector,
            pool.generate,
            lambda pairs: pool.score(config.verifier, pairs),
            group_size=config.stage.group_size,
            sampling=config.sampling,
            seed=(config.job.seed * 1_000_003 + self.version) * SEED_STRIDE % 2**31,
            observe=self.seen.extend,
        )
        self.num_kept = len(groups)
        self._account(Ledger().add(self.seen))
        self.timing = {"sampling": time.monotonic() - started_s}
        self._phase("training")
        return to_sequences(groups, config.stage.advantage, config.stage.truncation)

    def learn(self, sequences: list[TrainSequence]) -> dict[str, float]:
        """Take one batch. A batch without a learning signal changes nothing and still counts."""
        started_s = time.monotonic()
        metrics = self.learner.step(sequences, self.step)
        self.step += 1
        self.timing["training"] = time.monotonic() - started_s
        return metrics

    def publish_and_report(self, metrics: dict[str, float]) -> None:
        """Publish the new weights, validate when due, emit the step's event, commit when due.

        The event comes before the commit: a step that a checkpoint holds is always in the log.
        """
        config, stage = self.config, self.config.stage
        self._phase("publishing")
        self.timing["publish"] = config.pool.publish(self.learner.state(), self.version)
        last = self.step == stage.max_steps
        valid_reward = None
        if last or self.step % stage.eval_interval == 0:
            valid_reward = self._validate()
        self.timing["full_iteration"] = sum(self.timing.values())
        health, findings = self.health.observe(self.seen, valid_reward, self.num_kept)
        self._emit(
            "metrics",
            message=f"Step {self.step}/{stage.max_steps}",
            total_steps=stage.max_steps,
            policy_version=self.version,
            full_valid_mean_reward=valid_reward,
            timing={"step": {k: round(v, 4) for k, v in self.timing.items()}},
            reward_health=health,
            **group_metrics(self.seen),
            **asdict(self.collector.counters),
            **metrics,
        )
        for finding in findings:
            self._emit("message", level=finding.level, message=finding.message, data=finding.data)
        if last or valid_reward is not None or self.step % stage.save_interval == 0:
            self._commit()

    def _validate(self) -> float:
        self._phase("validating")
        job = self.config.job
        result = evaluate(
            self.config.pool,
            self.config.valid_problems,
            job_grader(job),
            job.sampling_spec(temperature=0.0),
        )
        self.timing["eval"] = result.seconds
        self._account(result.ledger)
        # Of two equals the later one: greedy decoding does not see how surely a policy samples what
        # it has learnt, and that goes on rising after greedy accuracy has reached its top.
        if self.best is None or result.mean_reward >= self.best["reward"]:
            self.best = {"step": self.step, "reward": result.mean_reward}
        return result.mean_reward

    def _commit(self) -> None:
        """Commit a checkpoint that is a usable model, and keep the best and the last."""
        self._phase("checkpoint")
        started_s = time.monotonic()
        state = {
            "best": self.best,
            "collector": self.collector.snapshot(),
            "health": self.health.snapshot(),
            "policy_version": self.version,
        }
        checkpoint.commit(self.config.folder, self.step, state, self._write_files)
        keep = {self.step} | ({self.best["step"]} if self.best else set())
        checkpoint.prune(self.config.folder, keep)
        self._emit(
            "checkpoint",
            message=f"checkpoint of step {self.step} committed",
            seconds=round(time.monotonic() - started_s, 4),
        )

    def _write_files(self, folder: Path) -> None:
        self.learner.policy.model.save_pretrained(folder, safe_serialization=True)
        load_tokenizer(self.config.job).save_pretrained(folder)
        self.learner.save_optimizer(folder / OPTIMIZER_FILE)

    def _account(self, ledger: Ledger) -> None:
        _acknowledged(self.config.events.account.remote(ledger.scored, ledger.dropped))

    def _phase(self, phase: str) -> None:
        """Say what this worker begins to do, for those who watch."""
        events = self.config.events
        _acknowledged(events.now.remote(self.config.name, self.step, phase, os.getpid()))

    def _emit(self, kind: str, **data: Any) -> None:
        event = {"type": kind, "stage": self.config.name, "step": self.step, **data}
        _acknowledged(self.config.events.emit.remote(event))


def job_grader(job: JobSpec) -> Verifier:
    """The job's verifier of whole problems; `JobSpec` guarantees that there is one."""
    grader: Any = job.grader
    assert grader is not None
    return grader


def group_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float | None]:
    """Metrics of a step's scored groups, kept or filtered, in the names that TRL uses."""
    scored = [pair for group in groups for pair in group.scored()]
    if not scored:  # every verdict is missing: there is no reward, not a reward of 0
        return {"reward": None, "train_mean_reward": None, "num_rollouts": 0}
    rewards = [verdict.reward for _, verdict in scored]
    lengths = [rollout.num_tokens for rollout, _ in scored]
    stds = [pstdev([v.reward for _, v in g.scored()]) for g in groups if g.scored()]
    return {
        "reward": fmean(rewards),
        "train_mean_reward": fmean(rewards),
        "reward_std": fmean(stds),
        "format_error_rate": fmean(float(v.format_error) for _, v in scored),
        "completions/mean_length": fmean(lengths),
        "completions/clipped_ratio": fmean(r.turns[-1].finish == "length" for r, _ in scored),
        "num_rollouts": len(scored),
        "num_tokens": sum(lengths),
        "staleness": 0.0,  # synchronous: every rollout is of the published policy
    }


def _same_everywhere(
    found: checkpoint.Checkpoint | None, world_size: int
) -> checkpoint.Checkpoint | None:
    """Rank 0's checkpoint in every worker: file systems may show them different ones."""
    if world_size == 1:
        return found
    chosen: list[Any] = [found]
    torch.distributed.broadcast_object_list(chosen, src=0)
    return checkpoint.load(chosen[0].path) if chosen[0] is not None else None


def _scatter(sequences: list[TrainSequence] | None, world_size: int) -> list[TrainSequence]:
    """Give every worker its share of rank 0's batch."""
    if world_size == 1:
        assert sequences is not None
        return sequences
    shares: list[Any] | None = None
    if sequences is not None:
        shares = [sequences[rank::world_size] for rank in range(world_size)]
    received: list[Any] = [None]
    torch.distributed.scatter_object_list(received, shares, src=0)
    return received[0]


def _acknowledged(call: Any) -> Any:
    """Wait until the event log has written. Raises TimeoutError."""
    try:
        return ray.get(call, timeout=EMIT_DEADLINE_S)
    except GetTimeoutError:
        raise TimeoutError(
            f"waited {EMIT_DEADLINE_S:.0f} s for the job's event log; is the driver's node alive, "
            "and is there room on the disk of --out?"
        ) from None
