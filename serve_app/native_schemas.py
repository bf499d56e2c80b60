"""Bodies of the calls beside jobs: examples, model selection. Estimates take a create body."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from rollout.verifiers.registry import AnyGrader
from serve_app.prepare_rows import MIN_ROWS
from serve_app.request_types import ParamError, Request
from serve_app.schemas import MAX_DOCUMENTS, MAX_EXAMPLES, MAX_ROWS, check_enough
from serve_app.stage_schemas import TeacherRequest
from train.spec import AllocationMode

NUM_EXAMPLES = 48
MAX_CANDIDATES = 16
_Seed = Annotated[int, Field(ge=0, le=2147483647)]


class RowsOrFile(Request):
    """Rows in the body, or the id of an uploaded file; exactly one of them."""

    rows: Annotated[list[dict[str, Any]], Field(max_length=MAX_ROWS)] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None
    grader: AnyGrader | None = None  # none: inferred from the rows
    seed: _Seed = 0

    @model_validator(mode="after")
    def _has_one_source(self) -> "RowsOrFile":
        if (self.rows is None) == (self.file is None):
            raise ParamError("rows", "give either `rows` or `file`, and not both")
        return self


class PolicyRequest(Request):
    """The model whose failures say where examples are needed; it is sampled on the rows."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    num_problems: Annotated[int, Field(ge=1, le=512)] = 64  # rows, at most
    num_samples: Annotated[int, Field(ge=1, le=32)] = 4  # of each


class GenerateExamples(RowsOrFile):
    """Body of POST /examples/generate and /v1/fine_tuning/examples."""

    num_examples: Annotated[int, Field(ge=1, le=MAX_EXAMPLES)] = NUM_EXAMPLES
    teacher: TeacherRequest | None = None  # none: the programmatic solver
    # Ids of text files: the teacher is shown passages of them that share words with the problem.
    documents: list[str] = Field(default_factory=list, max_length=MAX_DOCUMENTS)
    policy: PolicyRequest | None = None  # rows that it always solves are not asked
    mode: AllocationMode = "uniform"  # how examples are shared among skills; weakness: by failures
    stream: bool = False  # progress as server-sent events; closing the connection cancels

    @model_validator(mode="after")
    def _documents_have_a_reader(self) -> "GenerateExamples":
        if self.documents and self.teacher is None:
            raise ParamError("documents", "are for a teacher to read; give `teacher` too")
        # A policy's rollouts are prepared as those of a job.
        check_enough(self.rows, 1 if self.policy is None else MIN_ROWS)
        if self.mode == "weakness" and self.policy is None:
            raise ParamError(
                "mode",
                "is 'weakness', but no `policy` says whose; give policy.model, or leave mode out",
            )
        return self


class Constraints(Request):
    """Which models are looked at, and how closely."""

    models: Annotated[list[str], Field(min_length=1, max_length=MAX_CANDIDATES)] | None = None
    max_parameters: Annotated[int, Field(ge=1)] | None = None
    min_context_tokens: Annotated[int, Field(ge=1)] | None = None
    max_memory_gib: Annotated[float, Field(gt=0)] | None = None  # to train all weights, by Adam
    # Of these the service's catalogue file speaks; a model of which it says nothing is left out.
    licences: Annotated[list[str], Field(min_length=1)] | None = None  # SPDX identifiers
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None  # of one generated token
    # Of the training. Known where a job of some candidate has run here; the cost, where the
    # catalogue file states the price of a device.
    max_device_hours: Annotated[float, Field(gt=0)] | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None
    num_problems: Annotated[int, Field(ge=1, le=256)] = 64
    k: Annotated[int, Field(ge=1, le=64)] = 8


class SelectModel(RowsOrFile):
    """Body of POST /model/select and /v1/fine_tuning/model_selection."""

    auto_fields: ClassVar[tuple[str, ...]] = ("task",)
    task: Annotated[str, Field(min_length=1, max_length=512)]  # a name for people, echoed
    constraints: Constraints = Constraints()

    @model_validator(mode="after")
    def _rows_are_enough(self) -> "SelectModel":
        check_enough(self.rows)
        return self
