"""How many examples to ask for per skill. Pure."""

from collections.abc import Mapping

from train.experts.weakness import Standing
from train.spec import AllocationMode


def weights(
    skills: Mapping[str, int], known: Mapping[str, Standing], mode: AllocationMode
) -> dict[str, float]:
    """A share for each of `skills`.

    `uniform`: all alike. `weakness`: the share of failures, at the middle of the pass rate's Wilson
    interval, so that few rows are not taken at their word; a skill without rows lies in the middle
    of [0, 1]. Where nothing is solved anywhere, a skill whose single steps were scored counts
    likewise by what they fall short of a reward of 1: steps that nobody shows are not known to be
    good.
    """
    if mode == "uniform":
        return dict.fromkeys(skills, 1.0)
    nothing_solved = not any(one.pass_rate for one in known.values())

    def weakness(skill: str) -> float:
        if skill not in known:
            return 0.5
        standing = known[skill]
        interval = standing.ci95
        if nothing_solved and standing.step_credit_ci95 is not None:
            interval = standing.step_credit_ci95
        return 1 - sum(interval) / 2

    return {skill: weakness(skill) for skill in skills}


def allocate(
    count: int, available: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, int]:
    """Split `count` in proportion to `shares`, no skill above what is `available` of it.

    Whole numbers by largest remainders (Hamilton's method), equal ones in the order of the names;
    what a skill cannot take goes to the others. The sum is min(count, all that is available).
    """
    given = dict.fromkeys(available, 0)
    left = min(count, sum(available.values()))
    while left:
        open_ = [skill for skill in sorted(given) if given[skill] < available[skill]]
        total = sum(shares[skill] for skill in open_)
        exact = {
            skill: left * (shares[skill] / total if total else 1 / len(open_)) for skill in open_
        }
        whole = {skill: int(exact[skill]) for skill in open_}
        rest = left - sum(whole.values())
        for skill in sorted(open_, key=lambda s: whole[s] - exact[s])[:rest]:
            whole[skill] += 1
        for skill, number in whole.items():
            taken = min(number, available[skill] - given[skill])
            given[skill] += taken
            left -= taken
    return given
