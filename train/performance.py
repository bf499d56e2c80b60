"""Which skills a policy has, where it is weak, and what a new policy lost: by intervals and tests.

A row names its skills in `skill` (a string) or `tags` (a list). Pure but for reading the samples
that an evaluation wrote.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from train.data import Row
from train.statistics import wilson_interval

ALL = "all problems"
SIGNIFICANCE = 0.05
Solved = Mapping[str, bool]  # by row id


def skills_of(row: Row) -> tuple[str, ...]:
    """The skills that a row names; none is fine."""
    tags = row.item.get("tags")
    named = [*tags] if isinstance(tags, list) else []
    if row.item.get("skill") is not None:
        named.append(row.item["skill"])
    return tuple(dict.fromkeys(str(name) for name in named))


def by_skill(solved: Solved, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Accuracy of each skill with its Wilson interval, and whether it is weak."""
    shown = {}
    for skill, ids in _ids_by_skill(solved, rows).items():
        marks = [solved[i] for i in ids]
        rest = [mark for i, mark in solved.items() if i not in ids]
        shown[skill] = {
            "accuracy": fmean(marks),
            "ci95": list(wilson_interval(sum(marks), len(marks))),
            "num_problems": len(marks),
            "weak": bool(rest) and newcombe_interval(marks, rest)[1] < 0,
        }
    return shown


def regressions(parent: Solved, child: Solved, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Skills, and all problems together, of which the child surely solves fewer than its parent.

    The same problems are compared: McNemar's exact test, two-sided (McNemar, 1947).
    """
    both = {i: (parent[i], child[i]) for i in parent if i in child}
    groups = {ALL: set(both), **_ids_by_skill(both, rows)}
    found = []
    for name, ids in groups.items():
        lost = sum(both[i] == (True, False) for i in ids)
        gained = sum(both[i] == (False, True) for i in ids)
        p_value = mcnemar(lost, gained)
        if lost > gained and p_value < SIGNIFICANCE:
            found.append(
                {
                    "skill": name,
                    "lost": lost,
                    "gained": gained,
                    "num_problems": len(ids),
                    "p_value": p_value,
                }
            )
    return found


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided exact p-value that losses and gains are equally likely."""
    n = lost + gained
    tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n
    return min(1.0, 2 * tail)


def newcombe_interval(ones: Sequence[bool], others: Sequence[bool]) -> tuple[float, float]:
    """95% interval of the difference of two proportions (Newcombe, 1998, method 10)."""
    p, q = fmean(ones), fmean(others)
    low_p, high_p = wilson_interval(sum(ones), len(ones))
    low_q, high_q = wilson_interval(sum(others), len(others))
    below = math.hypot(p - low_p, high_q - q)
    above = math.hypot(high_p - p, q - low_q)
    return p - q - below, p - q + above


def report_skills(folder: Path, policies: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """For a job's report, from `folder`'s samples: each policy's skills, the last one's losses.

    The parent is the first policy, which the job started from.
    """
    if not policies:
        return {}
    solved = {name: read_solved(folder / f"{name}.jsonl") for name in policies}
    skills = {name: by_skill(marks, rows) for name, marks in solved.items()}
    return {
        "skills": {name: shown for name, shown in skills.items() if shown},
        "regressions": regressions(solved[policies[0]], solved[policies[-1]], rows),
    }


def read_solved(path: Path) -> dict[str, bool]:
    """Which problems the samples of a policy solve, by row id."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {sample["id"]: sample["solved"] for sample in map(json.loads, lines)}


def _ids_by_skill(known: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        if row.id in known:
            for skill in skills_of(row):
                found.setdefault(skill, set()).add(row.id)
    return dict(sorted(found.items()))
