"""What a client may ask for: the bodies of the create calls, every field of the contract.

A body is checked here by itself; rows, model and cluster are checked by `serve_app.prepare`, which
reads these models again. Nothing is accepted and ignored: a field works, or is refused by name.
The parts of a body are in `serve_app.stage_schemas`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, PlainValidator, field_validator, model_validator

from rollout.verifiers.registry import AnyGrader
from serve_app.prepare_rows import MIN_ROWS
from serve_app.request_types import AUTO, ParamError, Request, parse_request
from serve_app.stage_schemas import (
    EvaluationRequest,
    MoreExamplesRequest,
    PromptRequest,
    ReinforcementMethod,
    ResourcesRequest,
    RLVRRequest,
    SamplingRequest,
    SFTRequest,
    SRLMethod,
    SRLRequest,
    TeacherRequest,
)

MAX_METADATA, MAX_KEY, MAX_VALUE = 16, 64, 512
NO_NUL = r"^[^\x00]*$"  # PostgreSQL could not search for it
MAX_ROWS = 50_000  # in a body; more belong into a file
MAX_EXAMPLES = 10_000
MAX_DOCUMENTS = 16
_DPO = "preference optimisation (dpo) is not implemented; choose 'srl' or 'reinforcement'"
_SUPERVISED = (
    "supervised fine-tuning on whole conversations is not implemented; choose 'srl' or "
    "'reinforcement', with `sft` for a supervised warm start on expert steps"
)


class Method(Request):
    """How the job learns; the object named by `type` holds its settings."""

    refusals: ClassVar[dict[str, str]] = {"dpo": _DPO, "supervised": _SUPERVISED}
    type: Literal["supervised", "dpo", "reinforcement", "srl"]
    supervised: Any = None
    reinforcement: ReinforcementMethod | None = None
    srl: SRLMethod | None = None
    dpo: Any = None

    @model_validator(mode="after")
    def _holds_its_type_alone(self) -> "Method":
        if (refusal := self.refusals.get(self.type)) is not None:
            raise ParamError("type", refusal)
        for name in ("reinforcement", "srl"):
            if name != self.type and getattr(self, name) is not None:
                raise ParamError(
                    name, f"is given, but method.type is {self.type!r}; remove one of the two"
                )
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ParamError("reinforcement", 'is missing; give it with a "grader"')
        return self


def _num_examples(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is None or value == AUTO or (whole and 0 <= value <= MAX_EXAMPLES):
        return value
    raise ValueError(f"is {value!r}; write a number from 0 to {MAX_EXAMPLES}, or 'auto'")


class JobFields(Request):
    """What both create calls share: names, seed, stages, limits, resources."""

    auto_fields: ClassVar[tuple[str, ...]] = ("model", "num_examples", "suffix")
    refusals: ClassVar[dict[str, str]] = {
        "model_selection": "is not a field of a job; give `model`: 'auto' to have one selected, or "
        "ask POST /v1/fine_tuning/model_selection with constraints first",
        "early_stopping": "is not implemented; the result is the best checkpoint on validation "
        "rows anyhow. Bound the work by a stage's `max_steps`",
        "budget": "is not implemented; bound the work by a stage's `max_steps` or by "
        "`compute_multiplier`",
        "warm_start": "is not implemented; name the model to start from as `model`, or give `sft` "
        "for a supervised warm start on expert steps",
    }
    model: Annotated[str, Field(min_length=1, max_length=512)]  # "auto": selected by measurement
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, Field(min_length=1, max_length=MAX_KEY, pattern=NO_NUL)],
                Annotated[str, Field(max_length=MAX_VALUE, pattern=NO_NUL)],
            ],
            Field(max_length=MAX_METADATA),
        ]
        | None
    ) = None
    validation_file: Annotated[str, Field(min_length=1)] | None = None  # none: a seeded share
    heldout_file: Annotated[str, Field(min_length=1)] | None = None  # none: no held-out table
    # A stage left out runs whenever the rows allow it; null disables it.
    srl: SRLRequest | None = None
    rlvr: RLVRRequest | None = None
    sft: SFTRequest | None = None
    # How many rows the teacher, or the programmatic solver, gives expert steps; "auto": as many as
    # SRL needs, where the solver knows how.
    num_examples: Annotated[int | str | None, PlainValidator(_num_examples)] = None
    prompt: PromptRequest | None = None
    sampling: SamplingRequest | None = None
    evaluation: EvaluationRequest | None = None
    resources: ResourcesRequest | None = None
    integrations: list[Any] | None = None
    teacher: TeacherRequest | None = None  # writes expert steps for rows that have none
    # After SRL: solutions of what is still weak, and a second SRL stage that learns them.
    more_examples: MoreExamplesRequest | None = None
    # Ids of text files: the teacher is shown passages of them that share words with the problem.
    documents: list[str] = Field(default_factory=list, max_length=MAX_DOCUMENTS)
    model_selection: Any = None
    early_stopping: Any = None
    budget: Any = None
    warm_start: Any = None

    @field_validator("suffix")
    @classmethod
    def _fits_into_a_name(cls, value: str | None) -> str | None:
        if value and any(c in ":/%" or c.isspace() or not c.isprintable() for c in value):
            raise ValueError(
                f"{value!r} becomes part of the model's name; write it without white space, ':', "
                "'/' and '%'"
            )
        return value

    @field_validator("integrations")
    @classmethod
    def _are_none(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise ValueError(
                "no integration (such as 'wandb') is implemented; leave it out, and read GET "
                "/v1/fine_tuning/jobs/{id}/metrics"
            )
        return value

    @model_validator(mode="after")
    def _one_protocol(self) -> "JobFields":
        rlvr = self.rlvr.protocol if self.rlvr else None
        said = self.sampling is not None and "protocol" in self.sampling.model_fields_set
        sampling = self.sampling.protocol if self.sampling and said else None
        if rlvr and sampling and rlvr != sampling:
            raise ParamError(
                "rlvr.protocol",
                f"is {rlvr!r}, but sampling.protocol is {sampling!r}; a job has one, so give one",
            )
        return self

    def asks(self, name: str) -> bool:
        """True when the field was given and is not null."""
        return given(self, name) and getattr(self, name) is not None

    def disables(self, name: str) -> bool:
        """True when the field was given as null."""
        return given(self, name) and getattr(self, name) is None

    def stored(self) -> dict[str, Any]:
        """The body as JSON values, without what was left out or "auto": what a job's row keeps."""
        return self.model_dump(mode="json", exclude_unset=True)


def given(request: Any, name: str) -> bool:
    """True when the request was given and says something about the field."""
    return request is not None and name in request.model_fields_set


def given_fields(request: BaseModel | None, spec: type[BaseModel]) -> dict[str, Any]:
    """The fields of a specification that a request sets, as JSON values."""
    if request is None:
        return {}
    said = request.model_dump(mode="json", exclude_unset=True)
    return {name: value for name, value in said.items() if name in spec.model_fields}


class CreateJob(JobFields):
    """Body of POST /v1/fine_tuning/jobs."""

    training_file: Annotated[str, Field(min_length=1)]
    refusals: ClassVar[dict[str, str]] = JobFields.refusals | {
        "hyperparameters": "is the old place, of supervised jobs, which are not implemented; give "
        "method.reinforcement.hyperparameters"
    }
    method: Method | None = None  # none: reinforcement, its grader inferred
    hyperparameters: Any = None

    @property
    def kind(self) -> str:
        """The method's type."""
        return "reinforcement" if self.method is None else self.method.type

    @model_validator(mode="after")
    def _parts_fit(self) -> "CreateJob":
        if self.kind == "srl":
            for name in filter(self.asks, ("srl", "rlvr")):
                raise ParamError(
                    name,
                    "is not used by method 'srl', which runs SRL alone, set in method.srl; for SRL "
                    "and then RLVR choose method 'reinforcement'",
                )
        learns_steps = not self.disables("srl") or self.asks("sft")
        if self.teacher is not None and not learns_steps and self.kind != "srl":
            raise ParamError("teacher", "is given, but no stage learns from expert steps")
        if self.more_examples is not None and self.disables("srl"):
            raise ParamError("more_examples", "is for what SRL leaves weak, but `srl` is null")
        if self.teacher is not None and self.num_examples == 0 and not self.more_examples:
            raise ParamError("num_examples", "is 0, but a teacher is given; remove one of the two")
        if self.documents and self.teacher is None:
            raise ParamError("documents", "are for a teacher to read; give `teacher` too")
        none_left = self.disables("srl") and self.disables("rlvr") and not self.asks("sft")
        if none_left and self.kind != "srl":
            raise ParamError("rlvr", "both `srl` and `rlvr` are null, so that no stage is left")
        return self


def check_enough(rows: Sequence[Any] | None, least: int = MIN_ROWS) -> None:
    """Raise ParamError for rows, if they are in the body, that are too few; by default to train."""
    if rows is not None and len(rows) < least:
        raise ParamError("rows", f"{len(rows)} given; give at least {least}")


class StartTraining(JobFields):
    """Body of POST /training/start: rows or a file, everything else chosen."""

    rows: Annotated[list[dict[str, Any]], Field(max_length=MAX_ROWS)] | None = None
    file: str | None = None  # id of an uploaded file
    grader: AnyGrader | None = None  # none: inferred from the rows

    @model_validator(mode="after")
    def _has_one_source(self) -> "StartTraining":
        if (self.rows is None) == (self.file is None):
            raise ParamError("rows", "give either `rows` or `file`, and not both")
        check_enough(self.rows)
        return self

    def to_create(self, training_file: str) -> CreateJob:
        """The same job as a create call, its rows stored as `training_file`.

        Raises RequestError for fields that do not go together.
        """
        body = {k: v for k, v in self.stored().items() if k not in ("rows", "file", "grader")}
        body.setdefault("num_examples", AUTO)
        if self.grader is not None:
            grader = self.grader.model_dump(mode="json", exclude_unset=True)
            body["method"] = {"type": "reinforcement", "reinforcement": {"grader": grader}}
        return parse_request(CreateJob, body | {"training_file": training_file})
