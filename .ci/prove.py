"""Run the long proofs in full, each by name: ``python .ci/prove.py``, or with the names of some of them."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FEW = {"FUZZ_EXAMPLES": "25"}
PYTEST = ("-m", "pytest", "-q")


class Proof(NamedTuple):
    """A command of Python and what it proves."""

    title: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str] = {}


PROOFS: Mapping[str, Proof] = {
    "fuzz": Proof(
        "random inputs for every property",
        (*PYTEST, "-m", "hypothesis", "tests"),
        {"FUZZ_EXAMPLES": os.environ.get("FUZZ_EXAMPLES", "25000")},
    ),
    "mutants": Proof(
        "what the shortcut for bodies accepts, against what the schema loads",
        (*PYTEST, "tests/inputs/test_fast_accept.py", "tests/inputs/test_fast_plans.py"),
        {"MUTANTS": os.environ.get("MUTANTS", "200000")},
    ),
    "clients": Proof(
        "early responses, for every client, worker, framing and size",
        (*PYTEST, "tests/servers/test_early_responses.py"),
        {"EVERY_CLIENT": "1"},
    ),
    "slow-clients": Proof(
        "honest clients beside slow ones",
        (*PYTEST, "tests/servers/test_slow_clients.py", "tests/servers/test_payloads.py"),
    ),
    "outages": Proof(
        "stores that fail, hang or are killed, and workers that are killed",
        (
            *PYTEST,
            "tests/stores",
            "tests/servers/test_valkey.py",
            "tests/servers/test_shared_state.py",
            "tests/servers/test_gevent.py",
            "tests/refresh",
        ),
    ),
    "audit": Proof(
        "an audit log whose workers are killed for a minute under load",
        (*PYTEST, "-s", "tests/servers/test_audit.py"),
        {"AUDIT_KILL_SECONDS": "60"},
    ),
    "limits": Proof(
        "limits and usage, exact between processes, workers and nodes, with every strategy",
        (*PYTEST, "tests/limits", "tests/servers/test_limits.py"),
        {"FUZZ_EXAMPLES": "10000", "MANY_REQUESTS": "25", "EVERY_STRATEGY": "1"},
    ),
    "matrix": Proof("the other pairs of Python and Flask", ("-m", "tox", "run", "-m", "matrix")),
    "sdist": Proof("documentation and tests from the sdist, on the wheel that it makes", (".ci/sdist.py",)),
    "benchmarks": Proof("every table, against the bare app, a hand-assembled stack and FastAPI", ("-m", "benchmarks")),
}


def main(names: list[str]) -> int:
    """Run the proofs of these names, or all; return 1 if one fails."""
    if unknown := set(names) - PROOFS.keys():
        print(f"there is no proof {min(unknown)!r}; there are: {', '.join(PROOFS)}", file=sys.stderr)
        return 2
    results = {name: run(name, PROOFS[name]) for name in names or PROOFS}
    print("\nproof          result     seconds")
    for name, (status, seconds) in results.items():
        print(f"{name:<14} {'FAILED' if status else 'ok':<10} {seconds:>7.0f}")
    return int(any(status for status, _ in results.values()))


def run(name: str, proof: Proof) -> tuple[int, float]:
    """Run one proof; return its status and how many seconds it took."""
    print(f"\n=== {name}: {proof.title}", flush=True)
    started = time.monotonic()
    # "make prove" sets FUZZ_EXAMPLES, which is for the proof of that name; the others would try as many.
    environ = os.environ | FEW | proof.environ
    done = subprocess.run([sys.executable, *proof.arguments], cwd=ROOT, env=environ, check=False)
    return done.returncode, time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
