"""Where a policy fails: pass@k and step reward per skill, with intervals. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from train.data import Row
from train.experts.outcomes import Outcomes
from train.performance import SIGNIFICANCE, holm, newcombe_p_value, skills_of
from train.statistics import pass_at_k, wilson_interval

UNNAMED = "(no skill named)"


@dataclass(frozen=True)
class Standing:
    """How a policy does on the rows of one skill."""

    skill: str
    num_rows: int  # with samples of whole solutions
    pass_rate: float  # mean over rows of the share of samples that solve the row
    ci95: tuple[float, float]  # Wilson, of pass_rate
    k: int
    pass_at_k: float | None  # mean over rows; None when no row has k samples
    step_reward: float | None  # mean over rows with scored steps; None when there is none
    # Wilson, of the mean over the same rows of what is above 0: a step in a wrong form is worth 0
    step_credit_ci95: tuple[float, float] | None
    surely_weak: bool


def named_skills(row: Row) -> tuple[str, ...]:
    """The row's skills; a row that names none is of UNNAMED."""
    return skills_of(row) or (UNNAMED,)


def standings(rows: Sequence[Row], outcomes: Outcomes, k: int = 8) -> dict[str, Standing]:
    """One standing per skill that has sampled rows, in the order of the skills' names.

    A row counts as one observation, however often it was sampled: samples of one row are alike.
    The interval is Wilson's with the mean of the rows' pass rates for the proportion. It is no
    narrower than it should be, for values in [0, 1] of mean p have a variance of at most p(1 - p).

    Surely weak: Newcombe's interval of the difference to the other rows lies below 0, at the level
    that Holm's method asks for (as in `train.performance.by_skill`).
    """
    ids: dict[str, list[str]] = {}
    sampled = {i: one for i, one in outcomes.by_row.items() if one.num_samples}
    known = [row for row in rows if row.id in sampled]
    for row in known:
        for skill in named_skills(row):
            ids.setdefault(skill, []).append(row.id)
    rates = {row.id: sampled[row.id].pass_rate for row in known}
    lower, p_values = {}, {}
    for skill, members in ids.items():
        inside = set(members)
        ours = [rates[i] for i in members]
        rest = [rate for i, rate in rates.items() if i not in inside]
        if rest:
            lower[skill] = fmean(ours) < fmean(rest)
            p_values[skill] = newcombe_p_value(ours, rest)
    adjusted = holm(p_values)
    steps: dict[str, list[float]] = {}
    for row in rows:  # those with steps, whether whole solutions of them were sampled or not
        one = outcomes.by_row.get(row.id)
        if one is not None and one.step_reward is not None:
            for skill in named_skills(row):
                steps.setdefault(skill, []).append(one.step_reward)
    return {
        skill: _standing(
            skill,
            ids[skill],
            outcomes,
            steps.get(skill, ()),
            k,
            lower.get(skill, False) and adjusted[skill] < SIGNIFICANCE,
        )
        for skill in sorted(ids)
    }


def _standing(
    skill: str,
    ids: Sequence[str],
    outcomes: Outcomes,
    steps: Sequence[float],
    k: int,
    surely_weak: bool,
) -> Standing:
    found = [outcomes.by_row[i] for i in ids]
    rates = [one.pass_rate for one in found]
    credits_ = [max(0.0, reward) for reward in steps]
    deep = [pass_at_k(one.num_samples, one.num_solved, k) for one in found if one.num_samples >= k]
    return Standing(
        skill=skill,
        num_rows=len(found),
        pass_rate=fmean(rates),
        ci95=wilson_interval(sum(rates), len(rates)),
        k=k,
        pass_at_k=fmean(deep) if deep else None,
        step_reward=fmean(steps) if steps else None,
        step_credit_ci95=wilson_interval(sum(credits_), len(steps)) if steps else None,
        surely_weak=surely_weak,
    )
