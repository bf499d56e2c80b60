"""A specification is complete, frozen, and refused with file, field, value and fix."""

import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import JOB, ROOT
from pydantic import ValidationError

from rollout.verifiers.registry import grader_types
from train.spec import SpecError, SRLSpec
from train.spec_file import load_spec, parse_spec, spec_to_json


def raw_job(**changes) -> dict:
    """A small right job, with changes."""
    job = {
        "model": "org/some-model",
        "data": {"train": "train.jsonl", "valid": "valid.jsonl"},
        "grader": {"type": "answer"},
        "srl": {"max_steps": 3},
    }
    return job | changes


def complaint(**changes) -> str:
    """What is said about a job with these changes."""
    with pytest.raises(SpecError) as caught:
        parse_spec(raw_job(**changes), source="job.yaml")
    return str(caught.value)


def written(folder: Path, **changes) -> Path:
    """A job's file."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(raw_job(**changes)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"srl": {"group_sise": 4}},
            "job.yaml: srl.group_sise: unknown field; did you mean 'group_size'?",
        ),
        ({"modle": "x"}, "job.yaml: modle: unknown field; did you mean 'model'?"),
        (
            {"grader": {"type": "answer", "patern": "(a)"}},
            "job.yaml: grader.patern: unknown field; did you mean 'pattern'?",
        ),
        (
            {"grader": {"type": "anwser"}},
            "job.yaml: grader.type: there is no grader 'anwser'; did you mean 'answer'? choose "
            + ", ".join(grader_types()),
        ),
        (
            {"srl": {"advantage": "ppo"}},
            "job.yaml: srl.advantage: is 'ppo'; choose 'grpo', 'dr_grpo' or 'rloo'",
        ),
        (
            {"srl": {"loss": "ppo"}},
            "job.yaml: srl.loss: is 'ppo'; choose "
            "'dapo', 'grpo', 'dr_grpo', 'gspo', 'cispo' or 'rloo'",
        ),
        (
            {"rlvr": {"loss": "dr_grpo"}},
            "job.yaml: rlvr: loss 'dr_grpo' divides by a constant length: give dr_grpo_length, "
            "such as the value of sampling.max_tokens",
        ),
        (
            {"rlvr": {"loss": "grpo", "dr_grpo_length": 64}},
            "job.yaml: rlvr: dr_grpo_length is 64, which loss 'grpo' does not use: "
            "remove it, or choose loss 'dr_grpo'",
        ),
        (
            {"srl": {"tis_floor": 0.5, "tis_cap": None}},
            "job.yaml: srl: tis_floor is 0.5 and tis_cap is None: give a tis_cap above "
            "tis_floor, or leave tis_floor out",
        ),
        (
            {"srl": {"tis_floor": 0.5, "tis_cap": 0.4}},
            "job.yaml: srl: tis_floor is 0.5 and tis_cap is 0.4: give a tis_cap above "
            "tis_floor, or leave tis_floor out",
        ),
        (
            {"data": {"train": "a.jsonl"}},
            "job.yaml: data.valid: is missing; add it",
        ),
        (
            {"srl": {"group_size": 1}},
            "job.yaml: srl.group_size: Input should be greater than or equal to 2 (got 1)",
        ),
    ],
)
def test_a_wrong_field_is_named_with_file_value_and_fix(changes, message):
    assert complaint(**changes) == message


def test_an_unknown_field_like_no_other_is_answered_with_the_known_ones():
    text = complaint(data={"train": "a", "valid": "b", "zzzz": 1})
    assert text == "job.yaml: data.zzzz: unknown field; known fields: train, valid, heldout"


@pytest.mark.parametrize("pattern", ["(", r"\d+", r"(a)(b)"])
def test_a_bad_pattern_of_the_grader_is_named_with_field_and_value(pattern):
    text = complaint(grader={"type": "answer", "pattern": pattern})
    assert text.startswith(f"job.yaml: grader.pattern: {pattern!r} ")
    assert "not a regular expression" in text or "put exactly one pair of parentheses" in text


def test_every_wrong_field_has_a_line_of_its_own():
    lines = complaint(seed=-1, srl={"max_steps": 0, "warmup": 1}).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("job.yaml: ") for line in lines)
    assert {line.split(": ")[1] for line in lines} == {"seed", "srl.max_steps", "srl.warmup"}


def test_a_job_without_a_stage_or_a_grader_is_refused_with_the_fix():
    assert "give at least one of `sft`, `srl`, `rlvr`" in complaint(srl=None)
    assert "give `grader: {type: answer}`" in complaint(grader=None)


def test_a_generation_that_fills_the_whole_context_is_refused_with_both_values():
    text = complaint(sampling={"max_tokens": 256}, rollout={"max_model_len": 256})
    assert "sampling.max_tokens is 256" in text
    assert "rollout.max_model_len 256" in text
    assert "lower the former" in text
    parse_spec(
        raw_job(sampling={"max_tokens": 255}, rollout={"max_model_len": 256}), source="job.yaml"
    )


def test_defaults_of_the_stages_are_those_of_their_kind():
    spec = parse_spec(raw_job(srl={}, rlvr={}), source="job.yaml")
    assert (spec.srl.learning_rate, spec.srl.std_threshold) == (5e-7, 0.02)
    assert (spec.rlvr.learning_rate, spec.rlvr.std_threshold) == (1e-6, 0.0)
    assert spec.sft is None


def test_gspo_clips_closer_unless_told_otherwise():
    def clips(**stage) -> tuple[float, float]:
        spec = parse_spec(raw_job(srl=stage), source="job.yaml")
        return spec.srl.clip_low, spec.srl.clip_high

    assert clips() == clips(loss="grpo") == (0.2, 0.28)
    assert clips(loss="gspo") == (3e-4, 4e-4)
    assert clips(loss="gspo", clip_high=0.01) == (3e-4, 0.01)


def test_a_specification_cannot_be_changed():
    spec = parse_spec(raw_job(), source="job.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        spec.srl.max_steps = 3


def test_a_specification_survives_json_with_every_default_resolved():
    spec = parse_spec(raw_job(), source="job.yaml")
    values = spec_to_json(spec)
    assert values["srl"]["group_size"] == 8
    assert parse_spec(values, source="job.json") == spec


def test_relative_paths_start_at_the_specifications_folder_and_hub_names_stay(tmp_path):
    spec = load_spec(written(tmp_path))
    assert spec.data.train == tmp_path.resolve() / "train.jsonl"
    assert spec.data.heldout is None
    assert spec.model == "org/some-model"
    (tmp_path / "sub").mkdir()
    local = load_spec(written(tmp_path / "sub", model="../base"))
    assert local.model == str(tmp_path.resolve() / "base")


def test_absolute_paths_stay_as_they_are(tmp_path):
    data = {"train": "/data/a.jsonl", "valid": "/data/b.jsonl", "heldout": "/data/c.jsonl"}
    spec = load_spec(written(tmp_path, data=data, model="/models/m"))
    assert spec.data.model_dump() == {k: Path(v) for k, v in data.items()}
    assert spec.model == "/models/m"


def test_the_quickstarts_job_is_right():
    spec = load_spec(JOB)
    assert spec.model == str(ROOT / "models" / "ferrata-tiny")
    assert spec.data.train == ROOT / "examples" / "quickstart" / "train.jsonl"
    assert spec.prompt.system is None


def test_overrides_replace_and_add_fields_and_read_their_values_as_yaml(tmp_path):
    spec = load_spec(
        written(tmp_path),
        ["srl.max_steps=7", "srl.learning_rate=1e-4", "rlvr.tis_cap=null", "prompt.system=a=b"],
    )
    assert spec.srl.max_steps == 7
    assert spec.srl.learning_rate == 1e-4
    assert spec.rlvr.tis_cap is None
    assert spec.prompt.system == "a=b"


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("srl.max_steps", "write it as key=value"),
        ("model.name=x", "'model' is not a group of fields"),
        ("srl.max_stops=3", "did you mean 'max_steps'?"),
        ("srl.max_steps=[1", "srl.max_steps"),  # no YAML
    ],
)
def test_a_wrong_override_is_refused_with_the_fix(tmp_path, override, fix):
    with pytest.raises(SpecError) as caught:
        load_spec(written(tmp_path), [override])
    assert override.partition("=")[0] in str(caught.value)
    assert fix in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "overrides", "told"),
    [
        (
            {},
            ["srl.max_step=1"],
            "{} with srl.max_step set: srl.max_step: unknown field; did you",
        ),
        (
            {},
            ["srl.learning_rate=1", "srl.learning_rate=-2"],
            "{} with srl.learning_rate set: srl.learning_rate: Input should be greater than 0 "
            "(got -2)",
        ),
        ({}, ["srl={max_step: 1}"], "{} with srl set: srl.max_step: unknown field"),
        ({}, ["srl.max_steps=3", "srl={max_steps: -1}"], "{} with srl set: srl.max_steps: "),
        ({}, ["srl={max_steps: 3}", "srl.max_steps=-1"], "{} with srl.max_steps set: srl.max_"),
        (
            {},
            ["rlvr.loss=dr_grpo", "rlvr.max_steps=3"],
            "{} with rlvr.loss, rlvr.max_steps set: rlvr: loss 'dr_grpo' divides",
        ),
        ({}, ["grader.patern=(b)"], "{} with grader.patern set: grader.patern: unknown field"),
        # These are the file's own faults.
        ({"grader": {"type": "answer", "patern": "(a)"}}, ["grader.pattern=(b)"], "{}: grader.pat"),
        ({"srl": {"seed": 3}}, ["seed=2", "srl.max_steps=2"], "{}: srl.seed: unknown field"),
        ({"srl": None, "rlvr": None}, ["seed=2"], "{}: job: "),
    ],
)
def test_a_wrong_field_is_told_with_the_overrides_that_gave_it(tmp_path, changes, overrides, told):
    path = written(tmp_path, **changes)
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    assert str(caught.value).startswith(told.format(path))


def test_a_key_given_where_its_variables_name_belongs_is_not_printed(tmp_path):
    with pytest.raises(SpecError, match=r"with grader\.secret set: ") as caught:
        load_spec(written(tmp_path), ["grader.secret=sk-hunter2"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"a: [1", "is neither YAML nor JSON"),
        (b"- a\n- b\n", "holds a list, not a mapping of fields"),
        (b"", "holds a NoneType, not a mapping of fields"),
        (b"model: \xff\xfe\n", "job.yaml"),  # not UTF-8
    ],
)
def test_a_file_that_is_no_specification_is_refused_by_name(tmp_path, content, said):
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_whole_problems_are_sampled_by_the_jobs_protocol_and_steps_always_stepwise():
    stepwise = parse_spec(
        raw_job(sampling={"max_tokens": 24, "max_turns": 8}, prompt={"step_end": "\n\n"}),
        source="job.yaml",
    )
    whole = stepwise.sampling_spec(0.5)
    assert (whole.protocol, whole.max_tokens, whole.max_turns) == ("stepwise", 24, 8)
    assert (whole.temperature, whole.step_end) == (0.5, "\n\n")
    single = parse_spec(raw_job(sampling={"protocol": "single", "max_turns": 8}), source="job.yaml")
    assert (single.sampling_spec(0.0).protocol, single.sampling_spec(0.0).max_turns) == (
        "single",
        1,
    )
    step = single.step_sampling_spec(SRLSpec(temperature=0.7))
    assert (step.protocol, step.max_turns, step.temperature) == ("stepwise", 1, 0.7)
    assert (step.max_tokens, step.step_end) == (512, "\n")


def test_a_stages_own_max_tokens_goes_before_the_jobs_and_must_leave_room_for_a_prompt():
    job = parse_spec(raw_job(srl={"max_tokens": 32}, rlvr={}), source="job.yaml")
    assert job.srl is not None
    assert job.step_sampling_spec(job.srl).max_tokens == 32
    assert job.sampling_spec(1.0, job.rlvr).max_tokens == job.sampling.max_tokens
    assert job.sampling_spec(1.0, job.srl).max_tokens == 32
    with pytest.raises(SpecError, match=r"rlvr\.max_tokens is 4096.*max_model_len 1024"):
        parse_spec(raw_job(rlvr={"max_tokens": 4096}), source="job.yaml")


def test_every_grader_on_the_graders_page_is_one_that_a_job_takes():
    page = (ROOT / "docs" / "graders.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert block is not None
    graders = list(yaml.safe_load_all(block[1]))
    assert len(graders) >= 9
    for raw in graders:
        spec = load_spec(JOB, [f"grader={json.dumps(raw)}"])
        assert getattr(spec.grader, "type", None) == raw["type"]
