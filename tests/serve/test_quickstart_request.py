"""The quickstart is one job, whether a service or `python -m train` runs it."""

from typing import Any

import yaml
from conftest import JOB, MODEL

from serve_app.prepare import prepare
from train.spec import JobSpec

REQUEST = JOB.with_name("request.yaml")
# Where things lie, how often a job can be stopped, what fits this machine: not what it learns.
OTHERWISE = {
    "data.train", "data.valid", "data.heldout", "model", "srl.save_interval", "rlvr.save_interval",
    "rollout.kv_cache_gib", "rollout.num_verifiers",
}  # fmt: skip


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """A specification's fields by their dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    parts = (flat(inner, f"{name}.{key}".lstrip(".")) for key, inner in value.items())
    return {key: leaf for part in parts for key, leaf in part.items()}


def test_the_request_and_the_job_file_describe_the_same_learning(tmp_path):
    body = yaml.safe_load(REQUEST.read_text(encoding="utf-8"))
    files = {
        name: REQUEST.with_name(body[f"{name}_file"])
        for name in ("training", "validation", "heldout")
    }
    prepared = prepare(body, tmp_path, files, str(MODEL), {"CPU": 2.0})
    by_request = flat(JobSpec.model_validate(prepared.spec).model_dump(mode="json"))
    by_file = yaml.safe_load(JOB.read_text(encoding="utf-8"))
    by_file = flat(JobSpec.model_validate(by_file).model_dump(mode="json"))
    different = {name for name in by_request | by_file if by_request.get(name) != by_file.get(name)}
    assert different <= OTHERWISE
    assert prepared.steps_planned == 9 + 30 + 3  # and base, SRL, RLVR on held-out rows
