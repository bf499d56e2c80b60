"""What TRL's trainer tells the job while it runs, and what it hears: metrics, commits, a stop.

TRL writes its own checkpoint folder (weights, optimizer, scheduler, random state, its place in the
data), from which its `resume_from_checkpoint` continues. This callback turns each of them into a
committed checkpoint: hashed, moved into place at once, the older ones removed.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from train import checkpoint
from train.stage_events import StageEvents, checkpoints_folder
from train.workers import of_rank_0

STAGE, TRL_FOLDER = "sft", ".trl"
METRICS = ("loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy")  # TRL's names
ARGUMENTS_FILE = "training_args.bin"  # a pickle that nothing reads


class SFTReporter(TrainerCallback):
    """One worker's callback; rank 0's alone speaks to the event log and commits."""

    def __init__(self, out: Path, events: Any, rank: int) -> None:
        self._events = StageEvents(events, STAGE, out)
        self._folder = checkpoints_folder(out, STAGE)
        self._is_main = rank == 0
        self._num_tokens = 0.0  # TRL's count, of this process, up to the last step
        self._step_began_s = 0.0
        self._last_metrics: dict[str, float | None] = {}

    def begin(self, found: checkpoint.Checkpoint | None) -> None:
        """Say where the stage goes on, and remove what a killed worker left half written."""
        if self._is_main:
            shutil.rmtree(self._folder / TRL_FOLDER, ignore_errors=True)
            self._events.begin(found)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell the phase; remember when the step began."""
        self._step_began_s = time.monotonic()
        if self._is_main:
            self._events.phase(state.global_step, "training")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask whether to stop; every worker gets rank 0's answer."""
        asked = self._is_main and self._events.phase(state.global_step, "next step")
        if of_rank_0(asked, args.world_size):
            control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Emit the step's event."""
        if not self._is_main or logs is None or "loss" not in logs:  # the last log is a summary
            return
        seconds = round(time.monotonic() - self._step_began_s, 4)
        num_tokens = int(logs["num_tokens"] - self._num_tokens)
        self._num_tokens = logs["num_tokens"]
        self._last_metrics = {name: logs[name] for name in METRICS if name in logs}
        self._events.emit(
            "metrics",
            state.global_step,
            message=f"Step {state.global_step}/{state.max_steps}",
            total_steps=state.max_steps,
            num_tokens=num_tokens,
            trained_tokens=num_tokens,  # prompts included, as they were read
            timing={"step": {"training": seconds, "full_iteration": seconds}},
            **self._last_metrics,
        )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Make what TRL has written a committed checkpoint, the only one of the stage."""
        if args.world_size > 1:
            torch.distributed.barrier()  # each worker has written its random state
        if not self._is_main:
            return
        started_s, step = time.monotonic(), state.global_step
        self._events.phase(step, "checkpoint")
        written = Path(args.output_dir or "") / f"checkpoint-{step}"

        def move(folder: Path) -> None:
            (written / ARGUMENTS_FILE).unlink(missing_ok=True)
            for path in written.iterdir():
                path.rename(folder / path.name)

        checkpoint.commit(self._folder, step, {"metrics": self._last_metrics}, move)
        checkpoint.prune(self._folder, {step})
        shutil.rmtree(written)
        self._events.committed(step, self._last_metrics, time.monotonic() - started_s)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Remove TRL's folder: what it holds is committed, but for a card of its own."""
        if self._is_main:
            shutil.rmtree(self._folder / TRL_FOLDER, ignore_errors=True)
