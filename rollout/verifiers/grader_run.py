"""One grader over one text: the reply of `POST /v1/fine_tuning/alpha/graders/run`.

Pure but for what the grader itself does. A grader that fails is no exception here: the reply says
which way it failed, in `metadata.errors`, whose keys are always all there.
"""

import time
from typing import Any

from rollout.types import Problem, Rollout, Turn
from rollout.verifiers.base import Grade, GraderError, grade_with

ERROR_FLAGS = (
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
)
ERROR_DETAILS = (
    "python_grader_server_error_type",
    "python_grader_runtime_error_details",
    "model_grader_server_error_details",
)
# The contract's `reward` is a number even where there is no verdict; the flags say that there is
# none. Training never sees it: `verify` raises.
NO_VERDICT_REWARD = 0.0


def as_rollout(text: str) -> Rollout:
    """A finished rollout of one turn that says `text`."""
    return Rollout("run", (Turn((), (), (), text, "end", ()),))


def as_problem(item: dict[str, Any]) -> Problem:
    """A problem whose row is `item`."""
    reference = item.get("reference_answer")
    expert = item.get("expert_step")
    return Problem(
        "run",
        "",
        reference_answer=None if reference is None else str(reference),
        expert_step=None if expert is None else str(expert),
        item=item,
    )


def run_grader(
    grader: Any, model_sample: str, item: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Grade `model_sample` for the row `item` and return the reply as JSON values."""
    errors: dict[str, Any] = {flag: False for flag in ERROR_FLAGS}  # noqa: C420 (typed so)
    errors |= dict.fromkeys(ERROR_DETAILS)
    name = str(getattr(grader, "name", grader.type))
    started_s = time.monotonic()
    grade, failure = None, ""
    try:
        grade = grade_with(grader, as_problem(item or {}), as_rollout(model_sample))
    except GraderError as error:
        errors[error.flag] = True
        if error.details_key:
            errors[error.details_key] = str(error)
        failure = str(error)
    except Exception as error:
        # Acceptable: a grader of another package, or a fault of ours. The caller is told.
        errors["other_error"] = True
        failure = f"{type(error).__name__}: {error}"
    execution_time_s = time.monotonic() - started_s
    if grade is None:
        grade, scores = Grade(NO_VERDICT_REWARD), {}
        print(f"grader {name!r} gave no verdict: {failure}")
    else:
        errors["sample_parse_error"] = grade.format_error and not grade.truncated
        errors["truncated_observation_error"] = grade.truncated
        scores = grade.sub_rewards or {name: grade.reward}
    usage = {
        model: {
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
            "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        }
        for model, spent in grade.usage.items()
    }
    return {
        "reward": float(grade.reward),
        "sub_rewards": dict(grade.sub_rewards),
        "model_grader_token_usage_per_model": usage,
        "metadata": {
            "name": name,
            "type": grader.type,
            "execution_time": execution_time_s,
            "scores": dict(scores),
            "token_usage": sum(u["total_tokens"] for u in usage.values()) if usage else None,
            "sampled_model_name": grade.sampled_model_name,
            "errors": errors,
        },
    }
