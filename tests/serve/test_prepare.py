"""From a create call and its files to a job that can be run."""

import json

import pytest
from conftest import MODEL

from serve.prepare_world import (
    ANSWER,
    BASE,
    CLUSTER,
    MIXED,
    RFT,
    row,
    rows,
    run,
    write,
)
from serve_app.prepare import Prepared, prepare
from train.spec_file import load_spec


def stages(prepared: Prepared) -> list[str]:
    """The stages that will run."""
    return [name for name in ("sft", "srl", "rlvr") if prepared.spec[name]]


@pytest.mark.parametrize(
    ("training", "request_", "expected"),
    [
        (MIXED, RFT, ["srl", "rlvr"]),
        (MIXED, {}, ["srl", "rlvr"]),
        (MIXED, RFT | {"srl": None}, ["rlvr"]),
        (MIXED, RFT | {"rlvr": None}, ["srl"]),
        (MIXED, RFT | {"sft": {}}, ["sft", "srl", "rlvr"]),
        (MIXED, RFT | {"sft": {}, "srl": None, "rlvr": None}, ["sft"]),
        (MIXED, {"method": {"type": "srl"}}, ["srl"]),
        (rows(1000, 40), RFT, ["rlvr"]),
        (rows(1000, 40), RFT | {"srl": {}}, ["srl", "rlvr"]),
        (rows(1000, 40), RFT | {"num_examples": 7}, ["srl", "rlvr"]),
        (rows(1000, 40), {}, ["srl", "rlvr"]),
        (rows(1000, 40), {"num_examples": 0}, ["rlvr"]),
        (rows(1000, 40, answer=False), {}, ["srl", "rlvr"]),
    ],
)
def test_rows_and_request_decide_which_stages_run(tmp_path, training, request_, expected):
    prepared = run(tmp_path, training, **request_)
    assert stages(prepared) == expected
    load_spec(tmp_path / "job" / "spec.json")


def test_a_problems_only_file_gets_48_solved_rows_and_a_grader_that_accepts_them(tmp_path):
    prepared = run(tmp_path, rows(1000, 100, answer=False))
    spec = load_spec(tmp_path / "job" / "spec.json")
    written = [json.loads(x) for x in spec.data.train.read_text().splitlines() if x.strip()]
    assert sum("expert_steps" in each for each in written) == 48
    assert all("reference_answer" in each for each in written)
    assert prepared.resolved["num_examples"] == 48
    assert getattr(spec.grader, "pattern", None) == r"=\s*([^=]+?)\s*$"
    assert any("48 verified solutions" in note for note in prepared.notes)
    assert any(note.startswith("grader inferred from the solver's") for note in prepared.notes)


def test_the_validation_split_is_seeded_never_leaks_and_keeps_line_numbers(tmp_path):
    training = [*rows(1000, 200), *rows(1000, 5)]  # five problems stand twice
    first = run(tmp_path, training, **RFT)
    folder = tmp_path / "job" / "data"
    lines = [(folder / name).read_text().splitlines() for name in ("train.jsonl", "valid.jsonl")]
    problems = [[x and json.loads(x)["messages"][0]["content"] for x in file] for file in lines]
    train, valid = ({p for p in file if p} for file in problems)
    assert train & valid == set()
    assert (len(train) + len(valid), len(valid)) == (200, 32)
    for file in problems:
        for number, text in enumerate(file):
            assert not text or text == training[number]["messages"][0]["content"]
    assert first.resolved["method"]["reinforcement"]["hyperparameters"]["eval_samples"] == sum(
        map(bool, problems[1])
    )
    run(tmp_path, training, **RFT)
    assert (folder / "valid.jsonl").read_text().splitlines() == lines[1]
    run(tmp_path, training, **RFT, seed=2)
    assert (folder / "valid.jsonl").read_text().splitlines() != lines[1]


def test_what_the_client_sets_goes_before_what_is_automatic(tmp_path):
    hyper = {"batch_size": 4, "n_epochs": 2, "learning_rate_multiplier": 2.0, "eval_samples": 10}
    hyper |= {"compute_multiplier": 0.5, "eval_interval": 3}
    method = {"type": "reinforcement", "reinforcement": {"grader": ANSWER}}
    method["reinforcement"]["hyperparameters"] = hyper  # type: ignore[index]
    prepared = run(
        tmp_path,
        MIXED,
        method=method,
        srl={"max_steps": 2, "learning_rate": 1e-5, "std_threshold": 0.1, "max_tokens": 32},
        rlvr={"group_size": 6, "loss": "dr_grpo", "protocol": "stepwise"},
        sampling={"max_turns": 5},
        evaluation={"pass_k": 2},
        prompt={"step_end": "\n\n"},
        resources={"num_threads": 1, "max_num_seqs": 17},
    )
    spec = prepared.spec
    srl, rlvr = spec["srl"], spec["rlvr"]
    assert (srl["max_steps"], srl["groups_per_step"], srl["std_threshold"]) == (2, 4, 0.1)
    assert (srl["learning_rate"], srl["max_tokens"], srl["group_size"]) == (2e-5, 32, 4)
    assert (rlvr["group_size"], rlvr["groups_per_step"], rlvr["eval_interval"]) == (3, 4, 3)
    assert rlvr["learning_rate"] == pytest.approx(6e-4)
    assert rlvr["max_steps"] == 2 * -(-70 // 4)  # two epochs of the 70 rows that train
    assert rlvr["dr_grpo_length"] == spec["sampling"]["max_tokens"]
    assert spec["sampling"]["max_turns"] == 5
    assert spec["evaluation"]["pass_k"] == 2
    assert spec["prompt"]["step_end"] == "\n\n"
    assert (spec["learner"]["num_threads"], spec["rollout"]["num_threads"]) == (1, 1)
    assert spec["rollout"]["max_num_seqs"] == 17
    shown = prepared.resolved["method"]["reinforcement"]["hyperparameters"]
    assert shown == hyper | {"reasoning_effort": "default"}
    assert prepared.resolved["resources"]["max_num_seqs"] == 17
    assert prepared.resolved["rlvr"]["max_staleness"] == 0


def test_planned_work_is_the_steps_of_all_stages_and_the_policies_evaluated(tmp_path):
    wanted = RFT | {"srl": {"max_steps": 3}, "rlvr": {"max_steps": 5}}
    assert run(tmp_path, MIXED, **wanted).steps_planned == 8
    assert run(tmp_path, MIXED, **wanted, heldout=rows(5000, 10)).steps_planned == 8 + 3


def test_the_tiny_models_system_prompt_is_left_out_with_a_note(tmp_path):
    prepared = run(tmp_path, MIXED, **RFT)
    assert prepared.spec["prompt"]["system"] is None
    assert any("no system prompt, because it takes" in note for note in prepared.notes)


def test_a_step_that_holds_a_newline_gets_a_longer_step_end(tmp_path):
    lines = [row(n) for n in range(1000, 1040)]
    for line in lines:
        line["expert_steps"] = ["a\nb", f"c={line['reference_answer']}"]
    assert run(tmp_path, lines, **RFT).spec["prompt"]["step_end"] == "\n\n"


def test_more_examples_become_a_second_srl_stage_with_the_jobs_teacher_and_documents(tmp_path):
    teacher = {"base_url": "http://localhost:1/v1", "model": "m"}
    text = tmp_path / "rules.txt"
    text.write_text("Rules.")
    request = RFT | {"teacher": teacher, "num_examples": 0, "documents": ["file-2"]}
    request |= {"more_examples": {"num_examples": 7}, "heldout_file": "file-3"}
    files = {"training": write(tmp_path / "t.jsonl", MIXED)}
    files["heldout"] = write(tmp_path / "h.jsonl", rows(5000, 4))
    folder = tmp_path / "job"
    made = prepare(BASE | request, folder, files, str(MODEL), CLUSTER, documents=[text])
    text.unlink()  # the copy that was fetched for preparing
    spec = load_spec(folder / "spec.json")
    more = spec.more_examples
    assert more is not None
    assert (more.num_examples, more.mode, more.teacher and more.teacher.model) == (
        7,
        "weakness",
        "m",
    )
    assert [path.read_text() for path in more.documents] == ["Rules."]
    srl, again, rlvr = spec.reinforcement_stages.values()
    assert again.max_steps == srl.max_steps
    assert made.steps_planned == 2 * srl.max_steps + rlvr.max_steps + 4
    assert made.resolved["more_examples"] == {
        "num_examples": 7, "mode": "weakness", "num_problems": 64, "num_samples": 4,
        "max_steps": srl.max_steps,
    }  # fmt: skip
