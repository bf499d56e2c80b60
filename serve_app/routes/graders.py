"""/v1/fine_tuning/alpha/graders: check a grader, and run it over one sample."""

from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from rollout.verifiers.grader_run import run_grader
from rollout.verifiers.registry import GraderSpecError, parse_grader
from serve_app.auth import Calling
from serve_app.errors import bad_request

router = APIRouter(prefix="/fine_tuning/alpha/graders", tags=["graders"])
# At once, of one replica. A grader may take minutes: more of them wait here and leave the threads
# that answer everything else alone.
MAX_GRADER_RUNS = 4


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


def _runs_of(request: Request) -> CapacityLimiter:
    state = request.app.state
    if not hasattr(state, "grader_runs"):
        state.grader_runs = CapacityLimiter(MAX_GRADER_RUNS)
    return state.grader_runs


@router.post("/validate")
def validate_grader(body: ValidateGrader, caller: Calling) -> dict[str, Any]:
    """The grader as it was understood; 400 names what is wrong."""
    grader = read_grader(body.grader)
    return {"grader": grader.model_dump(mode="json", exclude_unset=True)}


@router.post("/run")
async def run(body: RunGrader, request: Request, caller: Calling) -> dict[str, Any]:
    """Judge one sample. A grader that fails is no HTTP error: `metadata.errors` says how."""
    limiter = _runs_of(request)
    grader = await anyio.to_thread.run_sync(read_grader, body.grader, limiter=limiter)
    return await anyio.to_thread.run_sync(
        run_grader, grader, body.model_sample, body.item, limiter=limiter
    )
