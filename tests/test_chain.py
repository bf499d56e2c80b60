"""Problems only and `model: "auto"`, in one call to a real service, to the end."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(5400)  # half an hour on two cores of their own
def test_bare_problems_become_a_model_that_is_surely_better_than_its_base(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "chain" / "chain.py"), "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    sent = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert {name for row in sent for name in row} == {"messages"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["model"] == "ferrata-tiny", "the smaller rival knows next to nothing"
    for said in ("model selection: rival", "grader inferred", "verified solutions"):
        assert said in done.stdout
    by_policy = {row["name"]: row for row in report["heldout"]}
    assert list(by_policy) == ["base", "srl", "srl_rlvr"]
    base, final = by_policy["base"], by_policy["srl_rlvr"]
    assert final["ci95"][0] > base["ci95"][1], (base, final)
