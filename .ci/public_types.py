"""Measure the share of public names whose type pyright knows; the package must not be an editable install."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "flask_secure_ml"
LEAST = 0.98


def main() -> int:
    """Print the share and the names that lack a type; return 1 if the share is too small."""
    with tempfile.TemporaryDirectory() as elsewhere:
        # In another directory, because pyright prefers packages in the current one, and with this Python first in PATH.
        done = subprocess.run(
            [sys.executable, "-m", "pyright", "--verifytypes", PACKAGE, "--ignoreexternal", "--outputjson"],
            cwd=elsewhere,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
    report = json.loads(done.stdout)["typeCompleteness"]
    share = report["completenessScore"]
    if share < LEAST:
        print("\n".join(untyped(report)))
    print(f"{share:.1%} of the public names have a type (target: at least {LEAST:.0%})")
    return int(share < LEAST)


def untyped(report: dict[str, list[dict[str, object]]]) -> list[str]:
    """Return a line for each public name without a known type."""
    return [
        str(symbol["name"])
        for symbol in report["symbols"]
        if symbol["isExported"] and (symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"])
    ]


if __name__ == "__main__":
    sys.exit(main())
