"""The README, followed to the first prediction: its commands in a shell, as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from programs import needs
from servers import PATIENCE, free_port

README = (Path(__file__).parents[2] / "README.rst").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.partition(f"{title}\n{'-' * len(title)}\n")[2].partition("\nDocumentation\n")[0]


def commands(console: str) -> str:
    """Return the commands of a console block: the lines after a prompt, and those that they continue on."""
    return "\n".join(re.findall(r"^   \$ ((?:.*\\\n)*.*)$", console, re.MULTILINE))


@needs("curl")
def test_the_first_prediction(tmp_path: Path) -> None:
    """From the app to the response that the README shows."""
    text = section("Secure an app")
    code = text.partition(":class: complete\n\n")[2].partition("\nCreate a key")[0]
    (tmp_path / "app.py").write_text(textwrap.dedent(code), encoding="utf-8")
    _, _, rest = text.partition("Create a key")
    start, _, call = rest.partition("In the same shell")
    port = str(free_port())
    # Not the function: its process would outlive the shell that runs it.
    run = f'"{sys.executable}" -m flask run --port {port} --cert adhoc >server.log 2>&1 &'
    script = [
        "set -e",
        f'flask() {{ "{sys.executable}" -m flask "$@"; }}',
        f'python() {{ "{sys.executable}" "$@"; }}',
        commands(start).replace("flask run --cert adhoc", run),
        "trap 'kill %1' EXIT",
        f"for _ in $(seq {PATIENCE * 10:.0f}); do grep -q Running server.log && break; sleep 0.1; done",
        commands(call).replace(":5000/", f":{port}/"),
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    shown = re.search(r"^   (\{.*\})$", call, re.MULTILINE)
    assert shown is not None
    assert done.stdout.splitlines()[-1] == shown[1], done.stderr
