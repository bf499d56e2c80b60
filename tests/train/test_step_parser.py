"""Numbered, titled steps in one text: what is read, and what is refused because it is unclear.

The texts are written by us in the form of DeepSeek R1's solutions in s1K-1.1, the data of
arXiv 2510.25992.
"""

import pytest

from train.step_parser import ParsedStep, parse_steps

SOLUTION = """\
To find how many tiles the border needs, we count the tiles of each side and correct the corners.

1. **Set up the sides**: The yard is 12 by 9, and each tile is 1 by 1.
   - Two sides hold 12 tiles each.
   - Two sides hold 9 tiles each.

2. **Add them up**:
   \\[
   2 \\cdot 12 + 2 \\cdot 9 = 42
   \\]

3. **Correct the corners:** Each of the four corners was counted twice:
   1. two corners above,
   2. two corners below.

   So \\(42 - 4 = 38\\).

Thus the border needs \\(\\boxed{38}\\) tiles.
"""


def titles_and_texts(text: str) -> list[tuple[str | None, str]]:
    return [(step.title, step.text) for step in parse_steps(text)]


def test_a_solution_of_the_papers_form_is_read_with_its_titles_and_its_answer():
    first, second, third = parse_steps(SOLUTION)
    assert first.title == "Set up the sides"
    assert first.text.split("\n")[0] == "The yard is 12 by 9, and each tile is 1 by 1."
    assert first.text.endswith("- Two sides hold 9 tiles each.")
    assert second == ParsedStep("Add them up", "\\[\n   2 \\cdot 12 + 2 \\cdot 9 = 42\n   \\]")
    assert third.title == "Correct the corners"
    assert "   2. two corners below." in third.text
    assert third.text.endswith("Thus the border needs \\(\\boxed{38}\\) tiles.")
    assert third.full.startswith("Correct the corners: Each of the four")
    assert not any("\n\n" in step.text for step in (first, second, third))


@pytest.mark.parametrize(
    "text",
    [
        "1. **Set up**: a\n2. **Solve**: b",
        "1. **Set up:** a\n\n2. **Solve:** b\n",
        "1. **Set up**\n   a\n2. **Solve**\n   b",
        "1) **Set up**: a\n2) **Solve**: b",
        "### 1. Set up\na\n### 2. Solve\nb",
        "### Step 1: Set up\n\na\n\n### Step 2: Solve\n\nb",
        "## Step 1 - Set up\na\n## Step 2 \u2013 Solve\nb",
        "### 1. **Set up**\na\n### 2. **Solve**\nb",
        "**1. Set up**\na\n**2. Solve**\nb",
        "**Step 1: Set up**\na\n\n**Step 2: Solve**\nb",
        "Step 1: **Set up**: a\nStep 2: **Solve**: b",
        "An introduction.\n\n1. **Set up**: a\n2. **Solve**: b",
    ],
)
def test_steps_may_be_marked_in_any_of_the_usual_styles(text):
    assert [(title, step.strip()) for title, step in titles_and_texts(text)] == [
        ("Set up", "a"),
        ("Solve", "b"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Step 1: a: 1\nStep 2: b",
        "Step 1\na: 1\nStep 2\nb",
        "step 1. a: 1\nstep 2. b",
        "1. a: 1\n2. b",
        "**1.** a: 1\n**2.** b",
        "**Step 1:** a: 1\n**Step 2:** b",
    ],
)
def test_a_step_without_a_title_has_none_even_if_it_holds_a_colon(text):
    assert titles_and_texts(text) == [(None, "a: 1"), (None, "b")]


def test_bold_words_that_go_on_as_a_sentence_are_no_title():
    assert titles_and_texts("1. **Note** that x: 3\n2. b")[0] == (None, "**Note** that x: 3")


TRACE = """\
Okay, so there are two dice. Let me think. The sum must be 3.14 times... no, the sum must be 9.

Step 1: List the pairs with sum 9: (3,6), (4,5), (5,4), (6,3).
Wait, is (6,3) the same as (3,6)? The dice differ, so no.

Step 2: There are 36 pairs in all.
2 dice, 6 sides each. So 4/36.

Step 3: That is 1/9. Let me check: 1. yes, 4*9 = 36.
"""


def test_a_reasoning_trace_with_numbered_steps_is_read_between_its_musings():
    steps = parse_steps(TRACE)
    assert [step.text.split("\n")[0][:8] for step in steps] == ["List the", "There ar", "That is "]
    assert steps[0].text.endswith("The dice differ, so no.")
    assert steps[1].text.endswith("So 4/36.")


def test_a_reasoning_trace_without_numbers_is_refused_with_the_form_to_write():
    with pytest.raises(ValueError, match="has no numbered steps") as caught:
        parse_steps("Okay, so first I add. Then I get 3.\n\nWait, no. Hmm.")
    assert "it begins 'Okay, so first" in str(caught.value)
    assert "'1. **Title**: text', or write a list of strings" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("1. a\n2. b\n\n4. d", 4, "step 4 follows step 2"),
        ("1. a\n2. b\n2. c", 3, "step 2 follows step 2"),
        ("1. a\n1. x\n2. y\n2. b", 2, "step 1 follows step 1"),
        ("Intro\n### 1. A\na\n### 3. C\nc", 4, "step 3 follows step 1"),
        ("1. **A**: a\nStep 2: b", 2, "'b' may be step 2, but is not written like step 1"),
        ("**1. A**\na\n2. b", 3, "'b' may be step 2, but is not written like step 1"),
        ("1. p\n2. q\n**1. A**\na\n**2. B**\nb", 1, "'p' may be step 1, but is not written"),
        ("### 1. A\n### 2. B\nb", 1, "step 1 has a title and no text"),
        ("1. a\n2. **B**:", 2, "step 2 has a title and no text"),
        ("1. a\n2.", 2, "step 2 has a title and no text"),
    ],
)
def test_a_text_that_can_be_read_in_two_ways_is_refused_with_its_line(text, line, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse_steps(text)
    assert str(caught.value).startswith(f"line {line} of its text: ")


def test_lists_of_another_style_inside_a_step_belong_to_it():
    text = "### Step 1: A\n1. p\n2. q\n3. r\n### Step 2: B\n1. s\n2. t"
    assert titles_and_texts(text) == [("A", "1. p\n2. q\n3. r"), ("B", "1. s\n2. t")]


def test_numbers_that_are_no_marks_begin_no_step():
    text = "1. **A**: a\n3.14 is near\n2 apples\n3: 4 is a ratio\n2. **B**: b"
    assert titles_and_texts(text) == [
        ("A", "a\n3.14 is near\n2 apples\n3: 4 is a ratio"),
        ("B", "b"),
    ]


def test_a_list_in_a_code_block_is_code():
    text = "```\n1. x\n```\n1. a\n```\n2. y\n```\n2. b"
    assert titles_and_texts(text) == [(None, "a\n```\n2. y\n```"), (None, "b")]
