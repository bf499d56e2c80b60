"""Warm start: supervised fine-tuning on expert steps, by TRL's SFTTrainer inside Ray Train.

One example is one step: the SRL prompt, and the expert's step as the completion. With
`with_thoughts` the think block holds `expert_thoughts`; otherwise it is empty. Only the
completion is learnt from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer

from rollout.steps import THINK_CLOSE, THINK_OPEN
from rollout.vector_math import use_threads
from train import checkpoint
from train.data import Row
from train.prompts import PromptRenderer
from train.spec import JobSpec, SFTSpec
from train.stage import StageResult, run_config, scaling
from train.stage_events import acknowledged, checkpoints_folder
from train.stop import JobStoppedError, StopRequest, run_until_told
from train.workers import same_everywhere

STAGE = "sft"


@dataclass(frozen=True)
class SFTConfigBundle:
    """What the workers of the stage need."""

    job: JobSpec
    sft: SFTSpec
    examples: list[dict[str, list[int]]]  # "input_ids" and "completion_mask"
    out: Path  # of the job
    events: Any  # actor handle of train.events.EventLog

    @property
    def folder(self) -> Path:
        """Where the stage's checkpoints stand."""
        return checkpoints_folder(self.out, STAGE)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the stage."""
        return self.sft.num_steps(len(self.examples), self.job.learner.num_workers)


def sft_examples(
    rows: Sequence[Row], renderer: PromptRenderer, spec: SFTSpec
) -> list[dict[str, list[int]]]:
    """Return one tokenised example per expert step; preflight has checked the thoughts.

    Tokenised here, because TRL would close every completion with the end token, and a step that
    is not the last must close with `step_end`.
    """
    end = renderer.tokenizer.eos_token
    examples = []
    for row in rows:
        thoughts = row.expert_thoughts if spec.with_thoughts else ("",) * len(row.expert_steps)
        for k, (step, thought) in enumerate(zip(row.expert_steps, thoughts, strict=True)):
            close = end if k == len(row.expert_steps) - 1 else renderer.spec.step_end
            prompt = renderer.encode(renderer.render(row, row.expert_steps[:k]))
            text = f"{THINK_OPEN}{thought}{THINK_CLOSE}{step.strip()}{close}"
            completion = renderer.encode(text)
            examples.append(
                {
                    "input_ids": prompt + completion,
                    "completion_mask": [0] * len(prompt) + [1] * len(completion),
                }
            )
    return examples


def run_sft(bundle: SFTConfigBundle, storage: Path, stop: StopRequest) -> StageResult:
    """Train and return the committed model.

    Raises JobStoppedError when a wish to stop ended it early, with its last step committed.
    """
    trainer = TorchTrainer(
        _sft_loop,
        train_loop_config={"bundle": bundle},
        scaling_config=scaling(bundle.job.learner),
        run_config=run_config(STAGE, storage, bundle.job.learner),
    )
    tell = bundle.events.request_stop
    run_until_told(trainer.fit, stop, lambda: acknowledged(tell.remote()))
    found = checkpoint.latest(bundle.folder)
    if found is None or found.step < bundle.num_steps:
        if found is not None and stop.requested:
            raise JobStoppedError.at(STAGE, found.step)
        raise RuntimeError("stage sft ended without its last checkpoint")
    return StageResult(found.path, found.step, valid_reward=None)


def _sft_loop(train_loop_config: dict[str, Any]) -> None:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from train.policy import load_model
    from train.prompts import load_tokenizer
    from train.sft_callback import TRL_FOLDER, SFTReporter

    bundle: SFTConfigBundle = train_loop_config["bundle"]
    learner = bundle.job.learner
    context = ray.train.get_context()
    use_threads(learner.num_threads)
    found = same_everywhere(checkpoint.latest(bundle.folder), context.get_world_size())
    reporter = SFTReporter(bundle.out, bundle.events, rank=context.get_world_rank())
    reporter.begin(found)
    trainer = SFTTrainer(
        model=load_model(bundle.job.model, "float32"),  # bf16 below is autocast
        args=SFTConfig(
            output_dir=str(bundle.folder / TRL_FOLDER),
            num_train_epochs=bundle.sft.num_epochs,
            per_device_train_batch_size=bundle.sft.per_worker_batch(learner.num_workers),
            learning_rate=bundle.sft.learning_rate,
            max_length=bundle.job.rollout.max_model_len,
            completion_only_loss=True,
            logging_steps=1,  # progress is counted by the steps' events
            save_strategy="steps",  # the last step is saved too
            save_steps=bundle.sft.save_interval,
            report_to="none",
            disable_tqdm=True,
            seed=bundle.job.seed,
            use_cpu=learner.gpus_per_worker == 0,
            bf16=learner.dtype == "bfloat16",
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(bundle.examples),
        processing_class=load_tokenizer(bundle.job),
        callbacks=[reporter],
    )
    if found is None or found.step < bundle.num_steps:
        trainer.train(resume_from_checkpoint=str(found.path) if found else None)
    ray.train.report({"step": trainer.state.global_step})
