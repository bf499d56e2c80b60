"""What a person sees while a job runs: the event log, followed and drawn."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from train.events import NOW_FILE, read_events

POLL_INTERVAL_S = 0.5


class ProgressFollower:
    """Follows an event log in a thread: bars on a terminal, plain lines elsewhere."""

    def __init__(self, path: Path, console: Console | None = None) -> None:
        self._path = path
        self._console = console or Console()
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        # What an earlier run wrote is history, not progress.
        self._shown = read_events(path)
        self._read_at = 0  # time stamp of the log when it was last read
        self._now: TaskID | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "ProgressFollower":
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._progress.stop()

    def _follow(self) -> None:
        while not self._stop.wait(POLL_INTERVAL_S):
            self._show_new()
        self._show_new()

    def _show_new(self) -> None:
        if self._console.is_terminal:
            self._show_now()
        stamp = self._path.stat().st_mtime_ns if self._path.exists() else 0
        if stamp == self._read_at:
            return
        self._read_at = stamp
        events = read_events(self._path)
        # Steps that are taken again replace their events: what follows the common part is new.
        common = 0
        for old, new in zip(self._shown, events, strict=False):
            if old != new:
                break
            common += 1
        for event in events[common:]:
            self._show(event)
        self._shown = events

    def _show(self, event: dict[str, Any]) -> None:
        stamp = time.strftime("%H:%M:%S", time.localtime(event["created_at"]))
        if event["type"] != "metrics":
            level = f"{event['level']}: " if "level" in event else ""
            self._line(f"{stamp} {level}{event['message']}")
        elif self._console.is_terminal:
            self._advance(event)
        else:
            self._line(f"{stamp} {event['stage']} {event['message']}: {describe(event)}")

    def _line(self, text: str) -> None:
        # One event, one line, also in a log file; a message may hold brackets.
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _show_now(self) -> None:
        """Draw what the job is doing this moment, and for how long."""
        file = self._path.with_name(NOW_FILE)
        if not file.exists():
            return
        now = json.loads(file.read_text(encoding="utf-8"))
        note = f"{now['phase']} for {time.time() - now['since']:.0f} s"
        if self._now is None:
            self._now = self._progress.add_task("now", total=None, note=note)
        self._progress.update(self._now, note=f"{now['stage']} after step {now['step']}: {note}")

    def _advance(self, event: dict[str, Any]) -> None:
        stage = event["stage"]
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=event["total_steps"], note="")
        self._progress.update(self._tasks[stage], completed=event["step"], note=describe(event))


def describe(event: dict[str, Any]) -> str:
    """One line of a step: reward (SFT: loss), validation accuracy when there is one, speed."""
    seconds = event["timing"]["step"]["full_iteration"]
    if "reward" not in event:
        learnt = f"loss {event['loss']:.3f}"
    else:
        learnt = "no verdicts" if event["reward"] is None else f"reward {event['reward']:.3f}"
    parts = [learnt, f"{event.get('num_tokens', 0) / seconds:,.0f} tok/s"]
    if event.get("full_valid_mean_reward") is not None:
        parts.insert(1, f"validation {event['full_valid_mean_reward']:.3f}")
    left_s = (event["total_steps"] - event["step"]) * seconds
    return ", ".join([*parts, f"about {left_s:.0f} s left"])


def report_table(report: dict[str, Any]) -> Table:
    """The report's rows as a table."""
    table = Table(title="Held-out problems")
    for heading in ("policy", "greedy", "95% interval", "sampled", "pass@k", "problems", "seconds"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for row in report["rows"]:
        pass_key = next(key for key in row if key.startswith("pass_at_"))
        low, high = row["ci95"]
        table.add_row(
            row["name"],
            f"{row['greedy']:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{row['sampled']:.3f}" if row["sampled"] is not None else "",
            f"{row[pass_key]:.3f}" if row[pass_key] is not None else "",
            str(row["num_problems"]),
            f"{row['seconds']:.0f}",
        )
    return table
