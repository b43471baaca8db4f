"""The demo with OAuth2, started as a user starts it, and every command run as it was printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from auth_server import AuthServer
from demo_process import PATIENCE, output_of
from example_app.auth_setup import Config
from example_app.demo import Api, payload
from example_app.demo_oauth import commands, oauth_settings
from example_app.server import Address
from flask_secure_ml.config import Settings
from plain_http import Answer
from programs import needs
from servers import accepts, free_port, started

OWN = {"DEMO_STATE", "HOST", "PORT", "AUTH_PORT", "RESOURCE"}
ELSEWHERE = "https://elsewhere.test"
MARK = "-- next --"
TUTORIAL = Path(__file__).parents[2] / "docs/tutorial/oauth.rst"
FLOWER = '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'


@dataclass
class Demo:
    """A running demo: its output, and its servers."""

    process: subprocess.Popen[str]
    said: list[str]
    state: Path
    log: Path
    port: int
    auth_port: int
    third_port: int

    @property
    def commands(self) -> list[str]:
        return [line for line in self.said if line.startswith(("curl ", "TOKEN=", "OPAQUE="))]

    @property
    def auth(self) -> AuthServer:
        """The authorization server, with the secrets from the commands."""
        words = [shlex.split(line.partition("$(")[2] or line) for line in self.commands]
        pairs = (each[each.index("-u") + 1].split(":") for each in words if "-u" in each)
        url = f"https://127.0.0.1:{self.auth_port}"
        return AuthServer(url, self.state / "ca.pem", self.state, dict(pairs), self.log)

    def ask(self, token: str, body: str | None = None, port: int | None = None) -> Answer:
        """Ask an API for a prediction, the demo's own unless another port is given."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        return self.call("POST", "/v1/predict", payload() if body is None else body, headers, port or self.port)

    def call(self, method: str, path: str, body: str, headers: dict[str, str], port: int) -> Answer:
        """Send one request."""
        context = ssl.create_default_context(cafile=str(self.state / "ca.pem"))
        connection = HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def stop(self, number: int) -> int:
        """Send a signal as a terminal or a service manager does, and return the exit status."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=PATIENCE)
        self.said += rest.splitlines()
        return self.process.returncode


def _environ(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OWN and not name.startswith("FLASK_")}
    return {**kept, **changes}


@contextmanager
def _started(state: Path) -> Iterator[Demo]:
    log, port, auth_port, third = state.with_name(state.name + ".log"), free_port(), free_port(), free_port()
    resources = f"{ELSEWHERE} https://127.0.0.1:{third}"
    environ = _environ(DEMO_STATE=str(state), PORT=str(port), AUTH_PORT=str(auth_port), RESOURCE=resources)
    command = [sys.executable, "-m", "example_app.demo_oauth"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield Demo(process, output_of(process), state, log, port, auth_port, third)
        finally:
            process.terminate()


def _rejected(**changes: str) -> str:
    """Start a demo that cannot serve, and return its only line."""
    command = [sys.executable, "-m", "example_app.demo_oauth"]
    ended = subprocess.run(
        command, env=_environ(**changes), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr


def _copied(state: Path, folder: Path) -> Path:
    """Return a copy of the state, in which the model is trained already."""
    copied: Path = shutil.copytree(state, folder / "state")
    return copied


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with _started(tmp_path_factory.mktemp("demo oauth") / "state") as running:
        assert running.process.poll() is None, running.log.read_text()
        yield running


@needs("curl")
def test_printed_commands(demo: Demo) -> None:
    """Pasted one after another into a shell, the lines predict with both kinds of tokens, and revoke one."""
    script = f"\necho; echo '{MARK}'\n".join(demo.commands)
    shell = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, check=True, timeout=60)
    responses: list[Any] = [text and json.loads(text) for text in map(str.strip, shell.stdout.split(MARK))]
    assert [response and response.get("predictions") for response in responses] == ["", [3], "", [3], {}, None, [3]]
    assert responses[5]["status"] == 401


def test_says_what_it_does(demo: Demo) -> None:
    """Each step has its line."""
    said = "\n".join(demo.said)
    for words in ("development certificate", "new API key", "new secrets", "Ctrl-C", "five minutes", "with 401"):
        assert words in said


@pytest.mark.parametrize("client", ["demo", "demo-opaque"])
def test_token_opens_the_api(demo: Demo, client: str) -> None:
    """A token of either kind with the scope gets a prediction."""
    assert demo.ask(demo.auth.token(client, scope="predict")).status == 200


@pytest.mark.parametrize("client", ["demo", "demo-opaque"])
def test_token_without_the_scope(demo: Demo, client: str) -> None:
    """A token with another scope is good, but not for predictions."""
    response = demo.ask(demo.auth.token(client, scope="metrics"))
    assert response.status == 403
    assert "insufficient_scope" in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize("client", ["demo", "demo-opaque"])
def test_token_for_another_api(demo: Demo, client: str) -> None:
    """A token for another API of the same authorization server is rejected (RFC 9068 section 4, RFC 7662 section 4)."""
    assert demo.ask(demo.auth.token(client, scope="predict", resource=ELSEWHERE)).status == 401


def test_token_of_nobody(demo: Demo) -> None:
    """An invented token gets the same response as none, and the challenge names the authorization server."""
    response = demo.ask("invented")
    assert response.status == 401
    assert f"https://127.0.0.1:{demo.port}/.well-known/oauth-protected-resource" in response.headers["WWW-Authenticate"]


def test_revoked_token(demo: Demo) -> None:
    """The API asks about an opaque token every time, so it hears of a revocation at once."""
    token = demo.auth.token("demo-opaque", scope="predict")
    assert demo.ask(token).status == 200
    assert demo.auth.revoke(token, "demo-opaque") == 200
    assert demo.ask(token).status == 401


def test_metadata(demo: Demo) -> None:
    """RFC 9728: the API publishes the authorization server that it trusts."""
    response = demo.call("GET", "/.well-known/oauth-protected-resource", "", {}, demo.port)
    assert response.json["authorization_servers"] == [demo.auth.issuer]


def test_secrets_are_private(demo: Demo) -> None:
    """Only the owner can read the state; it does not contain the secrets of the callers."""
    assert demo.state.stat().st_mode & 0o777 == 0o700
    for name in ("auth_clients.json", "auth_keys.json", "auth_tokens.db", "introspection_secret", "server.key"):
        assert (demo.state / name).stat().st_mode & 0o777 == 0o600
    for secret in demo.auth.secrets.values():
        assert not any(secret.encode() in path.read_bytes() for path in demo.state.rglob("*") if path.is_file())
        assert secret not in demo.log.read_text()


def test_busy_port(demo: Demo, tmp_path: Path) -> None:
    """A port that is taken is one line, before anything is made."""
    state, free = tmp_path / "state", str(free_port())
    line = f"demo: port {demo.auth_port} is in use; choose another: make demo-oauth AUTH_PORT={demo.auth_port + 1}\n"
    assert _rejected(DEMO_STATE=str(state), PORT=free, AUTH_PORT=str(demo.auth_port)) == line
    line = f"demo: port {demo.port} is in use; choose another: make demo-oauth PORT={demo.port + 1}\n"
    assert _rejected(DEMO_STATE=str(state), PORT=str(demo.port), AUTH_PORT=free) == line
    assert not state.exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        pytest.param(
            {"PORT": "18443", "AUTH_PORT": "18443"},
            "PORT and AUTH_PORT are both 18443; choose another for one of them",
            id="the-same-twice",
        ),
        pytest.param({"AUTH_PORT": "x"}, "AUTH_PORT must be a number from 1 to 65535, not 'x'", id="no-number"),
    ],
)
def test_wrong_ports(changes: dict[str, str], line: str) -> None:
    """Ports that cannot work are one line."""
    assert _rejected(**changes) == f"demo: {line}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(demo: Demo, tmp_path: Path, number: signal.Signals) -> None:
    """A signal ends both servers; no process stays, both ports are free, and the next start has new secrets."""
    with _started(_copied(demo.state, tmp_path)) as again:
        children = _children(again.process.pid)
        assert not set(again.auth.secrets.values()) & set(demo.auth.secrets.values())
        assert again.stop(number) == 0
    assert again.said[-1] == "Stopped."
    assert "Traceback" not in again.log.read_text()
    assert len(children) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    for port in (again.port, again.auth_port):
        Address("127.0.0.1", port).check_free()


@pytest.mark.parametrize("which", [0, 1], ids=["authorization-server", "api"])
def test_one_server_ends(demo: Demo, tmp_path: Path, which: int) -> None:
    """If one of the two servers ends by itself, the demo stops the other and reports it."""
    with _started(_copied(demo.state, tmp_path)) as broken:
        os.kill(_children(broken.process.pid)[which], signal.SIGTERM)
        assert broken.process.wait(PATIENCE) == 1
    assert "demo: gunicorn ended with status 0" in broken.log.read_text()
    for port in (broken.port, broken.auth_port):
        Address("127.0.0.1", port).check_free()


def test_damaged_state(tmp_path: Path) -> None:
    """The message names the unreadable signing key, with a remedy."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "auth_keys.json").write_text("{")
    with _started(state) as broken:
        assert broken.process.wait(PATIENCE) == 1
    assert "auth_keys.json is not a file of signing keys; delete it" in broken.log.read_text()


def test_settings_are_those_of_the_package(tmp_path: Path) -> None:
    """The settings that the demo passes to the API pass the package's own checks."""
    api = Api(tmp_path, tmp_path / "ca.pem", "key", {}, {})
    told = oauth_settings(api, Config("https://127.0.0.1:9443", ("https://127.0.0.1:8443",), tmp_path), "ab" * 32)
    assert told.pop("SSL_CERT_FILE") == str(tmp_path / "ca.pem")
    config: dict[str, Any] = {name.removeprefix("FLASK_"): value for name, value in told.items()}
    for name in ("TOKEN_ISSUERS", "INTROSPECTION_CACHE_SECONDS", "CHECK_IGNORE"):
        config[f"SECURE_ML_{name}"] = json.loads(config[f"SECURE_ML_{name}"])
    settings = Settings.load(config)
    assert settings.introspection_cache_seconds == 0
    assert settings.resource_uri == settings.token_issuers[0].audience == "https://127.0.0.1:8443"
    assert settings.token_issuers[0].key_sources == ("discover",)


def test_commands_survive_the_shell(tmp_path: Path) -> None:
    """A path with blanks and quotes, and a proxy in the environment, do not break the printed commands."""
    state = tmp_path / 'it\'s a "state"'
    state.mkdir()
    config = Config("https://127.0.0.1:9443", ("https://127.0.0.1:8443",), state)
    api = Api(state, state / "ca.pem", "key", {}, {})
    lines = commands(api, config, {"demo": "a", "demo-opaque": "b"}, {"HTTPS_PROXY": "http://proxy"})
    stub = tmp_path / "curl"
    stub.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\n')
    stub.chmod(0o700)
    script = "TOKEN=t OPAQUE=o; " + lines[1][1]
    shell = subprocess.run(
        ["sh", "-eu"], input=script, capture_output=True, text=True, check=True, env={"PATH": f"{tmp_path}:/bin"}
    )
    words = shell.stdout.splitlines()
    assert words[:4] == ["--cacert", str(state / "ca.pem"), "--noproxy", "*"]
    assert f"@{state / 'three.json'}" in words
    assert "Authorization: Bearer t" in words


@pytest.fixture
def iris(demo: Demo, tmp_path: Path) -> Iterator[str]:
    """Serve the app of the tutorial as described, on free ports, and return its log."""
    # The block ends at the first line that is not indented.
    lines = re.split(r"\n(?=\S)", TUTORIAL.read_text().partition(":class: complete\n\n")[2])[0]
    ports = {"7443": str(demo.third_port), "9443": str(demo.auth_port)}
    code = textwrap.dedent(lines).replace("127.0.0.1:7443", f"127.0.0.1:{ports['7443']}")
    (tmp_path / "app.py").write_text(code.replace("127.0.0.1:9443", f"127.0.0.1:{ports['9443']}"))
    files = ["--certfile", str(demo.state / "server.pem"), "--keyfile", str(demo.state / "server.key")]
    command = [sys.executable, "-m", "gunicorn", "--chdir", str(tmp_path), "--bind", f"127.0.0.1:{demo.third_port}"]
    log = tmp_path / "log"
    command += [*files, "--no-control-socket", "app:create_app()"]
    environ = _environ(SSL_CERT_FILE=str(demo.state / "ca.pem"))
    with started(command, partial(accepts, demo.third_port), log, env=environ):
        yield str(log)


def test_tutorial(demo: Demo, iris: str) -> None:
    """The app of the tutorial accepts its own tokens, rejects those for the other API, and logs the reason."""
    other = demo.ask(demo.auth.token(scope="predict"), FLOWER, demo.third_port)
    assert other.status == 401
    assert "the token is for another audience" in Path(iris).read_text()
    resource = f"https://127.0.0.1:{demo.third_port}"
    own = demo.ask(demo.auth.token(scope="predict", resource=resource), FLOWER, demo.third_port)
    assert own.json == {"asked_by": "demo", "predictions": ["setosa"]}
    assert own.body.decode().strip() in TUTORIAL.read_text()
    assert demo.ask(demo.auth.token(scope="metrics", resource=resource), FLOWER, demo.third_port).status == 403
