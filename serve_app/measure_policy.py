"""What a model does on rows now, before examples are asked for: on engines of the cluster's own."""

import fcntl
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from serve_app.prepare import prepare
from serve_app.prepare_error import PrepareError
from train.checkpoint import write_json
from train.data import Row, read_rows
from train.experts.measure import MeasuringCancelledError, measure
from train.experts.outcomes import Outcomes
from train.prompts import PromptRenderer, load_tokenizer
from train.selection.halving import ProbeError
from train.selection.probe import PROBE_SEED, fleet_of
from train.spec import JobSpec
from train.spec_file import load_spec

MEASURED = ".measured.json"  # beside a journal, which is of these shares alone


@dataclass(frozen=True)
class PolicySampling:
    """What is asked: a policy's outcomes on rows, sampled as a job of these rows would do it."""

    rows: Sequence[Row]  # in order of their lines
    path: Path  # the file in which they stand
    policy: Mapping[str, Any]  # "path", "model", "num_problems", "num_samples"
    grader: Any  # of the job: judges whole solutions
    seed: int  # of the rows that are set apart to validate
    cluster: Mapping[str, float]  # what Ray has for the engines
    cancelled: Callable[[], bool]  # asked between batches of problems


def measured_once(kept: Path | None, asked: PolicySampling) -> Outcomes:
    """The policy's outcomes; `kept` is where they are found again.

    A call that finds another one measuring waits for it. Raises PrepareError.
    """
    if kept is None:
        return _measured(asked)
    with kept.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file, or with the process
        if not kept.exists():
            found = _measured(asked)
            write_json(kept, found.as_json())
        kept.touch()  # no older than the journals that depend on it
        return Outcomes.from_json(json.loads(kept.read_text(encoding="utf-8")))


def _measured(asked: PolicySampling) -> Outcomes:
    policy = asked.policy
    with TemporaryDirectory() as folder:
        spec = _prepared(Path(folder), asked)
        prepared = [*read_rows(spec.data.train), *read_rows(spec.data.valid)]
        try:
            with fleet_of(spec) as pool:
                found = measure(
                    spec,
                    pool,
                    PromptRenderer(load_tokenizer(spec), spec.prompt),
                    prepared,
                    num_problems=policy["num_problems"],
                    num_samples=policy["num_samples"],
                    seed=PROBE_SEED,
                    cancelled=asked.cancelled,
                )
        except ProbeError as error:
            if isinstance(error.__cause__, MeasuringCancelledError):
                said = "the call was cancelled while the policy was measured"
                raise PrepareError("cancelled", said, None, []) from None
            raise PrepareError(
                "policy_failed", f"policy: {policy['model']!r}: {error}", "policy", []
            ) from None
    # Preparing sets rows apart to validate and keeps the numbers of their lines.
    ids = {row.line: row.id for row in asked.rows}
    by_line = {int(row_id.rpartition(":")[2]): one for row_id, one in found.by_row.items()}
    outcomes = Outcomes()
    outcomes.by_row = {ids[line]: one for line, one in by_line.items()}
    return outcomes


def _prepared(folder: Path, asked: PolicySampling) -> JobSpec:
    """A job that would train the policy on the rows. Raises PrepareError in this call's fields."""
    part = {"grader": asked.grader.model_dump(mode="json")}
    body = {
        "model": asked.policy["model"],
        "training_file": "rows",
        "seed": asked.seed,
        "method": {"type": "reinforcement", "reinforcement": part},
        "num_examples": 0,
    }
    try:
        prepare(body, folder, {"training": asked.path}, asked.policy["path"], asked.cluster)
    except PrepareError as error:
        param = {"model": "policy.model", "training_file": "training_file"}.get(
            error.param or "", "policy"
        )
        said = f"policy: its rollouts cannot be prepared: {error.message}"
        raise PrepareError(error.code, said, param, error.lines) from None
    return load_spec(folder / "spec.json")
