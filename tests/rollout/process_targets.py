"""What the tests let child processes do."""

import os
import resource
import signal
import time
from pathlib import Path


def work(argument, mark):
    """Do what `argument` names."""
    if argument == "hang":
        mark("hanging")
        while True:
            pass
    if argument == "hold":  # one computation in C that holds the interpreter's lock
        mark("holding")
        return len(str(9 ** (9**8))) * 0
    if argument == "sleep":
        time.sleep(60)
    if argument == "exit":
        os._exit(3)
    if argument == "memory":
        return len(bytearray(5 * 2**30))  # untouched: none of it is used
    if argument == "limits":
        return [resource.getrlimit(which) for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS)]
    if argument == "raise":
        raise KeyError("x")
    if argument == "environment":
        return dict(os.environ)
    if argument == "print":
        print("noise")
        os.kill(os.getpid(), signal.SIGCONT)
    if isinstance(argument, dict) and "exit_unless" in argument:
        seen = Path(argument["exit_unless"])
        if not seen.exists():
            seen.touch()
            os._exit(1)
        return "second time"
    return {"echo": argument, "pid": os.getpid()}
