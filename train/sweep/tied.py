"""`python -m train.sweep.tied PARENT COMMAND...`: a command that is asked to stop with its parent.

Linux sends SIGTERM to this process when the thread that started it ends (prctl(2),
PR_SET_PDEATHSIG), and keeps to that over exec. A sweep that is killed leaves no job running.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command."""
    parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(parent):  # it had ended before the call above
        sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)  # noqa: S606 - the job's own command


if __name__ == "__main__":
    main()
