"""The MDN HTTP Observatory scans each proxy with its generated files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from every_proxy_program import PROGRAMS
from httpd import open_folder
from programs import every_proxy, needs_tool, program
from proxied import Program, Proxied, proxied
from servers import free_port


def scan(found: Proxied, clear_port: int, path: str = "/") -> tuple[str, dict[str, str]]:
    """Return the grade, and the result of each test that did not pass."""
    command = [str(program("observatory")), str(found.served.port), str(clear_port), path]
    environ = os.environ | {"NODE_EXTRA_CA_CERTS": str(found.place.trusted)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    scanned: dict[str, Any] = json.loads(done.stdout)
    assert len(scanned["results"]) == 10
    return scanned["grade"], {name: result for name, (passed, result) in scanned["results"].items() if not passed}


@every_proxy
@needs_tool("observatory")
@pytest.mark.parametrize("kind", PROGRAMS)
def test_grade(kind: Program) -> None:
    """A+; where the port for clear text is open, the only complaint is that it does not redirect (ASVS 4.1.2)."""
    with open_folder() as folder, proxied(Path(folder), kind) as found:
        for path in ("/", "/healthz"):
            assert scan(found, free_port(), path) == ("A+", {})
        assert scan(found, found.clear_port) == ("B+", {"redirection": "redirection-missing"})
