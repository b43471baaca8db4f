"""The incident page, step by step: a real server is attacked, and each command prints the documented output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from alert_receiver import Receiver, receiving
from doc_blocks import HOWTO
from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.authentication.api_keys.key import checksum
from flask_secure_ml.observe.audit.keys import make_keys
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from servers import Served, gunicorn
from stored_keys import stored_key
from support import OLDER_SECRET, RANDOM_SECRET

PAGE = HOWTO / "incident.rst"
AUDIT = "/var/lib/model/audit"
CLIENTS = {
    "nightly batch": "default",
    "crawler": "default",
    "reports": "default",
    "mobile app": "few",
    "dashboard": "default",
}
ATTACKER, SCRAPER, OFFICE = "203.0.113.7", "198.51.100.23", "192.0.2.10"
PATHS = (
    "/.env",
    "/wp-login.php",
    "/admin",
    "/.git/config",
    "/phpinfo.php",
    "/backup.zip",
    "/actuator",
    "/server-status",
)
# What differs from run to run: bound to the value of the page where it is used again.
VARYING = re.compile(
    r"(?P<id>\b[0-9a-f]{32}\b)|(?P<time>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00))"
    r"|(?P<key>(?<=api_key:)\w{12}|(?<=keys )\w+ \w{12}\b)|(?P<number>\b[\d.]+(?= ms\b))|(?P<word>\b\w{12}\b)"
)


@dataclass(frozen=True)
class Step:
    """A command of the page, and the lines that it shows of its output."""

    command: str
    output: list[str]


def steps() -> Iterator[Step]:
    """Yield the commands of the page, in order."""
    for block in re.findall(r"^\.\. code-block:: console\n\n((?:   .*\n|\n)+)", PAGE.read_text(), re.MULTILINE):
        lines = [line[3:] for line in block.splitlines() if line]
        command: str | None = None
        output: list[str] = []
        for line in lines:
            if line.startswith("$ "):
                if command is not None:
                    yield Step(command, output)
                command, output = line[2:], []
            else:
                output.append(line)
        if command is not None:
            yield Step(command, output)


class Site:
    """The server, its keys, and their names on the page."""

    def __init__(self, served: Served, keys: dict[str, str], environ: dict[str, str]) -> None:
        self.served = served
        self.keys = keys
        self.environ = environ
        self.names: dict[str, str] = {}

    def call(self, path: str, key: str | None, address: str = OFFICE) -> int:
        """Send a request by the trusted proxy on this machine."""
        connection = HTTPConnection("127.0.0.1", self.served.port, timeout=10)
        headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"} | ({"X-API-Key": key} if key else {})
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def run(self, command: str) -> str:
        """Run a command in a shell, with the names of this run for those of the page."""
        for shown, real in self.names.items():
            command = command.replace(shown, real)
        script = f'flask() {{ "{sys.executable}" -m flask --app served_app:create_app "$@"; }}\n{command}'
        shared = Path(__file__).parents[1] / "shared"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=shared,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def bind(self, shown: str, lines: list[str]) -> bool:
        """Return True if one of the lines is the one that the page shows, and learn its names."""
        parts, ends, groups = [], 0, list[str]()
        for found in VARYING.finditer(shown):
            parts.append(re.escape(shown[ends : found.start()]))
            text = found[0].split()[-1]
            if text in self.names:
                parts.append(re.escape(found[0].replace(text, self.names[text])))
            elif found.lastgroup in {"id", "key"}:
                parts.append(re.escape(found[0].removesuffix(text)) + r"(\w+)")
                groups.append(text)
            elif found.lastgroup == "word":
                parts.append(re.escape(text))
            else:
                parts.append(r"[\d.TZ:+-]+")
            ends = found.end()
        pattern = re.compile("".join([*parts, re.escape(shown[ends:])]))
        for line in lines:
            if matched := pattern.fullmatch(line):
                self.names.update(zip(groups, matched.groups(), strict=True))
                return True
        return False


@contextmanager
def attacked(folder: Path, receiver: Receiver) -> Iterator[Site]:
    """Serve, with honest callers and three attacks."""
    make_keys(folder / "audit", folder / "verification.key", "tests/incident")
    store, pepper = FileKeyStore(str(folder / "keys.json")), SecretRing(Secret("env:PEPPER"))
    keys = {name: stored_key(store, pepper, SystemClock(), client=name, plan=plan) for name, plan in CLIENTS.items()}
    chosen: dict[str, Any] = {
        "API_KEYS": str(folder / "keys.json"),
        "API_KEY_PEPPER": "env:PEPPER",
        "PLANS": {"default": {"requests": ["10000/hour"]}, "few": {"requests": ["20/hour"]}},
        "FAILED_AUTH_LIMITS": ["40/minute"],
        "TRUSTED_PROXIES": ["127.0.0.0/8"],
        "STORE_URI": f"sqlite:{folder / 'state.db'}",
        "REQUEST_LOG": str(folder / "request.log"),
        "AUDIT_LOG": str(folder / "audit"),
        "ANOMALIES": {"scanning": "event", "rejections": "event"},
        "ALERT_WEBHOOK": receiver.url,
        "ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET",
    }
    settings = {
        f"FLASK_SECURE_ML_{name}": each if isinstance(each, str) else json.dumps(each) for name, each in chosen.items()
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    environ = kept | settings | {"PEPPER": RANDOM_SECRET, "ALERT_SECRET": OLDER_SECRET}
    with gunicorn(folder, None, environ) as served:
        site = Site(served, keys, environ)
        site.names[AUDIT] = str(folder / "audit")
        assert {site.call("/whoami", keys["dashboard"]) for _ in range(10)} == {200}
        guesses = [f"sml_{number:012}_{'A' * 37}" for number in range(41)]
        statuses = [site.call("/whoami", guess + checksum(guess), ATTACKER) for guess in guesses]
        assert statuses == [401] * 40 + [429]
        # A key that leaked elsewhere is valid, so the block of the network does not hold for it.
        assert {site.call("/whoami", keys["nightly batch"], ATTACKER) for _ in range(3)} == {200}
        assert {site.call(path, keys["crawler"], SCRAPER) for path in (*PATHS, *(f"{path}.bak" for path in PATHS))} == {
            404
        }
        assert {site.call("/crash", keys["reports"]) for _ in range(25)} == {500}
        assert [site.call("/whoami", keys["mobile app"]) for _ in range(21)] == [200] * 20 + [429]
        yield site


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Receiver, list[tuple[Step, str]]]]:
    """Walk the page once."""
    with pytest.MonkeyPatch.context() as patch, receiving() as receiver:
        patch.setenv("PEPPER", RANDOM_SECRET)
        with attacked(tmp_path_factory.mktemp("incident"), receiver) as site:
            done = []
            for step in steps():
                printed = site.run(step.command)
                done.append((step, printed))
                for shown in step.output:
                    site.bind(shown, printed.splitlines())
            yield site, receiver, done


def test_each_command_prints_what_the_page_shows(walked: tuple[Site, Receiver, list[tuple[Step, str]]]) -> None:
    """Line by line, except for instants, ids and durations."""
    site, _, done = walked
    assert len(done) >= 10
    for step, printed in done:
        missing = [shown for shown in step.output if not site.bind(shown, printed.splitlines())]
        assert not missing, f"$ {step.command}\n{printed}"


def test_the_alerts_of_the_page(walked: tuple[Site, Receiver, list[tuple[Step, str]]]) -> None:
    """The sentences that it quotes were posted."""
    _, receiver, _ = walked
    quoted = re.findall(r"^   \| (.*)$", PAGE.read_text(), re.MULTILINE)
    assert quoted
    posted = {re.sub(r"api_key:\w+", "api_key:ID", each["summary"]) for each in receiver.alerts}
    assert {re.sub(r"api_key:\w+", "api_key:ID", each) for each in quoted} <= posted


def test_the_incidents_are_over(walked: tuple[Site, Receiver, list[tuple[Step, str]]]) -> None:
    """The attackers are rejected, and legitimate callers are served."""
    site, _, _ = walked
    assert [site.call("/whoami", site.keys[name]) for name in ("nightly batch", "crawler", "reports")] == [401] * 3
    assert [site.call("/whoami", site.keys[name]) for name in ("mobile app", "dashboard")] == [200] * 2
