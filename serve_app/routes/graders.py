"""/v1/fine_tuning/alpha/graders: check a grader, and run it over one sample."""

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from rollout.verifiers.grader_keys import secrets_of
from rollout.verifiers.grader_run import run_grader
from rollout.verifiers.registry import GraderSpecError, parse_grader
from serve_app.auth import Calling
from serve_app.context import ServiceOf
from serve_app.errors import bad_request
from serve_app.fair_threads import FairThreads

router = APIRouter(prefix="/fine_tuning/alpha/graders", tags=["graders"])
# A grader may take minutes. More of them than these threads wait, and leave the threads that answer
# everything else alone.
_threads = FairThreads(4, "grader")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ValidateGrader(_Body):
    """A grader to check."""

    grader: dict[str, Any]


class RunGrader(_Body):
    """A grader, the text that it judges, and the row that the text answers."""

    grader: dict[str, Any]
    model_sample: str
    item: dict[str, Any] | None = None


def read_grader(raw: dict[str, Any]) -> BaseModel:
    """Return the grader. Raises ApiError 400 whose `param` is the wrong field."""
    try:
        return parse_grader(raw)
    except GraderSpecError as error:
        param = f"grader.{error.param}" if error.param else "grader"
        raise bad_request(str(error), param=param, code="invalid_grader") from None


@router.post("/validate")
def validate_grader(body: ValidateGrader, caller: Calling) -> dict[str, Any]:
    """The grader as it was understood; 400 names what is wrong."""
    grader = read_grader(body.grader)
    return {"grader": grader.model_dump(mode="json", exclude_unset=True)}


@router.post("/run")
async def run(body: RunGrader, caller: Calling, service: ServiceOf) -> dict[str, Any]:
    """Judge one sample. A grader that fails is no HTTP error: `metadata.errors` says how."""

    def work() -> dict[str, Any]:
        with secrets_of(lambda name: service.secrets.get(caller.project_id, name)):
            return run_grader(read_grader(body.grader), body.model_sample, body.item)

    return await asyncio.wrap_future(_threads.submit(caller.project_id, work))
