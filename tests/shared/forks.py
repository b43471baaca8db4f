"""Scripts that fork while a thread of the parent holds a lock, as can happen with a preloaded app under gunicorn."""

from __future__ import annotations

import subprocess
import sys

_PRELUDE = """
import os, signal, threading, traceback

signal.alarm(30)

def fork(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid

def ended(pid):
    assert os.waitpid(pid, 0)[1] == 0, "the child failed or did not end"
"""


def run_forking(script: str) -> None:
    """Run a script in a new process; ``fork(work)`` starts a child, ``ended(pid)`` checks that its work succeeded.

    A blocked child is killed after ten seconds.
    """
    command = [sys.executable, "-W", "ignore", "-c", _PRELUDE + script]
    done = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
