"""Run the long proofs: ``python .ci/prove.py`` runs all of them, or those whose names are given."""

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
    """The arguments of a Python command, and a description of what it tests."""

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
        "the fast path for bodies, compared with loading by the schema",
        (*PYTEST, "tests/inputs/test_fast_accept.py", "tests/inputs/test_fast_plans.py"),
        {"MUTANTS": os.environ.get("MUTANTS", "200000")},
    ),
    "clients": Proof(
        "early responses, for every client, worker, framing and size",
        (*PYTEST, "tests/servers/test_early_responses.py"),
        {"EVERY_CLIENT": "1"},
    ),
    "slow-clients": Proof(
        "honest clients alongside slow ones, and alongside sixty of each kind at the demo",
        (
            *(*PYTEST, "-s"),
            "tests/example_app/test_slow_clients.py",
            "tests/servers/test_slow_clients.py",
            "tests/servers/test_payloads.py",
        ),
        {"SLOW_SECONDS": "15"},
    ),
    "tls": Proof(
        "TLS according to sslyze and testssl.sh, and handshakes with each version, cipher suite and group",
        (*PYTEST, "-s", "tests/servers/test_tls_scanners.py", "tests/deploy/test_gunicorn_tls.py"),
        {"TLS_SCANNERS": "1"},
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
    "full-disk": Proof(
        "both logs on a disk of 3 MB that fills under load, and records and lines that cannot be written",
        (
            *PYTEST,
            "tests/servers/test_full_disk.py",
            "tests/observe/audit/test_failures.py",
            "tests/observe/test_log_streams.py",
        ),
        {"EVERY_WORKER": "1"},
    ),
    "limits": Proof(
        "limits and usage, exact between processes, workers and nodes, with every strategy",
        (*PYTEST, "tests/limits", "tests/servers/test_limits.py"),
        {"FUZZ_EXAMPLES": "10000", "MANY_REQUESTS": "25", "EVERY_STRATEGY": "1"},
    ),
    "image": Proof(
        "the generated image of the example, built, inspected and run (needs root, buildah and debootstrap)",
        (*PYTEST, "-s", "tests/deploy/test_image.py"),
        {"BUILD_IMAGE": "1"},
    ),
    "deploy": Proof(
        "the generated files with every tool that reads them, and real proxies with each option",
        (".ci/deploy_tools.py",),
    ),
    "matrix": Proof("the other combinations of Python and Flask", ("-m", "tox", "run", "-m", "matrix")),
    "sdist": Proof("documentation and tests of the sdist, with the wheel built from it", (".ci/sdist.py",)),
    "benchmarks": Proof("every table, against the bare app, a hand-assembled stack and FastAPI", ("-m", "benchmarks")),
}


def main(names: list[str]) -> int:
    """Run the proofs with these names, or all; return 1 if one fails."""
    if unknown := set(names) - PROOFS.keys():
        print(f"unknown proof {min(unknown)!r}; choose from {', '.join(PROOFS)}", file=sys.stderr)
        return 2
    results = {name: run(name, PROOFS[name]) for name in names or PROOFS}
    print("\nproof          result     seconds")
    for name, (status, seconds) in results.items():
        print(f"{name:<14} {'FAILED' if status else 'ok':<10} {seconds:>7.0f}")
    return int(any(status for status, _ in results.values()))


def run(name: str, proof: Proof) -> tuple[int, float]:
    """Run one proof; return its exit status and its duration in seconds."""
    print(f"\n=== {name}: {proof.title}", flush=True)
    started = time.monotonic()
    # "make prove" sets FUZZ_EXAMPLES, which is meant for the proof "fuzz" only.
    environ = os.environ | FEW | proof.environ
    done = subprocess.run([sys.executable, *proof.arguments], cwd=ROOT, env=environ, check=False)
    return done.returncode, time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
