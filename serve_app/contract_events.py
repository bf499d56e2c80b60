"""A driver's event in the words of the wire contract. Pure functions."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.event_log import DamagedLine
from train.spec import is_srl

STAGES = ("sft", "srl", "srl_2", "rlvr")  # in the order in which a job runs them
_ENVELOPE = ("seq", "uid", "created_at", "type", "message", "level")
# Names that clients read; a step has None where it has no such figure.
_METRICS = (
    "train_mean_reward",
    "full_valid_mean_reward",
    "full_valid_mean_parse_error",
    "completion_tokens_mean",
    "reward",
    "reward_std",
    "kl",
    "entropy",
    "completions/mean_length",
    "completions/clipped_ratio",
    "clip_ratio",
    "grad_norm",
    "sampler_learner_logprob_diff",
    "staleness",
    "groups_filtered",
    "rollouts_dropped",
)


@dataclass(frozen=True, slots=True)
class ContractEvent:
    """An event as clients see it. `key`: events with the same one replace each other."""

    key: str
    message: str
    type: str = "message"
    level: str = "info"
    data: dict[str, Any] = field(default_factory=dict)
    created_at: int | None = None


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """Numbers the optimizer steps of all stages as one row, from 1."""

    offsets: dict[str, int]  # of each stage that the job has
    total: int

    @classmethod
    def of(cls, spec: dict[str, Any] | None, steps_planned: int) -> "StepNumbers":
        """From a job's specification and its planned steps, evaluated policies included.

        How many steps SFT takes depends on its rows, so they are what the other stages leave.
        """
        spec = spec or {}
        stages = stages_of(spec)
        more = spec.get("more_examples") or {}
        own = {**spec, "srl_2": {"max_steps": more.get("max_steps")}}
        steps = {s: own[s]["max_steps"] or spec["srl"]["max_steps"] for s in stages if s != "sft"}
        total = max(sum(steps.values()), steps_planned - num_evaluated(spec))
        if "sft" in stages:
            steps["sft"] = total - sum(steps.values())
        offsets, offset = {}, 0
        for stage in stages:
            offsets[stage] = offset
            offset += steps[stage]
        return cls(offsets, offset)

    def number(self, stage: str, step: int) -> int:
        """The number of a stage's step over the whole job."""
        return self.offsets.get(stage, 0) + step


def num_evaluated(spec: dict[str, Any]) -> int:
    """Policies that the job evaluates on held-out rows: the base, and the result of each stage."""
    if not (spec.get("data") or {}).get("heldout"):
        return 0
    return 1 + len(stages_of(spec))


def stages_of(spec: Mapping[str, Any]) -> list[str]:
    """The stages that a job's specification plans, in order."""
    fields = {"srl_2": "more_examples"}
    return [stage for stage in STAGES if spec.get(fields.get(stage, stage)) is not None]


def contract_event(
    event: dict[str, Any] | DamagedLine, numbers: StepNumbers, spec: dict[str, Any] | None
) -> ContractEvent:
    """Translate one event of the driver's log."""
    if isinstance(event, DamagedLine):
        message = f"The driver's log is damaged at byte {event.offset}: {event.reason}"
        digest = hashlib.sha256(event.reason.encode()).hexdigest()[:16]
        return ContractEvent(f"damaged:{event.offset}:{digest}", message, level="warn")
    kind, created_at = event["type"], event.get("created_at")
    if kind == "metrics":
        data = _metrics(event, numbers, spec or {})
        return ContractEvent(
            work_key(event), _metrics_message(data), "metrics", data=data, created_at=created_at
        )
    if kind == "checkpoint":
        step = numbers.number(event["stage"], event["step"])
        data = {"step": step, "stage": event["stage"], **(event.get("metrics") or {})}
        message = f"Checkpoint created at step {step}"
        return ContractEvent(work_key(event), message, data=data, created_at=created_at)
    if kind == "evaluation":
        data = {k: v for k, v in event.items() if k not in _ENVELOPE}
        return ContractEvent(
            work_key(event), _evaluation_message(event), data=data, created_at=created_at
        )
    data = event.get("data") or {k: v for k, v in event.items() if k not in _ENVELOPE}
    return ContractEvent(
        event["uid"],
        event.get("message") or kind,
        level=event.get("level", "info"),
        data=data,
        created_at=created_at,
    )


def work_key(event: dict[str, Any]) -> str:
    """The key of a unit of work, the same when it is done again after a restart."""
    what = event["name"] if event["type"] == "evaluation" else event["step"]
    return f"{event.get('stage', 'evaluate')}:{what}:{event['type']}"


def _metrics(event: dict[str, Any], numbers: StepNumbers, spec: dict[str, Any]) -> dict[str, Any]:
    """Everything the driver measured, under its own names and those of the contract."""
    stage, own = event["stage"], {k: v for k, v in event.items() if k not in _ENVELOPE}
    train, valid = event.get("train_mean_reward"), event.get("full_valid_mean_reward")
    graders = _graders(stage, spec)
    dropped = event.get("rollouts_dropped")
    step = (event.get("timing") or {}).get("step") or {}
    return {
        **dict.fromkeys(_METRICS),
        **own,
        "step": numbers.number(stage, event["step"]),
        "total_steps": numbers.total,
        "stage": stage,
        "stage_step": event["step"],
        "stage_total_steps": event.get("total_steps"),
        "train_reward_mean": train,
        **_supervised(event),
        "scores": {
            "train_reward_mean": train,
            "valid_reward_mean": valid,
            "graders": [
                grader
                | {
                    "train_reward_mean": train if trains else None,
                    "valid_reward_mean": valid if validates else None,
                }
                for grader, trains, validates in graders
            ],
        },
        "errors": {
            "graders": [
                grader | {"rollouts_dropped": dropped if trains else None}
                for grader, trains, _ in graders
            ]
        },
        "timing": {
            "step": {k: step.get(k) for k in ("sampling", "training", "eval", "full_iteration")}
            | step,
            "graders": [grader for grader, _, _ in graders],
        },
    }


def _supervised(event: dict[str, Any]) -> dict[str, Any]:
    """The warm start's figures under the names that supervised jobs are read by."""
    if event["stage"] != "sft":
        return {}
    return {
        "train_loss": event.get("loss"),
        "train_mean_token_accuracy": event.get("mean_token_accuracy"),
    }


def _graders(stage: str, spec: dict[str, Any]) -> list[tuple[dict[str, Any], bool, bool]]:
    """[(name and type, whether it rewards this stage, whether it validates it)]."""
    grader = spec.get("grader") or {}
    kind = grader.get("type")
    own = {"name": grader.get("name") or kind, "type": kind}
    if stage == "sft":
        return []
    if is_srl(stage):
        steps = {"name": "step_similarity", "type": "step_similarity"}
        return [(steps, True, False), (own, False, True)]
    return [(own, True, True)]


def _metrics_message(data: dict[str, Any]) -> str:
    names = {
        "train_mean_reward": "train mean reward",
        "full_valid_mean_reward": "full validation mean reward",
        "train_loss": "training loss",
    }
    parts = [f"Step {data['step']}/{data['total_steps']}"]
    parts += [f"{name}={data[key]:.3g}" for key, name in names.items() if data.get(key) is not None]
    return ", ".join(parts)


def _evaluation_message(event: dict[str, Any]) -> str:
    low, high = event["ci95"]
    return (
        f"Held-out problems, policy {event['name']}: accuracy {event['greedy']:.3f} "
        f"(95% interval {low:.3f}-{high:.3f}, {event['num_problems']} problems)"
    )


def same_content(stored: Any, event: ContractEvent) -> bool:
    """True when the store's row of this key says the same: a log that is read once more."""
    told = (stored.level, stored.type, stored.message, stored.data)
    return told == (event.level, event.type, event.message, json.loads(json.dumps(event.data)))
