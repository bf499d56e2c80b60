"""Skills, weaknesses and regressions against numbers worked by hand."""

import json
from statistics import NormalDist

import pytest

from train.data import Row
from train.performance import (
    ALL,
    by_skill,
    holm,
    mcnemar,
    newcombe_interval,
    newcombe_p_value,
    regressions,
    report_skills,
    skills_of,
)


def row(number: int, **item: object) -> Row:
    return Row(f"heldout:{number}", ({"role": "user", "content": "p"},), "a", item=item)


def test_a_row_names_its_skills_in_either_way():
    assert skills_of(row(1)) == ()
    assert skills_of(row(1, skill="gcd")) == ("gcd",)
    assert skills_of(row(1, tags=["a", "b", "a"], skill="b")) == ("a", "b")


def test_the_exact_test_has_the_textbook_values():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(6, 0) == pytest.approx(2 / 64)
    assert mcnemar(8, 1) == pytest.approx(2 * (1 + 9) / 512)


def test_the_interval_of_a_difference_is_newcombes():
    # Newcombe (1998), table II, example (a): 56/70 - 48/80 = 0.2, interval 0.0524 to 0.3339.
    ones, others = [True] * 56 + [False] * 14, [True] * 48 + [False] * 32
    assert newcombe_interval(ones, others) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_a_skill_is_weak_when_the_interval_says_so_and_not_by_its_mean():
    rows = [row(n, skill="hard") for n in range(20)] + [row(n, skill="easy") for n in range(20, 60)]
    rows += [row(n, skill="rare") for n in range(60, 62)]
    solved = {r.id: r.item["skill"] == "easy" for r in rows}
    shown = by_skill(solved, rows)
    assert list(shown) == ["easy", "hard", "rare"]
    assert shown["hard"] == {
        "accuracy": 0.0,
        "ci95": [0.0, pytest.approx(0.1611, abs=1e-4)],
        "num_problems": 20,
        "weak": True,
    }
    assert (shown["rare"]["accuracy"], shown["rare"]["weak"]) == (0.0, False), "two say nothing"
    assert shown["easy"]["weak"] is False


def test_a_loss_is_named_where_it_is_sure():
    rows = [row(n, skill="a" if n < 30 else "b") for n in range(60)]
    parent = {r.id: True for r in rows}
    child = {r.id: not 0 <= int(r.id.split(":")[1]) < 8 for r in rows}
    found = regressions(parent, child, rows)
    assert [(each["skill"], each["lost"], each["gained"]) for each in found] == [
        (ALL, 8, 0),
        ("a", 8, 0),
    ]
    # 2 / 2^8 each, three comparisons: the smallest counts three times, the next no less.
    assert [each["p_value"] for each in found] == [3 * 2 / 256, 3 * 2 / 256]
    assert found[1]["num_problems"] == 30
    assert regressions(child, parent, rows) == []
    assert regressions(parent, parent | {"heldout:1": False}, rows) == [], "one may be luck"
    five = {f"heldout:{n}": False for n in range(5)}
    assert regressions(parent, parent | five, rows) == [], "2 / 2^5 = 0.0625 is no proof"
    six = {f"heldout:{n}": False for n in range(6)}
    assert regressions(parent, parent | six, rows) == [], "3 * 2 / 2^6 = 0.094 of three"


def test_adjusted_p_values_are_holms():
    # Four tests: 4 * 0.005, 3 * 0.01, then 2 * 0.03 and no less for the last, 1 * 0.04.
    p_values = {"c": 0.03, "a": 0.005, "d": 0.04, "b": 0.01}
    expected = {"a": 0.02, "b": 0.03, "c": 0.06, "d": 0.06}
    assert holm(p_values) == pytest.approx(expected)
    assert holm({"x": 0.6, "y": 0.7}) == {"x": 1.0, "y": 1.0}


def test_the_p_value_is_that_of_the_interval_which_touches_zero():
    ones, others = [True] * 56 + [False] * 14, [True] * 48 + [False] * 32
    z = -NormalDist().inv_cdf(newcombe_p_value(ones, others) / 2)
    assert newcombe_interval(ones, others, z)[0] == pytest.approx(0, abs=1e-9)
    assert newcombe_p_value(ones, ones) == pytest.approx(1.0)


def test_among_many_skills_one_that_is_low_by_luck_is_not_called_weak():
    def judged(num_skills: int, num_lowest: int):
        rows = [row(n, skill=f"s{n // 10}") for n in range(10 * num_skills)]
        solved = {r.id: n % 10 < (num_lowest if n < 10 else 8) for n, r in enumerate(rows)}
        return by_skill(solved, rows)["s0"]["weak"]

    # 4 of 10 against 8 of 10: the 95% interval lies below 0, which one of 20 skills may do by luck.
    assert judged(20, 4) is False
    assert judged(20, 0) is True


def test_a_report_reads_what_the_evaluations_wrote(tmp_path):
    rows = [row(n, tags=["x"]) for n in range(8)]
    for name, right in (("base", True), ("srl", False)):
        lines = [json.dumps({"id": r.id, "solved": right}) + "\n" for r in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    report = report_skills(tmp_path, ["base", "srl"], rows)
    assert report["skills"]["base"]["x"]["accuracy"] == 1.0
    assert {each["skill"] for each in report["regressions"]} == {ALL, "x"}
    assert report_skills(tmp_path, [], rows) == {}
