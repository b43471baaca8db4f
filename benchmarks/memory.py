"""Memory for 20 MB of JSON: the increase of a process's peak resident size, by app."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .apps import Contender, api_key, bare, secured, signing_key
from .bodies import as_json, numbers
from .timing import verdict

ROWS, COLUMNS = 10_000, 100
MOST = 6.0


def report(folder: Path) -> Iterator[str]:
    """Measure each app in a separate process, and yield the lines of the table."""
    yield f"{'app':<28}{'body, MB':>12}{'more, MB':>12}{'of the body':>14}  target"
    for name in ("bare", "secured"):
        print(f"memory of {name} ...", end="\r", file=sys.stderr)
        words = [sys.executable, "-m", "benchmarks.memory", name, str(folder)]
        size, more = map(int, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())
        asked = verdict(more / size, MOST if name == "secured" else None)
        yield f"{name + ' app':<28}{size / 1e6:>12.1f}{more / 1e6:>12.1f}{more / size:>14.2f}  {asked}".rstrip()


def _app(name: str, folder: Path) -> Contender:
    if name == "bare":
        return bare()
    signing_key(folder)
    app = secured(COLUMNS, folder, SECURE_ML_MAX_ELEMENTS=2_000_000)
    return Contender(name, app, api_key(app))


class _Upload:
    """A body that is read from a file, as a server reads it from a socket."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.read = self._file.read
        self.readline = self._file.readline


def _measure(name: str, folder: Path) -> tuple[int, int]:
    """Return the size of the body, and the peak memory of responding beyond that of the idle process, in bytes."""
    app = _app(name, folder)
    path = folder / "body.json"
    if not path.exists():
        path.write_bytes(as_json(numbers(ROWS, COLUMNS)))
    _call(app, folder / "small.json")
    before = _resident("VmRSS")
    # Linux resets the peak to the current resident size.
    Path("/proc/self/clear_refs").write_text("5")
    _call(app, path)
    return path.stat().st_size, _resident("VmHWM") - before


def _call(app: Contender, path: Path) -> None:
    if not path.exists():
        path.write_bytes(as_json(numbers(1, COLUMNS)))
    environ = {"wsgi.input": _Upload(path), "CONTENT_LENGTH": str(path.stat().st_size)}
    response = app.app.test_client().post(
        "/predict", "https://localhost", content_type="application/json", headers=app.headers, environ_overrides=environ
    )
    if response.status_code != 200:  # noqa: PLR2004  the only response that is compared
        raise RuntimeError(f"{app.name} answers {response.status_code}")


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(*_measure(sys.argv[1], Path(sys.argv[2])))
