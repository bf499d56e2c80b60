"""Attacks on the machine's resources, and on a verdict's deadline."""

from . import Attack

ATTACKS = {
    "fork-bomb": Attack("while True:\n    os.fork()", limit="processes"),
    "fork-bomb-that-goes-on-after-failures": Attack(
        """
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
""",
        limit="cpu",
    ),
    "thread-bomb": Attack(
        """
import threading, time
while True:
    threading.Thread(target=time.sleep, args=(1000,)).start()
"""
    ),
    "thread-bomb-that-ignores-failures": Attack(
        """
import threading
def spin():
    while True: pass
while True:
    try:
        threading.Thread(target=spin).start()
    except RuntimeError:
        pass
""",
        limit="cpu",
    ),
    "memory": Attack(
        "parts = []\nwhile True:\n    parts.append(bytearray(1 << 24))", limit="memory"
    ),
    "one-huge-object": Attack("print(len('x' * (1 << 40)))", limit="memory"),
    "huge-integer": Attack("print(len(str(7 ** (10 ** 9))))"),
    "memory-in-many-processes": Attack(
        """
import time
for _ in range(8):
    if os.fork() == 0:
        block = bytearray(200 << 20)
        for i in range(0, len(block), 4096):
            block[i] = 1
        time.sleep(1000)
time.sleep(1000)
""",
        limit="memory",
    ),
    "shared-memory-that-nobody-holds-resident": Attack(
        """
import mmap
block = mmap.mmap(-1, 1 << 26)
block.madvise(mmap.MADV_DONTNEED)
print("@SECRET@")
"""
    ),
    "memory-file": Attack("os.memfd_create('x')\nprint('@SECRET@')", works_outside=True),
    "disk": Attack(
        """
for i in range(10 ** 6):
    with open(f"{i}", "wb") as file:
        file.write(bytes(1 << 20))
""",
        limit="disk",
    ),
    "one-huge-file": Attack(
        """
with open("big", "wb") as file:
    while True:
        file.write(bytes(1 << 20))
""",
        limit="disk",
    ),
    "sparse-file": Attack("open('x', 'wb').truncate(1 << 40)\nprint('@SECRET@')", limit="disk"),
    "many-small-files": Attack(
        """
i = 0
while True:
    i += 1
    open(f"f{i}", "w").close()
""",
        limit="files",
    ),
    "deep-folders": Attack(
        """
while True:
    os.mkdir("d")
    os.chdir("d")
""",
        limit="files",
    ),
    "many-links": Attack(
        """
i = 0
while True:
    i += 1
    os.symlink("/", f"s{i}")
""",
        limit="files",
    ),
    "endless-loop": Attack("while True: pass", limit="cpu"),
    "endless-loop-in-c": Attack("sum(iter(int, 1))", limit="cpu"),
    "regular-expression-that-explodes": Attack(
        "import re\nre.match('(a+)+b', 'a' * 64)", limit="cpu"
    ),
    "cpu-time-spread-over-processes": Attack(
        """
while True:
    pid = os.fork()
    if pid == 0:
        sum(range(10 ** 6))
        os._exit(0)
    os.waitpid(pid, 0)
""",
        limit="cpu",
    ),
    "endless-sleep": Attack("import time\ntime.sleep(10 ** 6)", limit="wall"),
    "endless-sleep-in-a-destructor": Attack(
        """
import time
class A:
    def __del__(self): time.sleep(10 ** 6)
a = A()
del a
""",
        limit="wall",
    ),
    "endless-exit-handler": Attack(
        """
import atexit
@atexit.register
def spin():
    while True: pass
""",
        limit="cpu",
    ),
    "endless-exception": Attack(
        """
class E(Exception):
    def __str__(self):
        while True: pass
raise E
""",
        limit="cpu",
    ),
    "ignored-signals": Attack(
        """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
""",
        limit="cpu",
    ),
    "huge-output": Attack("while True: print('x' * 10 ** 5)", limit="output"),
    "huge-error-output": Attack(
        "while True: print('x' * 10 ** 5, file=sys.stderr)", limit="output"
    ),
    "huge-result": Attack("def f(): return 'x' * (1 << 22)", function=True, limit="output"),
    "output-from-a-daemon": Attack(
        """
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: os.write(1, b'x' * 65536)
    os._exit(0)
time.sleep(1000)
""",
        limit="output",
    ),
    "deep-json": Attack(
        """
def f():
    value = []
    for _ in range(10 ** 5): value = [value]
    return value
""",
        function=True,
    ),
    "deep-json-forged": Attack(
        """
text = b'{"value": ' + b'[' * 200000 + b']' * 200000 + b'}'
while text: text = text[os.write(3, text):]
os._exit(0)
""",
        function=True,
    ),
    "recursion": Attack(
        "sys.setrecursionlimit(10 ** 9)\ndef r(): return r() + 1\nr()",
    ),
    "recursion-in-c": Attack(
        """
sys.setrecursionlimit(10 ** 9)
value = []
for _ in range(10 ** 6): value = [value]
repr(value)
"""
    ),
    "number-of-ten-thousand-digits": Attack("def f(): return 10 ** 9999", function=True),
    "descriptors": Attack("files = []\nwhile True: files.append(open('/dev/null'))"),
    "pipes-full-of-data": Attack(
        """
pipes = []
while True:
    read, write = os.pipe()
    os.set_blocking(write, False)
    pipes.append(os.write(write, bytes(65536)))
"""
    ),
    "stdin-drained-and-closed": Attack(
        "sys.stdin.read(); os.close(0); os.close(1); os.close(2); os.close(3); print('@SECRET@')"
    ),
    "stopped-by-itself": Attack(
        "import signal\nos.kill(os.getpid(), signal.SIGSTOP)", limit="wall"
    ),
}
