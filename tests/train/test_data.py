"""Rows are read, or refused with file, line, field, value and fix."""

import json
from pathlib import Path

import pytest

from train.data import DataError, check_disjoint, read_rows

USER = {"role": "user", "content": "2 + 2?"}
RIGHT = {"messages": [USER], "reference_answer": "4"}


def written(folder: Path, *rows: object, name: str = "train.jsonl") -> Path:
    """A data file; a string is a line as it stands."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_row_has_everything_its_line_holds_and_is_named_by_file_and_line(tmp_path):
    expert = {
        "messages": [{"role": "system", "content": "s"}, USER],
        "reference_answer": 4,
        "expert_steps": ["a", "b"],
        "expert_thoughts": ["x", "y"],
    }
    first, second = read_rows(written(tmp_path, RIGHT, "", expert))
    assert (first.id, second.id) == ("train:1", "train:3")
    assert (first.messages, first.reference_answer) == ((USER,), "4")
    assert (first.expert_steps, first.expert_thoughts) == ((), ())
    assert second.reference_answer == "4"
    assert (second.expert_steps, second.expert_thoughts) == (("a", "b"), ("x", "y"))
    assert second.problem_text == "2 + 2?"
    assert second.item == {key: value for key, value in expert.items() if key != "messages"}


def test_a_field_that_is_not_ours_rides_along_for_a_grader(tmp_path):
    (row,) = read_rows(written(tmp_path, RIGHT | {"unit_tests": [{"in": "1"}]}))
    assert row.item["unit_tests"] == [{"in": "1"}]


@pytest.mark.parametrize(
    ("row", "field", "value", "fix"),
    [
        ({"reference_answer": "4"}, "`messages`", "is missing", '"role": "user"'),
        ({"messages": []}, "`messages`", "empty", '"role": "user"'),
        ({"messages": ["hi"]}, "message 1", "'hi'", "not an object"),
        (
            {"messages": [USER, {"role": "bot", "content": "a"}]},
            "message 2: 'role'",
            "'bot'",
            "choose system, user, assistant",
        ),
        ({"messages": [{"content": "a"}]}, "'role'", "missing", "choose system, user"),
        ({"messages": [{"role": "user", "content": " "}]}, "'content'", "' '", "write some text"),
        ({"messages": [{"role": "user"}]}, "'content'", "None", "write some text"),
        (
            {"messages": [USER, {"role": "assistant", "content": "4"}]},
            "message 2: the last role",
            "'assistant'",
            "must be 'user'",
        ),
        (RIGHT | {"expert_steps": ["a", ""]}, "`expert_steps` entry 2", "''", "write some text"),
        (RIGHT | {"expert_steps": []}, "`expert_steps`", "[]", "leave it out"),
        (RIGHT | {"expert_steps": "a"}, "`expert_steps`", "'a'", "write a list of strings"),
        (
            RIGHT | {"expert_steps": "1. a\n3. b"},
            "`expert_steps`: line 2 of its text",
            "step 3 follows step 1",
            "number every step from 1",
        ),
        (RIGHT | {"expert_steps": [3]}, "`expert_steps` entry 1", "3", "write some text"),
        (
            RIGHT | {"expert_steps": ["a", "b"], "expert_thoughts": ["x"]},
            "`expert_thoughts`",
            "1 entries for 2",
            "write one per step",
        ),
        (RIGHT | {"reference_answer": True}, "`reference_answer`", "True", "write a string"),
        (RIGHT | {"reference_answer": ["4"]}, "`reference_answer`", "['4']", "write a string"),
        (RIGHT | {"reference_answer": " "}, "`reference_answer`", "empty", "write the answer"),
        (RIGHT | {"expert_step": ["a"]}, "`expert_step`", "unknown", "did you mean `expert_steps`"),
        ("{not json", "is not JSON", "", ""),
        ("[1]", "holds a list", "", "write an object with `messages`"),
    ],
)
def test_a_wrong_row_is_refused_with_file_line_field_value_and_fix(
    tmp_path, row, field, value, fix
):
    path = written(tmp_path, RIGHT, "", row)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    text = str(caught.value)
    assert text.startswith(f"{path}, line 3: ")
    assert len(text.splitlines()) == 1
    for part in (field, value, fix):
        assert part in text


def test_five_bad_lines_are_told_in_full_and_the_others_counted(tmp_path):
    path = written(tmp_path, *["{}"] * 8)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    lines = str(caught.value).splitlines()
    assert [line.startswith(f"{path}, line {n}: ") for n, line in enumerate(lines[:5], 1)] == [
        True
    ] * 5
    assert lines[5:] == ["... and 3 more bad lines"]


def test_exactly_five_bad_lines_are_told_without_a_remainder(tmp_path):
    with pytest.raises(DataError) as caught:
        read_rows(written(tmp_path, *["{}"] * 5))
    assert len(str(caught.value).splitlines()) == 5


def test_only_line_feeds_end_a_row(tmp_path):
    # JSON strings may hold these characters as they are; str.splitlines would cut there.
    content = "one\u2028two\u0085three"
    row = {"messages": [{"role": "user", "content": content}]}
    rows = read_rows(written(tmp_path, json.dumps(row, ensure_ascii=False), RIGHT))
    assert [r.problem_text for r in rows] == [content, "2 + 2?"]
    assert [r.id for r in rows] == ["train:1", "train:2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "holds no rows; write one JSON object per line"),
        (b" \n\n", "holds no rows"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_file_without_rows_is_refused_by_name(tmp_path, content, said):
    path = tmp_path / "valid.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_one_problem_in_two_files_is_refused_with_both_places(tmp_path):
    other = {"messages": [{"role": "user", "content": "3 + 3?"}]}
    train, valid = written(tmp_path, other, RIGHT), written(tmp_path, RIGHT, name="valid.jsonl")
    with pytest.raises(DataError) as caught:
        check_disjoint({train: read_rows(train), valid: read_rows(valid)})
    text = str(caught.value)
    places = (f"{train}, line 2", f"{valid}, line 1")
    for part in (*places, "'2 + 2?'", "remove it from one"):
        assert part in text


def test_disjoint_files_pass_and_a_problem_may_stand_twice_in_one_file(tmp_path):
    other = {"messages": [{"role": "user", "content": "3 + 3?"}]}
    train, valid = written(tmp_path, RIGHT, RIGHT), written(tmp_path, other, name="valid.jsonl")
    check_disjoint({train: read_rows(train), valid: read_rows(valid)})


def test_expert_steps_may_be_one_text_of_numbered_titled_steps(tmp_path):
    text = "To solve it:\n\n1. **Add**: first 2 + 2: 4\n2. so it is: 4"
    row = RIGHT | {"expert_steps": text, "expert_thoughts": ["x", "y"]}
    (read,) = read_rows(written(tmp_path, row))
    assert read.expert_steps == ("Add: first 2 + 2: 4", "so it is: 4")
    assert [read.titled_step(k) for k in (0, 1)] == [
        ("Add", "first 2 + 2: 4"),
        (None, "so it is: 4"),
    ]


def test_in_a_list_of_steps_what_stands_before_a_colon_is_the_title(tmp_path):
    (read,) = read_rows(written(tmp_path, RIGHT | {"expert_steps": ["Add: first 2: 4", "4"]}))
    assert [read.titled_step(k) for k in (0, 1)] == [("Add", "first 2: 4"), (None, "4")]


@pytest.mark.parametrize(
    ("answer", "said"), [('"\\ud83d"', "half a character"), ("[" * 100_000, "nested too deeply")]
)
def test_what_cannot_be_written_or_read_again_is_a_bad_line(tmp_path, answer, said):
    line = json.dumps(RIGHT).replace('"4"', answer)
    with pytest.raises(DataError, match=said) as caught:
        read_rows(written(tmp_path, RIGHT, line))
    assert [bad.line for bad in caught.value.lines] == [2]


def test_a_whole_character_may_be_escaped(tmp_path):
    (row,) = read_rows(written(tmp_path, RIGHT | {"reference_answer": "\U0001f600"}))
    assert row.reference_answer == "\U0001f600"
