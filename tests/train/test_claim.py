"""One job per folder, one process at a time, and the same job means the same content."""

import json
import subprocess
import sys

import pytest
from conftest import JOB, MODEL, ROOT

from train.claim import LOCK_FILE, claim, exclusive
from train.spec import JobSpec, SpecError
from train.spec_file import load_spec

HOLDER = """
import sys, time
from pathlib import Path
from train.claim import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def job(folder, *overrides: str) -> JobSpec:
    """The quickstart's job on training rows that lie in `folder`."""
    rows = folder / "train.jsonl"
    if not rows.exists():
        rows.write_bytes((JOB.parent / "train.jsonl").read_bytes())
    return load_spec(JOB, [f"data.train={rows}", *overrides])


def test_the_same_job_may_return_to_its_folder(tmp_path):
    claim(job(tmp_path), tmp_path)
    claim(job(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("seed=7", "spec.seed"),
        ("srl.max_steps=7", "spec.srl.max_steps"),
        ("rlvr=null", "spec.rlvr"),
    ],
)
def test_another_job_is_refused_by_the_field_that_differs(tmp_path, override, field):
    claim(job(tmp_path), tmp_path)
    with pytest.raises(SpecError, match=rf"differs in {field}: choose another --out"):
        claim(job(tmp_path, override), tmp_path)


def test_the_same_job_file_on_changed_rows_is_another_job(tmp_path):
    spec = job(tmp_path)
    claim(spec, tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(SpecError, match=r"differs in sha256\.data\.train"):
        claim(spec, tmp_path)


def test_the_models_weights_belong_to_the_jobs_identity(tmp_path):
    claim(job(tmp_path), tmp_path)
    found = json.loads((tmp_path / "job.json").read_text())
    assert {"model/config.json", "model/model.safetensors"} <= found["sha256"].keys()


def test_a_field_that_only_the_old_job_had_counts_as_a_difference(tmp_path):
    claim(job(tmp_path), tmp_path)
    found = json.loads((tmp_path / "job.json").read_text())
    found["spec"]["forgotten"] = 1
    (tmp_path / "job.json").write_text(json.dumps(found))
    with pytest.raises(SpecError, match=r"differs in spec\.forgotten"):
        claim(job(tmp_path), tmp_path)


def test_a_second_process_in_the_same_folder_is_refused_until_the_first_has_died(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(SpecError, match="another process is running a job"),
            exclusive(tmp_path),
        ):
            pass
        holder.kill()
    with exclusive(tmp_path):
        assert (tmp_path / LOCK_FILE).exists()


def test_the_same_content_in_another_place_is_the_same_job(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model = tmp_path / "b" / "model"
    model.mkdir()
    for file in MODEL.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    claim(job(tmp_path / "a"), tmp_path)
    claim(job(tmp_path / "b", f"model={model}"), tmp_path)


def test_deadlines_and_resources_may_change_between_runs_of_a_job(tmp_path):
    claim(job(tmp_path), tmp_path)
    changed = ("rollout.generate_deadline_s=9", "learner.max_failures=9", "rollout.num_verifiers=1")
    claim(job(tmp_path, *changed), tmp_path)


def test_a_changed_chat_template_is_another_model(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for file in MODEL.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    claim(job(tmp_path, f"model={model}"), tmp_path)
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(SpecError, match=r"sha256\.model/chat_template\.jinja"):
        claim(job(tmp_path, f"model={model}"), tmp_path)
