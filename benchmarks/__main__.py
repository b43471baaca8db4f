"""Print the table: microseconds of each app and its ratio to the bare one, in one run."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .apps import contenders
from .authentication import report
from .timing import body, measure

SHAPES = ((1, 4), (100, 20), (1000, 100))


def main() -> None:
    """Measure every shape, then what authentication costs by itself."""
    print(f"{'batch':>10}  {'app':<26}{'microseconds':>14}{'over bare':>12}{'ratio':>8}")
    for rows, columns in SHAPES:
        print(f"measuring {rows}x{columns} ...", end="\r", file=sys.stderr)
        _print_rows(rows, columns)
    print("\nauthentication by itself:")
    with tempfile.TemporaryDirectory() as folder:
        for line in report(Path(folder)):
            print(line)


def _print_rows(rows: int, columns: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        apps = contenders(columns, Path(folder))
        times = measure(apps, body(rows, columns))
    for app, microseconds in zip(apps, times, strict=True):
        label = f"{rows}x{columns}" if app is apps[0] else ""
        over, ratio = microseconds - times[0], microseconds / times[0]
        print(f"{label:>10}  {app.name:<26}{microseconds:>14,.0f}{over:>+12,.0f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
