"""An expert solution of N steps becomes one-step problems."""

import json
from pathlib import Path

import pytest
from conftest import JOB

from rollout.verifiers.step_similarity import StepSimilarityVerifier
from train.data import Row, read_rows
from train.prompts import PromptRenderer, load_tokenizer
from train.spec import SRLSpec
from train.spec_file import load_spec
from train.srl import srl_problems, srl_verifier


@pytest.fixture(scope="module")
def renderer() -> PromptRenderer:
    spec = load_spec(JOB, ['prompt.step_end="|"'])
    return PromptRenderer(load_tokenizer(spec), spec.prompt)


def row(folder: Path, expert_steps: object) -> Row:
    content = {"messages": [{"role": "user", "content": "9:s"}], "expert_steps": expert_steps}
    (folder / "train.jsonl").write_text(json.dumps(content))
    (read,) = read_rows(folder / "train.jsonl")
    return read


TEXT = "1. **Swap**: 1:s=9\n2. just 9: done"


def test_each_step_is_a_problem_whose_context_holds_the_earlier_steps(renderer, tmp_path):
    problems = srl_problems([row(tmp_path, ["a", "b"])], renderer, SRLSpec())
    assert [p.id for p in problems] == ["train:1/step-1", "train:1/step-2"]
    assert [p.expert_step for p in problems] == ["a", "b"]
    assert [p.expert_step_is_last for p in problems] == [False, True]
    assert problems[1].prompt == f"{problems[0].prompt}a|"


def test_the_last_step_may_be_left_out_as_the_paper_does(renderer, tmp_path):
    problems = srl_problems([row(tmp_path, ["a", "b"])], renderer, SRLSpec(targets="all_but_last"))
    assert [p.expert_step for p in problems] == ["a"]


def test_titles_of_one_text_enter_the_prompt_and_leave_the_target(renderer, tmp_path):
    first, second = srl_problems([row(tmp_path, TEXT)], renderer, SRLSpec(title_context=True))
    plain = srl_problems([row(tmp_path, TEXT)], renderer, SRLSpec())
    assert first.prompt == f"{plain[0].prompt}Swap: "
    assert first.expert_step == "1:s=9"
    assert second.prompt == plain[1].prompt, "a step without a title stands as it is"
    assert second.expert_step == "just 9: done"
    assert second.prompt.endswith("Swap: 1:s=9|")
    assert [p.expert_step for p in plain] == ["Swap: 1:s=9", "just 9: done"]


@pytest.mark.parametrize("autojunk", [True, False])
def test_srls_verifier_has_the_stages_setting(autojunk):
    assert srl_verifier(SRLSpec(autojunk=autojunk)) == StepSimilarityVerifier(autojunk=autojunk)
