"""The best trial against the default, paired on held-out rows that chose neither. Pure."""

from typing import Any

from train.performance import mcnemar
from train.spec import SpecError
from train.statistics import bonett_price_interval


def compare(best: dict[str, bool], default: dict[str, bool]) -> dict[str, Any]:
    """Accuracies and their difference, over the problems that both were judged on.

    Each argument is problem id -> solved. `ci95` is Bonett and Price's interval, `p_value`
    McNemar's. Raises SpecError when no problem was judged for both.
    """
    shared = sorted(best.keys() & default.keys())
    if not shared:
        raise SpecError("no held-out problem was judged for both the best trial and the default")
    gained = sum(best[i] and not default[i] for i in shared)
    lost = sum(default[i] and not best[i] for i in shared)
    n = len(shared)
    return {
        "num_problems": n,
        "best": sum(best[i] for i in shared) / n,
        "default": sum(default[i] for i in shared) / n,
        "gained": gained,
        "lost": lost,
        "difference": (gained - lost) / n,
        "ci95": list(bonett_price_interval(gained, lost, n)),
        "p_value": mcnemar(lost, gained),
    }


def verdict(found: dict[str, Any] | None) -> str:
    """What the sweep found, in a sentence; None: the default validates best."""
    if found is None:
        return "None is better: no setting validates better than the default."
    low, high = found["ci95"]
    said = (
        f"{found['best']:.3f} against {found['default']:.3f} on {found['num_problems']} held-out "
        f"rows, difference {found['difference']:+.3f} (95%: {low:+.3f} to {high:+.3f})"
    )
    if low > 0:
        return f"The best setting is better than the default: {said}."
    if high < 0:
        return f"None is better: the setting that validates best is worse than the default: {said}."
    return f"None is surely better than the default: {said}."
