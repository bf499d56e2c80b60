"""The repair bench's arithmetic and page, against numbers worked by hand."""

import json

import pytest

from benchmarks import repair, repair_teacher
from train.experts.draft import DraftError, read_draft


def cell(arm: str, seed: int, accepted_at: dict, prompt: int, sampled: int) -> dict:
    summary = {"drafts": 7, "dropped": 1, "prompt_tokens": prompt, "completion_tokens": sampled}
    return {
        "teacher": "T",
        "weights_sha256": "a" * 64,
        "arm": arm,
        "seed": seed,
        "commit": "c0ffee",
        "date": "2026-01-02",
        "settings": repair.settings(12),
        "summary": summary,
        "accepted_at": accepted_at,
    }


def write(folder, *cells: dict) -> None:
    for one in cells:
        path = folder / "T" / f"{one['arm']}-{one['seed']}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(one))


def test_a_share_counts_rows_accepted_by_that_draft():
    one = cell("blind", 0, {"a": 1, "b": 3, "c": None, "d": 2}, 1, 1)
    assert [repair.share(one, n) for n in (1, 2, 3)] == [0.25, 0.5, 0.75]


def test_the_interval_is_of_paired_rows():
    # 2 of 4 gained, none lost; with one added to each, (2+1)/6 and (0+1)/6: their difference is
    # 1/3, the variance (4/6 - 1/9) / 6 = 5/54, and 1.96 * sqrt(5/54) = 0.5964.
    pairs = [(True, False), (True, True), (False, False), (True, False)]
    assert repair.paired(pairs) == pytest.approx((0.5, 1 / 3 - 0.5964, 1 / 3 + 0.5964), abs=1e-4)


def test_the_page_names_the_cheaper_way_where_no_difference_is_seen(tmp_path):
    rows = {"a": 1, "b": None, "c": 2}
    write(tmp_path, cell("reasons", 0, rows, 100, 20), cell("blind", 0, rows, 60, 20))
    page = repair.render(tmp_path)
    # No row differs: 1/5 and 1/5, and 1.96 * sqrt((2/5) / 5) = 0.554.
    assert "+0.000 (-0.554 to +0.554" in page
    assert "| blind | 0 | 0.333 | 0.667 | 0.667 | 7 | 1 | 60 | 20 |" in page
    assert "no difference is seen; `blind` took fewer tokens (reasons 120, blind 80" in page
    assert "Missing cells: reasons/1, blind/1, reasons/2, blind/2." in page


def test_the_page_names_the_better_way_where_the_interval_tells(tmp_path):
    good = {str(n): 2 for n in range(19)} | {"19": None}
    bad = {str(n): None for n in range(20)}
    write(tmp_path, cell("reasons", 0, good, 9, 9), cell("blind", 0, bad, 1, 1))
    assert "with reasons more is accepted" in repair.render(tmp_path)
    write(tmp_path, cell("reasons", 0, bad, 9, 9), cell("blind", 0, good, 1, 1))
    assert "blind retry gets more accepted" in repair.render(tmp_path)


def test_the_page_prefers_no_way_where_nothing_was_accepted(tmp_path):
    none = {"a": None, "b": None}
    write(tmp_path, cell("reasons", 0, none, 9, 9), cell("blind", 0, none, 1, 1))
    page = repair.render(tmp_path)
    assert "nothing was accepted either way, which says nothing of either (reasons 18" in page
    assert "took fewer tokens" not in page


def test_no_cell_claims_nothing(tmp_path):
    assert "nothing is claimed" in repair.render(tmp_path)


def test_the_same_seed_gives_the_same_sums_with_right_answers():
    rows = repair.sums(3, 48)
    assert rows == repair.sums(3, 48)
    assert rows != repair.sums(4, 48)
    assert len({row.id for row in rows}) == 48
    for row in rows:
        first, second = row.problem_text.removeprefix("What is ").rstrip("?").split(" + ")
        assert row.reference_answer == str(int(first) + int(second))


def test_solved_examples_are_other_sums_with_right_steps():
    rows = repair.sums(repair.EXAMPLES_SEED, 40)
    examples = repair.solved(5, rows)
    assert len(examples) == 5
    assert not {row.id for row in examples} & {row.id for row in rows}
    for row in examples:
        *_, total = (step.split(": ")[1] for step in row.expert_steps)
        left, right = total.split(" = ")
        assert sum(map(int, left.split(" + "))) == int(right) == int(row.reference_answer)


def test_kept_cells_of_other_weights_are_refused(tmp_path):
    write(tmp_path, cell("reasons", 0, {}, 1, 1))
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match="weights_sha256"):
        repair.run(model, "T", [0], tmp_path, 12)


def test_the_page_in_the_repository_is_that_of_its_cells():
    page = (repair.Path(__file__).parents[1] / "docs" / "repair.md").read_text("utf-8")
    assert page == repair.render(repair.RESULTS)


def test_the_taught_teacher_saw_other_sums_and_first_conversations_alone():
    asked = {row.problem_text for seed in repair.SEEDS for row in repair.sums(seed, 48)}
    shown = repair_teacher.conversations(repairs=False)
    assert len(shown) == repair_teacher.NUM_SUMS
    for messages, text in shown:
        assert [message["role"] for message in messages] == ["system", "user"]
        assert messages[1]["content"] not in asked
        assert read_draft(text).answer == text.rsplit(": ", 1)[1]


def test_the_teacher_that_saw_repairs_saw_as_many_drafts_sent_back_and_none_of_them_right():
    shown = repair_teacher.conversations(repairs=True)
    back = [(messages, text) for messages, text in shown if len(messages) > 2]
    assert len(back) == repair_teacher.NUM_SUMS // 2
    for messages, right in back:
        assert [message["role"] for message in messages[2:]] == ["assistant", "user"]
        assert "which is false" in messages[3]["content"]

        assert read_draft(right).answer
        with pytest.raises(DraftError):
            read_draft(messages[2]["content"])
