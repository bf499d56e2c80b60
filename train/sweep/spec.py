"""What a sweep is: a job, the fields that vary, a mix of data, the number of trials. No ray."""

import json
import math
import random
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from train.field_names import describe_field
from train.spec import JobSpec, SpecError
from train.spec_file import load_spec, read_yaml
from train.sweep.mix import MixSpec

MIX_PREFIX = "mix."
MAX_DRAWS = 1000  # per setting; then the domains hold too few settings


class Domain(BaseModel):
    """The values that a field may take; exactly one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    randint: tuple[int, int] | None = None  # both ends are taken

    @model_validator(mode="after")
    def _is_one_range(self) -> "Domain":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of choice, uniform, loguniform, randint")
        bounds = getattr(self, given[0])
        if given[0] != "choice" and not bounds[0] < bounds[1]:
            raise ValueError(f"{given[0]} {list(bounds)} is no range; the lower end comes first")
        if given[0] == "loguniform" and bounds[0] <= 0:
            raise ValueError(f"loguniform begins at {bounds[0]}; begin above 0")
        return self

    def draw(self, rng: random.Random) -> Any:
        """One value; a float is rounded to four significant digits."""
        if self.choice is not None:
            return rng.choice(self.choice)
        if self.randint is not None:
            return rng.randint(*self.randint)
        if self.uniform is not None:
            return float(f"{rng.uniform(*self.uniform):.4g}")
        assert self.loguniform is not None
        low, high = map(math.log, self.loguniform)
        return float(f"{math.exp(rng.uniform(low, high)):.4g}")

    def ends(self) -> tuple[Any, ...]:
        """Every choice, or the lower and the upper end."""
        found = self.choice or self.uniform or self.loguniform or self.randint
        assert found is not None
        return tuple(found)


class SweepSpec(BaseModel):
    """A sweep. Fields are named as in a job file, dotted; `mix.NAME` is a source's share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: Path  # the job file that every trial starts from
    set: tuple[str, ...] = ()  # overrides of every trial, "dotted.key=value"
    mix: MixSpec | None = None  # data.train of every trial is drawn from these files
    parameters: Annotated[dict[str, Domain], Field(min_length=1)]
    num_trials: Annotated[int, Field(ge=2, le=1000)] = 8  # the job as it stands is the first
    max_concurrent: Annotated[int, Field(ge=1)] = 1  # jobs that train at once
    # ASHA (Li et al., arXiv 1810.05934): at grace_steps optimizer steps, and at each
    # reduction_factor times as many, only the best 1 / reduction_factor so far go on.
    grace_steps: Annotated[int, Field(ge=1)] = 5
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    seed: int = 0  # of the settings that are drawn; the job's own seed is a field of the job

    def job_of(self, setting: dict[str, Any]) -> JobSpec:
        """The job of a setting, before its mix is written. Raises SpecError."""
        own = {k: v for k, v in setting.items() if not k.startswith(MIX_PREFIX)}
        return load_spec(self.job, [*self.set, *(f"{k}={json.dumps(v)}" for k, v in own.items())])

    def shares_of(self, setting: dict[str, Any]) -> dict[str, float]:
        """Each source's share in a setting, not yet normalised."""
        assert self.mix is not None
        given = {name: source.share for name, source in self.mix.sources.items()}
        return {name: setting.get(MIX_PREFIX + name, share) for name, share in given.items()}

    def default(self) -> dict[str, Any]:
        """The job's own values of the fields that vary. Raises SpecError for a field it lacks."""
        job = self.job_of({}).model_dump(mode="json")
        return {name: self._own_value(name, job) for name in self.parameters}

    def _own_value(self, name: str, job: dict[str, Any]) -> Any:
        if name.startswith(MIX_PREFIX):
            shares = self.shares_of({}) if self.mix else {}
            source = name.removeprefix(MIX_PREFIX)
            if source not in shares:
                known = ", ".join(shares) or "none: there is no `mix`"
                raise SpecError(f"parameters.{name}: no source {source!r}; sources: {known}")
            return shares[source]
        value: Any = job
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                raise SpecError(
                    f"parameters.{name}: {self.job} has no such field; write it as in a job file, "
                    "such as srl.learning_rate, of a stage that the job has"
                )
            value = value[part]
        return value

    def settings(self) -> list[dict[str, Any]]:
        """Every trial's setting, the job's own first, all different; the seed fixes them.

        Raises SpecError when the domains hold fewer.
        """
        rng, found = random.Random(self.seed), [self.default()]
        for _ in range(MAX_DRAWS * self.num_trials):
            if len(found) == self.num_trials:
                return found
            drawn = {name: domain.draw(rng) for name, domain in self.parameters.items()}
            if drawn not in found:
                found.append(drawn)
        if len(found) == self.num_trials:
            return found
        raise SpecError(
            f"num_trials is {self.num_trials}, but the parameters have {len(found)} different "
            "settings, the job's own included: lower it, or widen a domain"
        )


def load_sweep(path: Path) -> SweepSpec:
    """Read a sweep's file; its paths start at its folder. Every end of a domain is tried.

    Raises SpecError, naming file, field, value and fix.
    """
    try:
        spec = SweepSpec.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = [f"{path}: {describe_field(item, SweepSpec)}" for item in error.errors()]
        raise SpecError("\n".join(lines)) from None
    folder = path.resolve().parent
    mix = spec.mix and spec.mix.below(folder)
    spec = spec.model_copy(update={"job": (folder / spec.job).resolve(), "mix": mix})
    _check(spec)
    return spec


# Fields by which trials are measured: a laxer grader would win by being lax.
YARDSTICK = ("data.", "grader", "evaluation")


def _check(spec: SweepSpec) -> None:
    job = spec.job_of({})
    if not (job.srl or job.rlvr):
        raise SpecError(f"{spec.job}: has neither srl nor rlvr, whose validations ASHA compares")
    for name, path in job.data:
        if path is None or (name == "train" and spec.mix is not None):
            continue
        if not path.is_file():
            raise SpecError(f"{spec.job}: data.{name}: {path} is no file; name one that is there")
    if job.data.heldout is None:
        raise SpecError(
            f"{spec.job}: data.heldout is missing: the best trial and the default are compared on "
            "rows that chose neither; give such a file"
        )
    spec.default()  # every field is there
    for name, domain in spec.parameters.items():
        if name.startswith(YARDSTICK):
            raise SpecError(
                f"parameters.{name}: trials are compared by it, so that it must be the same in "
                "all; sweep another field"
            )
        for value in domain.ends():
            if name.startswith(MIX_PREFIX):
                shares = spec.shares_of({name: value})
                if min(shares.values()) < 0:
                    raise SpecError(f"parameters.{name}: a share is {value}; give 0 or more")
            else:
                spec.job_of({name: value})
    settings = spec.settings()
    if spec.mix is not None:
        spec.mix.check([spec.shares_of(setting) for setting in settings])
