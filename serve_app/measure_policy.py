"""What a model does on rows now, before examples are asked for: on engines of the cluster's own."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from serve_app.prepare import prepare
from serve_app.prepare_error import PrepareError
from train.checkpoint import write_json
from train.data import Row, read_rows
from train.experts.measure import measure
from train.experts.outcomes import Outcomes
from train.prompts import PromptRenderer, load_tokenizer
from train.selection.halving import ProbeError
from train.selection.probe import PROBE_SEED, fleet_of
from train.spec import load_spec

MEASURED = ".measured.json"  # beside a journal, which is of these shares alone


def measured_once(
    kept: Path | None,
    rows: Sequence[Row],
    path: Path,
    policy: Mapping[str, Any],
    grader: Any,
    seed: int,
    cluster: Mapping[str, float],
) -> Outcomes:
    """The policy's outcomes on `rows`, which stand in `path`; `kept` is where they are found again.

    `policy`: "path", "model", "num_problems", "num_samples". It is sampled as a job of the rows
    would sample it. Raises PrepareError.
    """
    if kept is not None and kept.exists():
        return Outcomes.from_json(json.loads(kept.read_text(encoding="utf-8")))
    found = _measured(rows, path, policy, grader, seed, cluster)
    if kept is not None:
        write_json(kept, found.as_json())
    return found


def _measured(
    rows: Sequence[Row],
    path: Path,
    policy: Mapping[str, Any],
    grader: Any,
    seed: int,
    cluster: Mapping[str, float],
) -> Outcomes:
    part = {"grader": grader.model_dump(mode="json")}
    body = {
        "model": policy["model"],
        "training_file": "rows",
        "seed": seed,
        "method": {"type": "reinforcement", "reinforcement": part},
        "num_examples": 0,
    }
    with TemporaryDirectory() as folder:
        prepare(body, Path(folder), {"training": path}, policy["path"], cluster)
        spec = load_spec(Path(folder) / "spec.json")
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
                )
        except ProbeError as error:
            raise PrepareError(
                "policy_failed", f"policy: {policy['model']!r}: {error}", "policy", []
            ) from None
    # Preparing sets rows apart to validate and keeps the numbers of their lines.
    ids = {row.line: row.id for row in rows}
    by_line = {int(row_id.rpartition(":")[2]): one for row_id, one in found.by_row.items()}
    outcomes = Outcomes()
    outcomes.by_row = {ids[line]: one for line, one in by_line.items()}
    return outcomes
