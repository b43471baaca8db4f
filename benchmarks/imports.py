"""Processor time of imports, in new processes that alternate and have compiled bytecode."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from .timing import verdict

ROUNDS = 15
MOST = 1.3

_SCRIPTS = {
    "Flask, NumPy and marshmallow": "import flask, numpy, marshmallow",
    "import flask_secure_ml": "import flask_secure_ml",
    "init_app": "import flask, flask_secure_ml; flask_secure_ml.SecureML(flask.Flask('app'))",
}


def report(_folder: Path) -> Iterator[str]:
    """Run each script in turn, and yield the lines of the table."""
    yield f"{'script':<32}{'CPU ms':>10}{'of the first':>14}  target"
    for script in _SCRIPTS.values():
        # The first run may compile bytecode.
        _seconds(script)
    rounds = [[_seconds(script) for script in _SCRIPTS.values()] for _ in range(ROUNDS)]
    for place, name in enumerate(_SCRIPTS):
        ratio = statistics.median(times[place] / times[0] for times in rounds)
        milliseconds = 1000 * statistics.median(times[place] for times in rounds)
        asked = verdict(ratio, MOST if place == 1 else None)
        yield f"{name:<32}{milliseconds:>10.0f}{ratio:>14.2f}  {asked}".rstrip()


def _seconds(script: str) -> float:
    """Return the processor time of a process that runs a script."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", script], check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
