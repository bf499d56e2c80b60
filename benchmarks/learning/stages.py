"""Runs one stage of an arm until its compute is used up, and keeps the best weights by validation.

It drives the parts that a job drives (collector, engine, verifiers, learner, TRL's SFTTrainer) in
one process, without actors and checkpoints, so that a cell takes minutes.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.learning.arms import TRAIN_COST, VALIDATIONS_PER_STAGE, Stage
from benchmarks.learning.fleet import MAX_MODEL_LEN, LocalFleet, forward_tokens
from rollout.collector import Collector, collect_batch
from rollout.steps import parse_step
from rollout.types import Problem, Rollout, RolloutGroup, SamplingSpec, Verdict
from rollout.verifiers.answer import AnswerVerifier
from rollout.verifiers.step_similarity import FORMAT_ERROR_REWARD, step_similarity
from train.batch import to_sequences
from train.data import Row
from train.evaluate import Evaluation, evaluate
from train.learner import Learner
from train.prompts import PromptRenderer
from train.rlvr import rlvr_problems
from train.spec import LearnerSpec, SFTSpec, StageSpec
from train.srl import srl_problems, srl_verifier

GRADER = AnswerVerifier(pattern=r"=(\d{4})$")
STEP_TOKENS, MAX_TURNS = 24, 8
UNFILTERED = -1.0  # every population standard deviation exceeds it


@dataclass
class StageResult:
    """What a stage did."""

    sampled_tokens: int = 0  # forward tokens through the engine
    trained_tokens: int = 0  # forward and backward
    steps: int = 0
    groups_sampled: int = 0
    groups_kept: int = 0
    validations: list[dict[str, float]] = field(default_factory=list)  # cost, accuracy
    mean_rewards: list[float] = field(default_factory=list)  # per optimizer step, all groups
    best: float = -1.0

    @property
    def cost(self) -> int:
        """Forward tokens, training counted as TRAIN_COST."""
        return self.sampled_tokens + TRAIN_COST * self.trained_tokens


@dataclass(frozen=True)
class Bench:
    """What the stages of a cell share."""

    fleet: LocalFleet
    renderer: PromptRenderer
    train: list[Row]
    valid: list[Row]
    heldout: list[Row]
    seed: int
    threads: int

    def evaluate(self, rows: list[Row]) -> Evaluation:
        """Greedy accuracy of the published weights."""
        problems = rlvr_problems(rows, self.renderer, GRADER)
        pool: Any = self.fleet
        return evaluate(pool, problems, GRADER, sampling(MAX_TURNS, 0.0))


class WholeSolutionVerifier:
    """One similarity for the whole solution: the paper's ablation of step-wise rewards."""

    def verify(self, problem: Problem, rollout: Rollout) -> Verdict:
        """Compare all steps with the expert's; -1 when a step's form is wrong."""
        steps = [parse_step(turn.text) for turn in rollout.turns]
        if None in steps:
            return Verdict(FORMAT_ERROR_REWARD, format_error=True)
        assert problem.expert_step is not None
        return Verdict(step_similarity("\n".join(map(str, steps)), problem.expert_step))


def sampling(max_turns: int, temperature: float) -> SamplingSpec:
    """Stepwise sampling, as the base was trained for."""
    return SamplingSpec("stepwise", STEP_TOKENS, max_turns, temperature)


def run_stage(bench: Bench, stage: Stage, model: Path, budget: int, folder: Path) -> StageResult:
    """Train from `model` and leave the best weights in `folder`; return what was done."""
    run = _run_sft if stage.kind == "sft" else _run_reinforcement
    return run(bench, stage, model, int(budget * stage.share), folder)


def _run_reinforcement(
    bench: Bench, stage: Stage, model: Path, budget: int, folder: Path
) -> StageResult:
    spec: StageSpec = stage.spec()
    problems, verifier, turns = _problems(bench, stage)
    learner = Learner(str(model), spec, LearnerSpec(num_threads=bench.threads))
    collector = Collector(
        problems,
        groups_per_batch=spec.groups_per_step,
        std_threshold=spec.std_threshold if stage.filter_groups else UNFILTERED,
        max_rounds=spec.max_sampling_rounds,
        seed=bench.seed,
    )
    result = StageResult()
    bench.fleet.publish(learner.state())
    keep = _Keeper(bench, result, budget, lambda: learner.policy.model.save_pretrained(folder))
    while result.cost < budget:
        seen: list[RolloutGroup] = []
        groups = collect_batch(
            collector,
            bench.fleet.generate,
            lambda pairs: bench.fleet.score(verifier, pairs),
            group_size=spec.group_size,
            sampling=sampling(turns, spec.temperature),
            seed=(bench.seed * 1_000_003 + result.steps) * 1000 % 2**31,
            observe=seen.extend,
        )
        sequences = to_sequences(groups, spec.advantage, spec.truncation)
        learner.step(sequences, result.steps)
        result.steps += 1
        result.sampled_tokens += forward_tokens([r for g in seen for r in g.rollouts])
        result.trained_tokens += sum(map(len, sequences))
        result.groups_sampled += len(seen)
        result.groups_kept += len(groups)
        result.mean_rewards.append(fmean(v.reward for g in seen for _, v in g.scored()))
        bench.fleet.publish(learner.state())
        keep.when_due()
    return result


def _problems(bench: Bench, stage: Stage) -> tuple[list[Problem], Any, int]:
    """(problems, verifier, turns of a rollout) of a reinforcement stage."""
    experts = [row for row in bench.train if row.expert_steps]
    if stage.kind == "srl":
        spec = stage.spec()
        return srl_problems(experts, bench.renderer, spec), srl_verifier(spec), 1
    if stage.kind == "whole":
        problems = [
            Problem(r.id, bench.renderer.render(r), expert_step="\n".join(r.expert_steps))
            for r in experts
        ]
        return problems, WholeSolutionVerifier(), MAX_TURNS
    return rlvr_problems(bench.train, bench.renderer, GRADER), GRADER, MAX_TURNS


def _run_sft(bench: Bench, stage: Stage, model: Path, budget: int, folder: Path) -> StageResult:
    from train.policy import load_model
    from train.sft import sft_examples

    spec = stage.spec()
    experts = [row for row in bench.train if row.expert_steps]
    examples = sft_examples(experts, bench.renderer, spec)
    epoch_tokens = sum(len(example["input_ids"]) for example in examples)
    spec = spec.model_copy(update={"num_epochs": max(1, budget // (TRAIN_COST * epoch_tokens))})
    policy, result = load_model(str(model), "float32"), StageResult()
    trl_folder = folder.with_name(f".{folder.name}-trl")
    trainer = _sft_trainer(bench, spec, policy, examples, trl_folder)
    keep = _Keeper(bench, result, budget, lambda: policy.save_pretrained(folder))

    def after_step(step: int, epoch: float) -> None:
        result.steps = step
        result.trained_tokens = round(epoch_tokens * epoch)
        if keep.is_due():
            bench.fleet.publish(dict(policy.state_dict()))
            keep.when_due()

    trainer.add_callback(_after_step(after_step))
    trainer.train()
    shutil.rmtree(trl_folder, ignore_errors=True)
    if not result.validations or result.validations[-1]["step"] != result.steps:
        bench.fleet.publish(dict(policy.state_dict()))
        keep.now()
    return result


def _sft_trainer(
    bench: Bench, spec: SFTSpec, policy: Any, examples: list[dict[str, list[int]]], folder: Path
) -> Any:
    """TRL's trainer, set up as a job's SFT stage is (`train.sft`)."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    return SFTTrainer(
        model=policy,
        args=SFTConfig(
            output_dir=str(folder),
            num_train_epochs=spec.num_epochs,
            per_device_train_batch_size=spec.batch_size,
            learning_rate=spec.learning_rate,
            max_length=MAX_MODEL_LEN,
            completion_only_loss=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=bench.seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(examples),
        processing_class=bench.renderer.tokenizer,
    )


def _after_step(call: Callable[[int, float], None]) -> Any:
    from transformers import TrainerCallback

    class AfterStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            call(state.global_step, state.epoch)

    return AfterStep()


class _Keeper:
    """Validates at even shares of the budget and saves what is best, of equals the later."""

    def __init__(
        self, bench: Bench, result: StageResult, budget: int, save: Callable[[], Any]
    ) -> None:
        self._bench, self._result, self._save = bench, result, save
        self._interval = budget / VALIDATIONS_PER_STAGE
        self._next = self._interval

    def is_due(self) -> bool:
        """True when the next share of the budget is used up."""
        return self._result.cost >= self._next

    def when_due(self) -> None:
        """Validate the published weights if a share of the budget is used up."""
        if self.is_due():
            self.now()

    def now(self) -> None:
        """Validate the published weights."""
        result = self._result
        while self._next <= result.cost:
            self._next += self._interval
        accuracy = self._bench.evaluate(self._bench.valid).greedy
        entry = {"step": result.steps, "cost": result.cost, "accuracy": accuracy}
        result.validations.append(entry)
        print(f"    {entry}", flush=True)
        if accuracy >= result.best:
            result.best = accuracy
            self._save()
