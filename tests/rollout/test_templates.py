"""Templates fill in what a row and a sample hold, and nothing else."""

import pytest
from graders import rollout
from pydantic import BaseModel, ValidationError

from rollout.verifiers.base import InvalidVariableError, SampleParseError, sample_of
from rollout.verifiers.templates import Template, render_text

ITEM = {"a": {"b": ["x", {"c": 5}]}, "n": 1.5, "none": None, "it-em": "dash", "t": "{{ item.n }}"}
SAMPLE = sample_of(rollout('{"steps": [{"text": "one"}], "ok": true}'))


def render(template: str) -> str:
    """The template with ITEM and SAMPLE."""
    return render_text(template, ITEM, SAMPLE)


class Holder(BaseModel):
    """A model with one template."""

    text: Template


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("no variable", "no variable"),
        ("{{ item.n }}", "1.5"),
        ("<{{item.a.b[0]}}|{{ item . a . b [ 1 ] . c }}>", "<x|5>"),
        ("{{item.a.b.0}}", "x"),
        ("{{ item.a.b }}", '["x", {"c": 5}]'),
        ("{{ item.none }}", "null"),
        ("{{ item.it-em }}", "dash"),
        ("{{sample.output_json.steps[0].text}}", "one"),
        ("{{ sample.output_json.ok }}", "true"),
        ("{{ sample.choices[0].message.content }}", '{"steps": [{"text": "one"}], "ok": true}'),
        ("{{ sample.output_tools }}", "[]"),
        ("{{ item.t }}", "{{ item.n }}"),  # what was filled in is not read again
        ("{ item.n } {{", "{ item.n } {{"),
    ],
)
def test_variables_are_filled_in(template, text):
    assert render(template) == text


def test_a_sample_that_writes_a_template_gets_it_back_as_text():
    sample = sample_of(rollout("{{ item.n }}"))
    assert render_text("{{ sample.output_text }}", ITEM, sample) == "{{ item.n }}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ item }}",
        "{{ sample }}",
        "{{ items.n }}",
        "{{ item.n | upper }}",
        "{{ item.n + 1 }}",
        "{{ item.n() }}",
        "{{ }}",
        "{{ config.key }}",
        "{{ item['n'] }}",
        "{{ sample.output_txt }}",
    ],
)
def test_what_is_no_variable_is_refused_with_the_fix(template):
    with pytest.raises(ValidationError, match=r"write \{\{|choose output_text"):
        Holder(text=template)


@pytest.mark.parametrize(
    "template", ["{{ item.x }}", "{{ item.a.b[2] }}", "{{ item.n.__class__ }}", "{{ item.a.keys }}"]
)
def test_a_variable_that_the_row_lacks_is_an_error_that_names_it_and_what_there_is(template):
    with pytest.raises(InvalidVariableError, match=r"has no .*; it (has|is)") as caught:
        render(template)
    assert not isinstance(caught.value, SampleParseError)


def test_a_variable_that_the_sample_lacks_is_the_samples_fault():
    with pytest.raises(SampleParseError):
        render("{{ sample.output_json.missing }}")
    with pytest.raises(SampleParseError):
        render_text("{{ sample.output_json.x }}", {}, sample_of(rollout("no json")))


def test_output_text_is_what_all_turns_showed():
    sample = sample_of(rollout("<think>a</think>one", "<think>b</think>two"))
    assert sample["output_text"] == "one\ntwo"
    assert sample["output_json"] is None


@pytest.mark.parametrize("text", ["NaN", "[" * 100_000, '{"a": Infinity}', "```json\n{}\n```"])
def test_what_is_not_strictly_json_is_none(text):
    assert sample_of(rollout(text))["output_json"] is None
