"""One worker's run of a stage: its state, and the verbs that the loop calls.

Rank 0 alone samples, validates, commits and speaks to the event log; all ranks learn.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rollout.collector import Collector, collect_batch
from rollout.pool import RolloutPool
from rollout.types import Problem, RolloutGroup, SamplingSpec, Verifier
from train import checkpoint
from train.batch import TrainSequence, to_sequences
from train.evaluate import Evaluation, Ledger, evaluate
from train.health import HealthWatch
from train.learner import Learner
from train.prompts import load_tokenizer
from train.ranking import Validated, rank
from train.spec import JobSpec, StageSpec, job_grader
from train.stage_events import StageEvents, checkpoints_folder
from train.step_metrics import forget_rollouts, group_metrics, write_rollouts
from train.workers import same_everywhere

OPTIMIZER_FILE = "optimizer.safetensors"
SEED_STRIDE = 1000  # seeds of one step's sampling rounds never meet the next step's


@dataclass(frozen=True)
class StageConfig:
    """Everything a stage's workers need; complete, picklable."""

    name: str  # "srl", "srl_2" or "rlvr"
    job: JobSpec
    stage: StageSpec
    model: str  # folder or hub name that the stage starts from
    optimizer: Path | None  # folder of a checkpoint whose optimizer goes on; None: a new one
    problems: list[Problem]
    verifier: Verifier
    sampling: SamplingSpec
    valid_problems: list[Problem]
    out: Path  # of the job
    first_version: int  # policy version of the stage's initial weights
    pool: RolloutPool
    events: Any  # actor handle of train.events.EventLog

    @property
    def folder(self) -> Path:
        """Where the stage's checkpoints stand."""
        return checkpoints_folder(self.out, self.name)


class StageRun:
    """The state of a stage in one worker, and the verbs that the loop calls."""

    def __init__(self, config: StageConfig, learner: Learner) -> None:
        self.config = config
        self.learner = learner
        self.events = StageEvents(config.events, config.name, config.out)
        self.step = 0  # optimizer batches taken
        self.committed: int | None = None  # step of the last checkpoint
        self.best: list[Validated] = []  # the best one first; each has a checkpoint
        self.seen: list[RolloutGroup] = []  # this step's scored groups, kept or not
        self.num_kept = 0  # of them, those with a learning signal
        self.trained_tokens = 0  # sampled tokens that this step learns from
        self.learner_tokens = 0  # those and their prompts: what the learner computes on
        self.metrics: dict[str, float | None] = {}  # the step's, for its checkpoint
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
        found = same_everywhere(checkpoint.latest(self.config.folder), self.learner.world_size)
        if found is not None:
            self.learner.load(found.path, found.path / OPTIMIZER_FILE)
            self.step, self.committed, self.best = found.step, found.step, found.state["best"]
            self.metrics = found.state["metrics"]
            self.collector.restore(found.state["collector"])
            self.health.restore(found.state["health"])
        elif self.config.optimizer is not None:
            before = self.config.optimizer
            self.learner.load(before, before / OPTIMIZER_FILE)
        if is_main:
            forget_rollouts(self.config.out, self.config.name, self.step)
            self.events.begin(found)

    def collect(self) -> list[TrainSequence] | None:
        """Roll out, score and filter until the batch is full; rank 0 only.

        None when the job was asked to stop: the last step is then committed. The first step of a
        stage is always taken, so that a stopped stage leaves a model.
        """
        if self.events.phase(self.step, "sampling") and self.step > 0:
            if self.committed != self.step:
                self._commit()
            return None
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
        ledger = Ledger().add(self.seen)
        self.events.account(ledger.scored, ledger.dropped)
        self.timing = {"sampling": time.monotonic() - started_s}
        self.events.phase(self.step, "training")
        sequences = to_sequences(groups, config.stage.advantage, config.stage.truncation)
        self.trained_tokens = sum(len(s.token_ids) for s in sequences)
        self.learner_tokens = sum(map(len, sequences))
        return sequences

    def learn(self, sequences: list[TrainSequence]) -> dict[str, float]:
        """Take one batch. A batch without a learning signal changes nothing and still counts."""
        started_s = time.monotonic()
        metrics = self.learner.step(sequences, self.step)
        self.step += 1
        self.timing["training"] = time.monotonic() - started_s
        return metrics

    def publish_and_report(self, metrics: dict[str, float]) -> None:
        """Publish the new weights, validate when due, emit the step's event, commit when due.

        Rollouts and event come before the commit: a step that a checkpoint holds is in the log.
        """
        config, stage = self.config, self.config.stage
        self.events.phase(self.step, "publishing")
        self.timing["publish"] = config.pool.publish(self.learner.state(), self.version)
        last = self.step == stage.max_steps
        valid = self._validate() if last or self.step % stage.eval_interval == 0 else None
        valid_reward = valid.mean_reward if valid else None
        self.timing["full_iteration"] = sum(self.timing.values())
        groups = group_metrics(self.seen)
        self.metrics = {
            "train_mean_reward": groups["train_mean_reward"],
            "full_valid_mean_reward": valid_reward,
            "completion_tokens_mean": groups["completion_tokens_mean"],
        }
        write_rollouts(config.out, config.name, self.step, self.seen)
        health, findings = self.health.observe(self.seen, valid_reward, self.num_kept)
        self.events.emit(
            "metrics",
            self.step,
            message=f"Step {self.step}/{stage.max_steps}",
            total_steps=stage.max_steps,
            policy_version=self.version,
            full_valid_mean_reward=valid_reward,
            full_valid_mean_parse_error=valid.format_error_rate if valid else None,
            trained_tokens=self.trained_tokens,
            learner_tokens=self.learner_tokens,
            timing={"step": {k: round(v, 4) for k, v in self.timing.items()}},
            reward_health=health,
            **groups,
            **asdict(self.collector.counters),
            **metrics,
        )
        for number, finding in enumerate(findings):
            self.events.emit(
                "message",
                self.step,
                uid=f"{config.name}:{self.step}:finding-{number}",  # the same when taken again
                level=finding.level,
                message=finding.message,
                data=finding.data,
            )
        if last or valid_reward is not None or self.step % stage.save_interval == 0:
            self._commit()

    def _validate(self) -> Evaluation:
        self.events.phase(self.step, "validating")
        job = self.config.job
        result = evaluate(
            self.config.pool,
            self.config.valid_problems,
            job_grader(job),
            job.sampling_spec(temperature=0.0),
        )
        self.timing["eval"] = result.seconds
        self.events.account(result.ledger.scored, result.ledger.dropped)
        self.best = rank(self.best, self.step, result.mean_reward)
        return result

    def _commit(self) -> None:
        """Commit a checkpoint that is a usable model; keep the best ones and this, the last."""
        self.events.phase(self.step, "checkpoint")
        started_s = time.monotonic()
        state = {
            "best": self.best,
            "collector": self.collector.snapshot(),
            "health": self.health.snapshot(),
            "metrics": self.metrics,
            "policy_version": self.version,
        }
        folder = self.config.folder
        checkpoint.commit(folder, self.step, state, self._write_files)
        self.committed = self.step
        checkpoint.prune(folder, {self.step, *(v["step"] for v in self.best)})
        self.events.committed(self.step, self.metrics, time.monotonic() - started_s)

    def _write_files(self, folder: Path) -> None:
        self.learner.policy.model.save_pretrained(folder, safe_serialization=True)
        load_tokenizer(self.config.job).save_pretrained(folder)
        self.learner.save_optimizer(folder / OPTIMIZER_FILE)
