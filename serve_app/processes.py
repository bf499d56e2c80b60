"""The processes of one service: found by a mark in their environment, ended for certain.

A process number may be given to another program after its process has ended, so a recorded one
counts only together with its start time. Linux; used by `serve_app.cluster` alone.
"""

import os
import time
from collections.abc import Callable, Iterable

import psutil

from serve_app.record import ProcessId

MARK = "FERRATA_SERVICE"
POLL_S = 0.1


def identify(pid: int) -> ProcessId | None:
    """The process as it is now; None when it has ended."""
    try:
        return ProcessId(pid=pid, started=psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def identify_all(found: Iterable[psutil.Process]) -> list[ProcessId]:
    """Those of the processes that still run."""
    return [known for process in found if (known := identify(process.pid)) is not None]


def children(parent: ProcessId) -> list[ProcessId]:
    """The processes that `parent` started itself."""
    process = _find(parent)
    return identify_all(process.children()) if process is not None else []


def is_alive(process: ProcessId | None) -> bool:
    """True when this very process still runs."""
    return process is not None and _find(process) is not None


def of_service(mark: str, recorded: Iterable[ProcessId] = ()) -> list[psutil.Process]:
    """Every living process of a service, children of such processes included.

    The mark finds processes whose parents have died; the record finds those that have written
    their title over their environment.
    """
    found = [process for process in psutil.process_iter() if _has_mark(process, mark)]
    found += [process for known in recorded if (process := _find(known)) is not None]
    for process in list(found):
        try:
            found += process.children(recursive=True)
        except psutil.NoSuchProcess:  # it ended while we looked
            continue
    ours = _myself_and_parents()
    return [process for process in set(found) if process.pid not in ours and not _ended(process)]


def kill_all(find: Callable[[], list[psutil.Process]], patience_s: float) -> list[int]:
    """Kill what `find` returns until it returns nothing; return the process numbers left over.

    Repeated, since a process may start another one while it is being killed.
    """
    deadline = time.monotonic() + patience_s
    while (left := find()) and time.monotonic() < deadline:
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=POLL_S)
    return [process.pid for process in left]


def terminate(processes: list[psutil.Process], patience_s: float) -> list[int]:
    """Ask processes to end, wait; return the numbers of those that still run."""
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    return [process.pid for process in alive]


def training_drivers(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes that are `python -m train`."""
    return [process for process in processes if _command(process)[1:3] == ["-m", "train"]]


def _find(known: ProcessId) -> psutil.Process | None:
    try:
        process = psutil.Process(known.pid)
        same = process.create_time() == known.started
    except psutil.NoSuchProcess:
        return None
    return process if same and not _ended(process) else None


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):  # another user's, or it has ended: not one of ours
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


def _ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _myself_and_parents() -> set[int]:
    return {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
