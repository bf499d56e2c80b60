"""The measured part of docs/selection.md, from the cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.selection.against import full_scores, kendall_tau, select
from benchmarks.selection.bank import K, read_bank
from benchmarks.selection.timing import REPEATS, ROUNDS, predictions
from train.statistics import bonett_price_interval, wilson_interval

BEGIN, END = "<!-- measured: by `make bench-selection` -->", "<!-- end of the measured part -->"
MOST_OFF = 0.25
MOST_SHARE = 1 / 3


def write_report(results: Path, page: Path) -> None:
    """Replace the page's measured part. Raises ValueError for a page without its marks."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page}: holds no measured part between {BEGIN!r} and {END!r}; add both")
    before, rest = text.split(BEGIN)
    page.write_text(f"{before}{render(results)}{rest.split(END)[1]}", encoding="utf-8")


def render(results: Path) -> str:
    """The measured part, marks included."""
    bank = read_bank(results)
    return "\n".join([BEGIN, *_ranking(bank), "", *_times(results), END])


def _ranking(bank: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Selector against full evaluation."""
    if not bank:
        return ["### Ranking real checkpoints", "Not measured yet."]
    scores = full_scores(bank)
    num_problems = len(next(iter(bank.values()))[0]["solved"])
    best = sorted(scores, key=lambda name: scores[name], reverse=True)
    lines = [
        "### Ranking real checkpoints",
        f"{len(bank)} checkpoints of the quickstart's task, made by "
        f"`benchmarks/selection/checkpoints.py`; {num_problems} problems of 2, 4, 5 and 6 lines "
        "(lengths chosen so that the checkpoints differ, after a look at their scores on shorter "
        "ones), "
        f"{K} samples of each, stepwise, at temperature 1. The full evaluation:",
        "",
        f"| checkpoint | parameters | pass@{K} | 95% interval | single samples |",
        "|---|---:|---:|---|---:|",
    ]
    for name in best:
        cell = bank[name][0]
        low, high = wilson_interval(sum(c > 0 for c in cell["solved"]), num_problems)
        single = sum(cell["solved"]) / num_problems / K
        lines.append(
            f"| {name} | {cell['num_parameters']:,} | {scores[name]:.3f} | {low:.3f}-{high:.3f} "
            f"| {single:.3f} |"
        )
    num_draws = min(len(cells) for cells in bank.values())
    found = {draw: select(bank, draw) for draw in range(1, num_draws)}
    lines += [
        "",
        f"The selector, {len(found)} times, each on samples of its own and problems in an order of "
        "its own; beside it a second full evaluation on the same samples, which is what chance "
        "leaves of the order:",
        "",
        "| run | chosen | Kendall's tau-b | regret in pass@k | share of operations | told apart "
        "| tau-b of a second full evaluation | its best |",
        "|---:|---|---:|---:|---:|---|---:|---|",
    ]
    seconds = {draw: full_scores(bank, draw) for draw in found}
    for draw, one in found.items():
        again = seconds[draw]
        lines.append(
            f"| {draw} | {one.chosen} | {one.tau:.2f} | {one.regret:.3f} | {one.share:.3f} "
            f"| {'yes' if one.told_apart else 'no'} | {kendall_tau(again, scores):.2f} "
            f"| {', '.join(name for name, s in again.items() if s == max(again.values()))} |"
        )
    hits = sum(one.chosen == best[0] for one in found.values())
    full_hits = sum(s[best[0]] == max(s.values()) for s in seconds.values())
    full_ties = sum(
        s[best[0]] == max(s.values()) and list(s.values()).count(max(s.values())) > 1
        for s in seconds.values()
    )
    over = sum(one.share > MOST_SHARE for one in found.values())
    lines += [
        "",
        f"- Top-1: the full evaluation's best, {best[0]}, was chosen in {hits} of {len(found)} "
        f"runs; a second full evaluation puts it first in {full_hits} of {len(found)}, "
        f"{full_ties} of them beside another with the same pass@{K}.",
        f"- Mean tau-b {fmean(one.tau for one in found.values()):.2f}; of a second full evaluation "
        f"{fmean(kendall_tau(s, scores) for s in seconds.values()):.2f}.",
        f"- Mean regret {fmean(one.regret for one in found.values()):.3f}, the largest "
        f"{max(one.regret for one in found.values()):.3f}.",
        f"- Share of a full evaluation's operations {min(o.share for o in found.values()):.3f} to "
        f"{max(o.share for o in found.values()):.3f}; above a third in {over} of {len(found)}.",
        *_smaller_wins(bank),
    ]
    return lines


def _smaller_wins(bank: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Pairs in which the smaller model is surely the better one."""
    found = []
    for small in bank:
        for large in bank:
            sizes = (bank[small][0]["num_parameters"], bank[large][0]["num_parameters"])
            if sizes[0] < sizes[1] and _gain(bank[small][0], bank[large][0]) > 0:
                found.append(f"{small} over {large}")
    return [
        "- A smaller model is the better one (lower end of the paired 95% interval above 0): "
        f"{', '.join(found) or 'in no pair'}."
    ]


def _gain(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The lower end of the interval of pass@K of `one` less that of `other`."""
    pairs = list(zip(one["solved"], other["solved"], strict=True))
    gained = sum(a > 0 and b == 0 for a, b in pairs)
    lost = sum(b > 0 and a == 0 for a, b in pairs)
    return bonett_price_interval(gained, lost, len(pairs))[0]


def _times(results: Path) -> list[str]:
    """The cost model on cells that it was not fitted on."""
    models, found = predictions(results)
    lines = [
        "### The cost model on unseen sizes and lengths",
        "seconds = a FLOPs + b tokens + c steps, of one thread's CPU time. A step is an optimizer "
        f"step, or a decoding step of the engine. Each time is the least of {ROUNDS * REPEATS}, in "
        f"{ROUNDS} rounds through all lengths.",
        "",
        "| phase | size | length | unseen | measured s | predicted s | ratio |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    for one in found:
        lines.append(
            f"| {one.phase} | {one.size} | {one.length} | {one.unseen} | {one.measured_s:.3f} "
            f"| {one.predicted_s:.3f} | {one.ratio:.2f} |"
        )
    lines.append("")
    for phase, model in models.items():
        for unseen in dict.fromkeys(one.unseen for one in found):
            ratios = [one.ratio for one in found if (one.phase, one.unseen) == (phase, unseen)]
            within = sum(abs(ratio - 1) <= MOST_OFF for ratio in ratios)
            lines.append(
                f"- {phase}, fitted on {model.num_runs} cells, {unseen} unseen: ratios "
                f"{min(ratios):.2f} to {max(ratios):.2f}, {within} of {len(ratios)} within "
                f"{MOST_OFF:.0%}."
            )
    return lines
