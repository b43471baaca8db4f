"""The demo as a child process, started like a user starts it."""

from __future__ import annotations

import os
import shlex
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

from servers import free_port

PATIENCE = 90.0
OWN = {"DEMO_STATE", "HOST", "PORT"}


@dataclass
class Demo:
    """A running demo: its output, and the command that it printed."""

    process: subprocess.Popen[str]
    said: list[str]
    log: Path

    @property
    def curl(self) -> list[str]:
        return shlex.split(next(line for line in self.said if line.startswith("curl ")))

    @property
    def port(self) -> int:
        return int(self.curl[-1].split(":")[2].split("/")[0])

    @property
    def authority(self) -> Path:
        return Path(self.curl[self.curl.index("--cacert") + 1])

    @property
    def headers(self) -> dict[str, str]:
        return dict(word.split(": ", 1) for flag, word in zip(self.curl, self.curl[1:], strict=False) if flag == "-H")

    def stop(self, number: int) -> int:
        """Send a signal, as a terminal or a service manager does, and return the exit status."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=PATIENCE)
        self.said += rest.splitlines()
        return self.process.returncode


def demo_environ(**changes: str) -> dict[str, str]:
    """Return the environment without variables that would change the demo."""
    kept = {name: value for name, value in os.environ.items() if name not in OWN and not name.startswith("FLASK_")}
    return {**kept, **changes}


def output_of(process: subprocess.Popen[str]) -> list[str]:
    """Return the output of a demo up to its last line, or to its end; it is killed if that takes too long."""
    lines: list[str] = []
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        for line in process.stdout or ():
            lines.append(line.rstrip("\n"))
            if line.startswith("The request log"):
                break
    finally:
        watchdog.cancel()
    return lines


@contextmanager
def started(state: Path, **changes: str) -> Iterator[Demo]:
    """Run the demo with its state in a directory, on a free port."""
    log = state.with_name(state.name + ".log")
    environ = demo_environ(DEMO_STATE=str(state), PORT=str(free_port()), **changes)
    command = [sys.executable, "-m", "example_app.demo"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield Demo(process, output_of(process), log)
        finally:
            process.terminate()


def client_context(demo: Demo, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(demo.authority))
    context.minimum_version = minimum
    return context


def get(demo: Demo, path: str, headers: dict[str, str], minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> int:
    connection = HTTPSConnection("127.0.0.1", demo.port, timeout=10, context=client_context(demo, minimum))
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()
