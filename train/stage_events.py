"""What a stage's main worker tells the job's event log, and hears from it."""

import os
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from train import checkpoint

EMIT_DEADLINE_S = 60.0


class StageEvents:
    """The event log as one stage sees it. Every call returns when the log has written.

    Raises TimeoutError when it does not answer.
    """

    def __init__(self, log: Any, stage: str, out: Path) -> None:
        self._log = log  # actor handle of train.events.EventLog
        self._stage = stage
        self._out = out
        self._folder = checkpoints_folder(out, stage)

    def phase(self, step: int, phase: str) -> bool:
        """Say what this worker begins to do; return whether the job was asked to stop."""
        return acknowledged(self._log.now.remote(self._stage, step, phase, os.getpid()))

    def emit(self, kind: str, step: int, **data: Any) -> None:
        """Append an event of the stage's step."""
        event = {"type": kind, "stage": self._stage, "step": step, **data}
        acknowledged(self._log.emit.remote(event))

    def account(self, scored: int, dropped: int) -> None:
        """Enter engine requests by what became of their rollouts."""
        acknowledged(self._log.account.remote(scored, dropped))

    def begin(self, found: checkpoint.Checkpoint | None) -> None:
        """Forget what came after the checkpoint `found`, and say where the stage goes on.

        A kill between a commit and its event leaves a checkpoint that the log does not know.
        """
        step = found.step if found else 0
        acknowledged(self._log.rewind.remote(self._stage, step))
        if found:
            event = self._committed(step, found.state["metrics"])
            acknowledged(self._log.emit_once.remote(event))
        how = f"continues at step {step}" if found else "starts"
        self.emit("message", step, message=f"stage {self._stage} {how}", resumed_at=step)

    def committed(self, step: int, metrics: dict[str, Any], seconds: float) -> None:
        """Say that the step's checkpoint is committed, and those that are not kept are removed."""
        event = self._committed(step, metrics) | {"seconds": round(seconds, 4)}
        acknowledged(self._log.emit.remote(event))

    def _committed(self, step: int, metrics: dict[str, Any]) -> dict[str, Any]:
        path = checkpoint.step_folder(self._folder, step)
        return {
            "type": "checkpoint",
            "stage": self._stage,
            "step": step,
            "message": f"checkpoint of step {step} committed",
            "path": str(path.relative_to(self._out)),
            "metrics": metrics,
            "kept": checkpoint.steps(self._folder),  # of this stage: those that have files
        }


def checkpoints_folder(out: Path, stage: str) -> Path:
    """Where the checkpoints of a job's stage stand."""
    return out / stage / "checkpoints"


def acknowledged(call: Any) -> Any:
    """Wait until the event log has written. Raises TimeoutError."""
    try:
        return ray.get(call, timeout=EMIT_DEADLINE_S)
    except GetTimeoutError:
        raise TimeoutError(
            f"waited {EMIT_DEADLINE_S:.0f} s for the job's event log; is the driver's node alive, "
            "and is there room on the disk of --out?"
        ) from None
