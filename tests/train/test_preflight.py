"""A cluster too small is refused before anything starts, with the numbers and the fix."""

import json

import pytest
from conftest import JOB, MODEL

from train.data import DataError, check_disjoint, read_rows
from train.preflight import check_cluster, check_job
from train.spec import JobSpec, SpecError
from train.spec_file import load_spec, parse_spec


def job(learner: dict | None = None, rollout: dict | None = None, **changes) -> JobSpec:
    """A job with these resources."""
    raw = {
        "model": "./none",
        "data": {"train": "a", "valid": "b"},
        "grader": {"type": "answer"},
        "srl": {},
        "learner": learner or {},
        "rollout": rollout or {},
    }
    return parse_spec(raw | changes, source="job.yaml")


def complaint(spec: JobSpec, available: dict[str, float]) -> str:
    """What is said about the cluster."""
    with pytest.raises(SpecError) as caught:
        check_cluster(spec, available)
    return str(caught.value)


def test_more_workers_than_cpus_are_refused_with_field_value_and_fix():
    text = complaint(job({"num_workers": 3, "cpus_per_worker": 0.1}), {"CPU": 2.0})
    assert "learner.num_workers: is 3, but the cluster has 2 CPUs; set it to 2 or less" in text


def test_a_cluster_without_cpus_is_refused_with_the_least_that_works():
    assert "set it to 1 or less" in complaint(job(), {})


def test_more_cpus_than_the_cluster_has_are_refused_with_the_sum_and_its_parts():
    spec = job(
        {"num_workers": 2, "cpus_per_worker": 1.0},
        {"num_engines": 1, "cpus_per_engine": 1.5, "num_verifiers": 5, "cpus_per_verifier": 0.25},
    )
    text = complaint(spec, {"CPU": 4.0})
    assert "asks for 4.75 CPUs" in text
    assert "learner.num_workers 2, rollout.num_engines 1, rollout.num_verifiers 5" in text
    assert "the cluster has 4;" in text
    assert "lower one of these or add nodes" in text


def test_gpus_of_learner_and_engines_are_added_up():
    spec = job({"num_workers": 2, "gpus_per_worker": 1}, {"num_engines": 3, "gpus_per_engine": 1})
    text = complaint(spec, {"CPU": 64.0, "GPU": 4.0})
    assert "asks for 5 GPUs" in text
    assert "the cluster has 4;" in text
    check_cluster(spec, {"CPU": 64.0, "GPU": 5.0})
    assert "the cluster has 0;" in complaint(spec, {"CPU": 64.0})


def test_a_job_that_fits_exactly_passes_whatever_the_rounding_and_needs_no_gpu():
    spec = job(
        {"cpus_per_worker": 0.1},
        {"cpus_per_engine": 0.3, "num_verifiers": 1, "cpus_per_verifier": 0.8},
    )
    assert 0.1 + 0.3 + 0.8 > 1.2  # in floating point
    check_cluster(spec, {"CPU": 1.2})
    assert "asks for 1.2 CPUs" in complaint(spec, {"CPU": 1.1})


def test_a_job_that_validates_on_its_training_file_is_refused(tmp_path):
    path = tmp_path / "train.jsonl"
    row = {
        "messages": [{"role": "user", "content": "2 + 2?"}],
        "reference_answer": "4",
        "expert_steps": ["4"],
    }
    path.write_text(json.dumps(row) + "\n")
    spec = job(data={"train": str(path), "valid": str(path)})
    with pytest.raises(DataError, match=r"train\.jsonl"):
        check_job(spec)


def expert_job(folder, row: dict, *overrides: str) -> JobSpec:
    """The quickstart's job with `row` alone to train on."""
    path = folder / "train.jsonl"
    user = {"role": "user", "content": "1234:1sr,2li"}
    path.write_text(json.dumps({"messages": [user], "reference_answer": "1234"} | row) + "\n")
    return load_spec(JOB, [f"data.train={path}", *overrides])


def test_sft_with_thoughts_needs_them_and_says_so_before_anything_starts(tmp_path):
    spec = expert_job(tmp_path, {"expert_steps": ["1sr=1"]}, "sft={with_thoughts: true}")
    with pytest.raises(DataError, match=r"line 1: has no `expert_thoughts`.*: false"):
        check_job(spec)


def test_a_titles_length_counts_where_it_enters_the_prompt(tmp_path):
    titled = "srl.title_context=true"
    check_job(expert_job(tmp_path, {"expert_steps": ["1sr=1", "2: li=1234"]}, titled))
    row = {"expert_steps": ["1sr=1", "2" * 240 + ": li=1"]}
    with pytest.raises(DataError, match=r"train.jsonl, line 1: its prompt has"):
        check_job(expert_job(tmp_path, row, titled))


def test_an_expert_step_that_no_generation_can_hold_is_refused_with_its_length(tmp_path):
    row = {"expert_steps": ["1sr=1", "2" * 40]}
    with pytest.raises(DataError, match=r"expert step 2 takes 43 tokens.*max_tokens is 24"):
        check_job(expert_job(tmp_path, row))


def test_a_grader_that_calls_every_expert_wrong_is_refused_with_what_it_read(tmp_path):
    """Each step ends with the state behind `=`: without a pattern the whole step is the answer."""
    row = {"expert_steps": ["1sr=1", "2li=1234"]}
    check_job(expert_job(tmp_path, row))
    said = r"line 1: by the grader no expert solution is right, of 1 .* ends with '2li=1234', its"
    with pytest.raises(DataError, match=said):
        check_job(expert_job(tmp_path, row, "grader.pattern=null"))
    check_job(expert_job(tmp_path, row, "grader.pattern=null", "srl=null"))  # nobody learns them
    titled = {"expert_steps": ["One: 1", "Answer: 1234"]}
    with pytest.raises(DataError, match="no expert solution is right"):
        check_job(expert_job(tmp_path, titled, "grader.pattern=null"))
    # With titles in the prompt the policy writes `1234` alone.
    check_job(expert_job(tmp_path, titled, "grader.pattern=null", "srl.title_context=true"))


def test_a_model_folder_without_weights_is_refused_by_name(tmp_path):
    for file in MODEL.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(SpecError, match=r"holds no \*\.safetensors"):
        check_job(expert_job(tmp_path, {"expert_steps": ["1sr=1"]}, f"model={tmp_path}"))


def test_conversations_with_the_same_last_message_are_not_the_same_problem(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path, system in ((first, "one"), (second, "two")):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "Go."}]
        path.write_text(json.dumps({"messages": messages}))
    check_disjoint({path: read_rows(path) for path in (first, second)})
    second.write_bytes(first.read_bytes())
    with pytest.raises(DataError, match="the same problem stands in"):
        check_disjoint({path: read_rows(path) for path in (first, second)})


def code_rows(folder, output: str):
    """A data file of two rows with unit tests; the second row's reference prints `output`."""
    path = folder / f"{output}.jsonl"
    rows = [
        {
            "messages": [{"role": "user", "content": f"{output} {i}"}],
            "unit_tests": [{"input": "", "output": "4"}],
            "reference_solution": f"print({'4' if i == 0 else output})",
        }
        for i in range(2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_whose_reference_fails_its_own_unit_tests_is_refused_with_file_and_line(tmp_path):
    good, bad = code_rows(tmp_path, "4"), code_rows(tmp_path, "5")
    overrides = ["grader={type: code_tests}", "srl=null", "data.heldout=null"]
    spec = load_spec(JOB, [*overrides, f"data.train={good}", f"data.valid={bad}"])
    with pytest.raises(DataError, match=r"5\.jsonl, row 5:2: its 'reference_solution' fails"):
        check_job(spec)


def templated(folder, grader: str) -> JobSpec:
    return expert_job(folder, {"expert_steps": ["1sr=1"]}, f"grader={grader}")


EXACT = "{type: string_check, name: e, operation: eq, input: '{{sample.output_text}}', reference: "


def test_a_template_that_reads_what_a_row_lacks_is_refused_with_line_and_fields(tmp_path):
    check_job(templated(tmp_path, EXACT + "'{{item.reference_answer}}'}"))
    wrong = EXACT + "'{{item.answr}}'}"
    message = r"\.jsonl, line 1: grader 'string_check' reads .*no 'answr'; it has reference_ans"
    with pytest.raises(DataError, match=message):
        check_job(templated(tmp_path, wrong))
    with pytest.raises(DataError, match=message):  # also inside another grader
        check_job(templated(tmp_path, f"{{type: multi, graders: [{wrong}], calculate_output: e}}"))


def test_a_folder_that_does_not_exist_is_said_to_be_missing(tmp_path):
    row = {"expert_steps": ["1sr=1"]}
    with pytest.raises(SpecError, match=r"there is no folder .*nowhere; correct the path"):
        check_job(expert_job(tmp_path, row, f"model={tmp_path / 'nowhere'}"))
