"""The parts of a create call: a method's settings, the stages, the teacher, what they run on.

Their fields are those of `train.spec` and of the teachers' specifications, so that a job file and a
request say the same. Whole bodies are in `serve_app.schemas`.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, WrapValidator, field_validator, model_validator

from rollout.verifiers.registry import AnyGrader
from serve_app.request_types import ParamError, Request
from train.experts.engine_teacher import EngineTeacherSpec
from train.experts.teachers import EndpointTeacherSpec
from train.spec import (
    EvaluationSpec,
    LearnerSpec,
    MoreExamplesSpec,
    PromptSpec,
    RLVRSpec,
    RolloutSpec,
    SamplingLimits,
    SFTSpec,
    SRLSpec,
)


class ReinforcementHyperparameters(Request):
    """Of reinforcement fine-tuning. None: chosen for model and rows."""

    batch_size: Annotated[int, Field(ge=1, le=256)] | None = None  # problems per optimizer step
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | None = None
    n_epochs: Annotated[int, Field(ge=1, le=50)] | None = None
    compute_multiplier: Annotated[float, Field(gt=1e-5, le=10)] | None = None
    eval_interval: Annotated[int, Field(ge=1)] | None = None
    eval_samples: Annotated[int, Field(ge=1)] | None = None
    reasoning_effort: str | None = None

    @field_validator("reasoning_effort")
    @classmethod
    def _has_no_switch(cls, value: str | None) -> str | None:
        if value not in (None, "default"):
            raise ValueError(
                f"is {value!r}, but open models have no such switch; leave it out and bound the "
                "length of a generation by sampling.max_tokens"
            )
        return value


class ReinforcementMethod(Request):
    """Rows whose last message is the user's, judged by a grader."""

    instead_of_auto: ClassVar[str] = "leave `method` out to have it inferred"
    refusals: ClassVar[dict[str, str]] = {
        "response_format": "is not implemented; ask for the form in the prompt and check it with "
        "a grader of type 'json_schema'"
    }
    grader: AnyGrader
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()
    response_format: Any = None


class _StageRequest(Request):
    """What a stage's request has beyond the stage's specification."""

    max_staleness: int | None = None
    protocol: Literal["single", "stepwise"] | None = None

    @field_validator("max_staleness")
    @classmethod
    def _is_synchronous(cls, value: int | None) -> int | None:
        if value:
            raise ValueError(
                f"is {value}, but rollouts are synchronous: every one is of the newest policy; "
                "set it to 0 or leave it out"
            )
        return value

    @model_validator(mode="after")
    def _loss_fields_fit(self) -> Any:
        return self  # checked on the whole specification, where dr_grpo_length is known


class SRLRequest(_StageRequest, SRLSpec):
    """SRL's settings; a field left out is chosen."""

    model_config = ConfigDict(strict=True)

    @field_validator("protocol")
    @classmethod
    def _samples_steps(cls, value: str | None) -> str | None:
        if value == "single":
            raise ValueError(
                "is 'single', but SRL samples one step at a time; leave it out (`rlvr.protocol` "
                "and `sampling.protocol` say how whole problems are solved)"
            )
        return value


class RLVRRequest(_StageRequest, RLVRSpec):
    """RLVR's settings; a field left out is chosen."""

    model_config = ConfigDict(strict=True)


class SFTRequest(Request, SFTSpec):
    """A supervised warm start on expert steps."""

    model_config = ConfigDict(strict=True)


class EndpointTeacherRequest(Request, EndpointTeacherSpec):
    """A model behind an OpenAI-compatible endpoint that writes expert steps."""

    model_config = ConfigDict(strict=True)


class EngineTeacherRequest(Request, EngineTeacherSpec):
    """A model of this service that writes expert steps, on engines of the cluster's own."""

    model_config = ConfigDict(strict=True)


def _teacher_of_its_type(value: Any, _: Any) -> Any:
    """Chosen by `type` before anything else is read, so that errors are of that kind alone."""
    if value is None or isinstance(value, BaseModel):
        return value
    kinds = {"endpoint": EndpointTeacherRequest, "engine": EngineTeacherRequest}
    named = value.get("type", "endpoint") if isinstance(value, dict) else "endpoint"
    if not isinstance(named, str) or named not in kinds:
        raise ParamError("type", f"is {named!r}; choose 'endpoint' or 'engine'")
    return kinds[named].model_validate(value)


TeacherRequest = Annotated[
    EndpointTeacherRequest | EngineTeacherRequest, WrapValidator(_teacher_of_its_type)
]


class MoreExamplesRequest(Request, MoreExamplesSpec):
    """Expert solutions of what SRL left weak, written by the job's `teacher` or the solver."""

    model_config = ConfigDict(strict=True)
    refusals: ClassVar[dict[str, str]] = {
        "teacher": "is the job's own: give `teacher` beside `more_examples`",
        "teacher_model": "is the service's to fill in; name the model as `teacher.model`",
        "documents": "are the job's own: give `documents` beside `more_examples`",
    }


class PromptRequest(Request, PromptSpec):
    """How a row becomes a prompt."""

    model_config = ConfigDict(strict=True)


class SamplingRequest(Request, SamplingLimits):
    """How far a rollout may go."""

    model_config = ConfigDict(strict=True)


class EvaluationRequest(Request, EvaluationSpec):
    """The evaluation on held-out rows."""

    model_config = ConfigDict(strict=True)


class ResourcesRequest(Request, LearnerSpec, RolloutSpec):
    """Learner and rollouts. `num_threads` and `dtype` are of both."""

    model_config = ConfigDict(strict=True)


class SRLMethod(SRLRequest):
    """SRL alone: the stage's fields, and the grader that validates (None: inferred)."""

    grader: AnyGrader | None = None
