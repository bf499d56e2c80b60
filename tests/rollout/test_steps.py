"""One think block, then a step that is not empty."""

import time

import pytest

from rollout.steps import parse_step, visible_text


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("<think>a</think>b", "b"),
        ("<think></think>b", "b"),
        (" \n<think>two\nlines</think>\n first\nsecond \n", "first\nsecond"),
    ],
)
def test_a_right_form_yields_the_step_without_surrounding_white_space(text, step):
    assert parse_step(text) == step


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "<think>a",
        "a</think>b",
        "<think>a</think>",
        "<think>a</think> \n ",
        "so <think>a</think>b",
        "<think>a</think>b<think>c</think>d",
        "<think>a<think>b</think>c",
        "<think>a</think>b</think>c",
        "<think>a</think>b<think>",
        "<THINK>a</THINK>b",
    ],
)
def test_a_wrong_form_yields_no_step(text):
    assert parse_step(text) is None


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("plain", "plain"),
        ("<think>a</think> b ", "b"),
        ("a<think>b\nc</think>d<think>e</think>f", "adf"),
        ("a <think>never closed", "a"),
        ("<think>a</think>b<think>c", "b"),
        ("<think>only", ""),
    ],
)
def test_visible_text_leaves_out_closed_blocks_and_whatever_an_open_block_hides(text, visible):
    assert visible_text(text) == visible


def test_many_unclosed_thinks_are_read_in_linear_time():
    started_s = time.monotonic()
    assert visible_text("x" + "<think>" * 100_000) == "x"
    assert time.monotonic() - started_s < 1
    assert visible_text("a</think>b<think>c<think>d</think>e") == "a</think>be"
