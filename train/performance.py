"""Which skills a policy has, where it is weak, and what a new policy lost: by intervals and tests.

A row names its skills in `skill` (a string) or `tags` (a list). Many skills are looked at, so that
p-values are corrected by Holm's method: the chance that any is named by luck stays at 5%. Pure but
for reading the samples that an evaluation wrote.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

from train.data import Row
from train.statistics import Z95, wilson_interval

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
    """Accuracy of each skill with its Wilson interval, and whether it is weak.

    Weak: Newcombe's interval of its difference to the other problems lies below 0, at the level
    that Holm's method asks for.
    """
    shown, differences = {}, {}
    for skill, ids in _ids_by_skill(solved, rows).items():
        marks = [solved[i] for i in ids]
        rest = [mark for i, mark in solved.items() if i not in ids]
        shown[skill] = {
            "accuracy": fmean(marks),
            "ci95": list(wilson_interval(sum(marks), len(marks))),
            "num_problems": len(marks),
            "weak": False,
        }
        if rest:
            differences[skill] = (fmean(marks) < fmean(rest), newcombe_p_value(marks, rest))
    adjusted = holm({skill: p_value for skill, (_, p_value) in differences.items()})
    for skill, (is_lower, _) in differences.items():
        shown[skill]["weak"] = is_lower and adjusted[skill] < SIGNIFICANCE
    return shown


def regressions(parent: Solved, child: Solved, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Skills, and all problems together, of which the child surely solves fewer than its parent.

    The same problems are compared: McNemar's exact test, two-sided (McNemar, 1947); `p_value` is
    corrected for the number of skills.
    """
    both = {i: (parent[i], child[i]) for i in parent if i in child}
    groups = {ALL: set(both), **_ids_by_skill(both, rows)}
    counts = {
        name: (
            sum(both[i] == (True, False) for i in ids),
            sum(both[i] == (False, True) for i in ids),
        )
        for name, ids in groups.items()
    }
    adjusted = holm({name: mcnemar(*count) for name, count in counts.items()})
    return [
        {
            "skill": name,
            "lost": lost,
            "gained": gained,
            "num_problems": len(groups[name]),
            "p_value": adjusted[name],
        }
        for name, (lost, gained) in counts.items()
        if lost > gained and adjusted[name] < SIGNIFICANCE
    ]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm, 1979): each times the number not yet tested, never decreasing."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted, largest = {}, 0.0
    for i, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - i) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided exact p-value that losses and gains are equally likely."""
    n = lost + gained
    tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n
    return min(1.0, 2 * tail)


def newcombe_interval(
    ones: Sequence[float], others: Sequence[float], z: float = Z95
) -> tuple[float, float]:
    """Interval of the difference of two proportions (Newcombe, 1998, method 10); 95% by default."""
    p, q = fmean(ones), fmean(others)
    low_p, high_p = wilson_interval(sum(ones), len(ones), z)
    low_q, high_q = wilson_interval(sum(others), len(others), z)
    below = math.hypot(p - low_p, high_q - q)
    above = math.hypot(high_p - p, q - low_q)
    return p - q - below, p - q + above


def newcombe_p_value(ones: Sequence[float], others: Sequence[float]) -> float:
    """Two-sided: 1 less the level of the widest Newcombe interval that leaves out 0."""
    low_z, high_z = 0.0, 40.0  # beyond 38 the p-value is 0 in double precision
    for _ in range(60):
        z = (low_z + high_z) / 2
        low, high = newcombe_interval(ones, others, z)
        low_z, high_z = (low_z, z) if low <= 0 <= high else (z, high_z)
    return 2 * NormalDist().cdf(-low_z)


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
