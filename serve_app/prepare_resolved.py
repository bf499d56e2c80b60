"""What a job shows of its settings: the create call's own fields with every "auto" replaced."""

import math
from collections.abc import Mapping
from typing import Any

from serve_app.prepare_rows import JobRows
from serve_app.prepare_spec import wishes_of
from serve_app.schemas import CreateJob
from train.spec import JobSpec
from train.spec_file import spec_to_json


def resolve(job: CreateJob, spec: JobSpec, data: JobRows) -> dict[str, Any]:
    """Every field of the create call that has settings, as they will be used."""
    raw = spec_to_json(spec)
    stages = {name: _stage(raw, name) for name in ("srl", "rlvr")}
    alone = job.kind == "srl"
    part = {"grader": raw["grader"]}
    if alone:
        part |= stages["srl"] or {}
    else:
        part["hyperparameters"] = _hyperparameters(job, spec, data)
    name = "srl" if alone else "reinforcement"
    return {
        "method": {"type": name, name: part},
        **({} if alone else stages),
        "sft": raw["sft"],
        **({"more_examples": resolved_more_examples(spec)} if spec.more_examples else {}),
        "num_examples": sum(bool(row.expert_steps) for row in data.rows["training"]),
        "prompt": raw["prompt"],
        "sampling": raw["sampling"],
        "evaluation": raw["evaluation"],
        "resources": {**raw["learner"], **raw["rollout"]},
    }


def _stage(raw: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    if raw[name] is None:
        return None
    protocol = "stepwise" if name == "srl" else raw["sampling"]["protocol"]
    max_tokens = raw[name]["max_tokens"] or raw["sampling"]["max_tokens"]
    return raw[name] | {"protocol": protocol, "max_tokens": max_tokens, "max_staleness": 0}


def resolved_more_examples(spec: JobSpec) -> dict[str, Any]:
    """Without what stands elsewhere in the job, or is this cluster's own concern."""
    elsewhere = {"teacher", "teacher_model", "documents"}
    assert spec.more_examples is not None
    shown = spec.more_examples.model_dump(mode="json", exclude=elsewhere)
    return shown | {"max_steps": spec.reinforcement_stages["srl_2"].max_steps}


def _hyperparameters(job: CreateJob, spec: JobSpec, data: JobRows) -> dict[str, Any]:
    """Of method reinforcement; where SRL and RLVR differ, RLVR's."""
    wishes, stage = wishes_of(job), spec.rlvr or spec.srl
    rows = len(data.rows["training"])
    shown: dict[str, Any] = {
        "learning_rate_multiplier": wishes.learning_rate_multiplier or 1.0,
        "compute_multiplier": wishes.compute_multiplier or 1.0,
        "eval_samples": len(data.rows["validation"]),
        "reasoning_effort": "default",
    }
    if stage is not None:
        epochs = wishes.n_epochs or math.ceil(stage.max_steps * stage.groups_per_step / rows)
        shown |= {
            "batch_size": stage.groups_per_step,
            "n_epochs": epochs,
            "eval_interval": stage.eval_interval,
        }
    return shown
