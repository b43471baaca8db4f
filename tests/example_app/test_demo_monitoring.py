"""The demo under attack with a real Prometheus, as run by ``make demo-monitoring``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from example_app.demo_monitoring import EXPECTED
from example_app.server import Address
from programs import needs
from servers import free_port

PATIENCE = 180
# Minutes are seconds there, so a busy machine can cause these. The last one waits longest: the attack may end before.
WHEN_BUSY = {"SecureMLDown", "SecureMLSlow", "SecureMLStoreDown", "SecureMLStoreUnstable", "SecureMLLimitNearlyUsed"}


def run(state: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run it once, to its end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    environ = kept | {"DEMO_STATE": str(state), "DEMO_ONCE": "1"} | changes
    command = [sys.executable, "-m", "example_app.demo_monitoring"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)


@needs("prometheus")
def test_the_attacks_raise_alerts(tmp_path: Path) -> None:
    """The expected ones fire, none about the app; legitimate requests succeed, and all processes end."""
    state, port, watch = tmp_path / "it's a state", free_port(), free_port()
    done = run(state, PORT=str(port), PROMETHEUS_PORT=str(watch))
    assert done.returncode == 0, done.stdout + done.stderr
    fired = re.findall(r"^ *\d+ s  (\w+): \S", done.stdout, re.MULTILINE)
    assert set(fired) - WHEN_BUSY == EXPECTED
    lines = [json.loads(line) for line in (state / "request.log").read_text().splitlines()]
    assert {line["status"] for line in lines if line["endpoint"] == "predict"} == {200}
    for each in (port, watch):
        Address("127.0.0.1", each).check_free()
    assert (state / "prometheus.key").stat().st_mode & 0o777 == 0o600


def test_without_prometheus(tmp_path: Path) -> None:
    """One line has the install command, before any file is created."""
    state = tmp_path / "state"
    done = run(state, PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "demo: Prometheus is not installed. On Debian and Ubuntu: sudo apt install prometheus\n"
    assert not state.exists()


@pytest.mark.parametrize("variable", ["PORT", "PROMETHEUS_PORT"])
def test_wrong_ports(tmp_path: Path, variable: str) -> None:
    """A port that cannot be used is one line."""
    program = tmp_path / "prometheus"
    program.symlink_to(shutil.which("true") or "/bin/true")
    done = run(tmp_path / "state", PATH=str(tmp_path), **{variable: "x"})
    assert done.stderr == f"demo: {variable} must be a number from 1 to 65535, not 'x'\n"
