"""What a sweep is: a job, the fields that vary, and how many trials. No ray, no torch."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from train.spec import JobSpec, SpecError, load_spec

Pair = tuple[float, float]


class Domain(BaseModel):
    """The values that a field may take; exactly one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    uniform: Pair | None = None
    loguniform: Pair | None = None
    randint: tuple[int, int] | None = None  # the upper end is not taken

    @model_validator(mode="after")
    def _is_one_range(self) -> "Domain":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of choice, uniform, loguniform, randint")
        bounds = getattr(self, given[0])
        if given[0] != "choice" and not bounds[0] < bounds[1]:
            raise ValueError(f"{given[0]} {list(bounds)} is no range; the lower end comes first")
        if given[0] == "loguniform" and bounds[0] <= 0:
            raise ValueError(f"loguniform {list(bounds)} begins at {bounds[0]}; begin above 0")
        return self


class SweepSpec(BaseModel):
    """A sweep. Fields are named as in a job file, dotted: `rlvr.learning_rate`, `data.train`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: Path  # the job file that every trial starts from
    set: list[str] = []  # overrides of every trial, "dotted.key=value"
    parameters: Annotated[dict[str, Domain], Field(min_length=1)]
    num_trials: Annotated[int, Field(ge=2, le=1000)] = 8  # the job as it stands is the first
    max_concurrent: Annotated[int, Field(ge=1)] = 1
    # ASHA (Li et al., arXiv 1810.05934): at grace_steps, and at each reduction_factor times that
    # many optimizer steps, a trial goes on when it is in the best 1 / reduction_factor.
    grace_steps: Annotated[int, Field(ge=1)] = 5
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    seed: int = 0

    def overrides(self, values: dict[str, Any]) -> list[str]:
        """A trial's overrides of the job file, its own values last."""
        own = [f"{name}={yaml.safe_dump(value).strip()}" for name, value in values.items()]
        return [*self.set, *(text.removesuffix("\n...") for text in own)]

    def job_of(self, values: dict[str, Any]) -> JobSpec:
        """A trial's job. Raises SpecError."""
        return load_spec(self.job, self.overrides(values))

    def default(self) -> dict[str, Any]:
        """The job's own values of the fields that vary. Raises SpecError for a field it lacks."""
        found = {}
        raw = self.job_of({}).model_dump(mode="json")
        for name in self.parameters:
            value: Any = raw
            for part in name.split("."):
                if not isinstance(value, dict) or part not in value:
                    raise SpecError(
                        f"parameters.{name}: {self.job} has no such field; write it as in a job "
                        "file, such as rlvr.learning_rate, of a stage that the job has"
                    )
                value = value[part]
            found[name] = value
        return found


def load_sweep(path: Path) -> SweepSpec:
    """Read a sweep's file; `job` starts at its folder. Raises SpecError."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: is neither YAML nor JSON: {error}") from None
    try:
        spec = SweepSpec.model_validate(raw)
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, item['loc']))}: {item['msg']} (got {item['input']!r})"
            for item in error.errors()
        ]
        raise SpecError("\n".join(lines)) from None
    spec = spec.model_copy(update={"job": (path.resolve().parent / spec.job).resolve()})
    spec.default()  # every field must be there
    for values in _corners(spec):
        spec.job_of(values)
    return spec


def _corners(spec: SweepSpec) -> list[dict[str, Any]]:
    """Each field's extreme values, one at a time: what they are refused for is said at once."""
    corners = []
    for name, domain in spec.parameters.items():
        ends: list[Any] = list(domain.choice or domain.uniform or domain.loguniform or [])
        if domain.randint is not None:
            ends = [domain.randint[0], domain.randint[1] - 1]
        corners += [{name: value} for value in ends]
    return corners
