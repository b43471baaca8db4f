"""The URL checks against a service that repeats, invents and would carry out whatever it is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner

from flask_secure_ml.checks.url.client import Client
from flask_secure_ml.cli import secure_ml
from http_servers import QuietHandler, in_thread

KEY = "sml_01234567890123456789_repeated"
DESCRIPTION = {
    "paths": {
        "/items": {"get": {}, "post": {}},
        "/\x1b]0;owned\x07\n::error::x": {"get": {"security": []}},
        f"/{KEY}": {"get": {"security": []}},
    }
}


class Hostile(QuietHandler):
    """Repeats the credential and control characters in its responses."""

    server: Any

    def handle_any(self) -> None:
        given = self.headers.get("X-API-Key")
        self.server.received.append((self.command, self.path, given is not None))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_description = self.path == "/openapi.json"
        body = json.dumps(self.server.description if is_description else {}).encode()
        self.send_response(200 if is_description or self.server.open else 404 if given else 401)
        self.send_header("X-Error-Code", f"\x1b[2J{given or KEY}[fix](https://evil.example)" + "x" * 10_000)
        if not self.server.open:
            self.send_header("X-Request-ID", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)


@pytest.fixture
def hostile() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.received = []
    # Whether it responds to everything with 200.
    server.open = False
    server.description = DESCRIPTION
    with in_thread(server):
        yield server


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_what_is_printed(hostile: Any, form: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Neither the credential nor anything that a terminal or CI obeys, and no page of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEY", KEY)
    url = f"http://127.0.0.1:{hostile.server_port}"
    words = ["check", "--url", url, "--credential", "env:KEY", "--sarif", "found.sarif", *form]
    result = CliRunner().invoke(secure_ml, words)
    assert result.exit_code == 1
    for printed in (result.output, (tmp_path / "found.sarif").read_text()):
        assert "[credential]" in printed
        assert KEY not in printed
        assert "x" * 600 not in printed
        assert "evil.example" in printed
        assert not {"\x1b", "\x07"} & set(printed)
    assert not any(line.startswith("::") for line in result.output.splitlines())
    # Viewers would render this as a link.
    assert "](" not in (tmp_path / "found.sarif").read_text()


def test_what_was_not_checked(hostile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Routes that are too many to be requested are not passed over in silence."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEY", KEY)
    paths: dict[str, Any] = {f"/r{number}": {"get": {}} for number in range(32)} | {"/r": {"delete": {}}}
    monkeypatch.setattr(hostile, "description", {"paths": paths})
    words = ["check", "--url", f"http://127.0.0.1:{hostile.server_port}", "--credential", "env:KEY"]
    result = CliRunner().invoke(secure_ml, words)
    assert "private routes that were not requested without a credential: 3" in result.output
    assert "private routes with GET that were not requested: 27" in result.output
    assert "public routes" not in result.output
    assert ("DELETE", "/r") not in {(method, path) for method, path, _ in hostile.received}


def test_what_is_sent(hostile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The service may take methods that its description does not have; none is sent that deletes without a body."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEY", KEY)
    CliRunner().invoke(
        secure_ml, ["check", "--url", f"http://127.0.0.1:{hostile.server_port}", "--credential", "env:KEY"]
    )
    sent = {(method, authenticated) for method, _, authenticated in hostile.received}
    assert ("PATCH", True) in sent
    assert ("DELETE", True) not in sent


STRANGE: list[tuple[str, Any]] = [
    ("no slash", {"paths": {"[": {"get": {}}, "@evil.example/x": {"get": {"security": []}}}}),
    ("not ASCII", {"paths": {"/\u00e4 \ud800\u202e": {"get": {"security": []}}, "/a b": {"get": {"security": []}}}}),
    ("a quarter of a megabyte", {"paths": {"/" + "x" * 250_000: {"get": {"security": []}}}}),
    ("line breaks", {"paths": {"/a\r\nX-API-Key: b": {"get": {"security": []}}}}),
    ("no object", []),
    ("no objects", {"paths": {"/a": {"get": 1}, "/b": [], "/c": {"get": {"security": 1, "requestBody": 2}}}}),
    ("twenty thousand paths", {"paths": {f"/{number}": {"get": {}} for number in range(20_000)}}),
]


@pytest.mark.parametrize("description", [each for _, each in STRANGE], ids=[name for name, _ in STRANGE])
def test_strange_descriptions(hostile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, description: Any) -> None:
    """The report is complete, and its URLs are valid, so that code scanning accepts it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEY", KEY)
    monkeypatch.setattr(hostile, "description", description)
    monkeypatch.setattr(hostile, "open", True)
    url = f"http://127.0.0.1:{hostile.server_port}"
    words = ["check", "--url", url, "--credential", "env:KEY", "--sarif", "found.sarif"]
    result = CliRunner().invoke(secure_ml, words)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    found = json.loads((tmp_path / "found.sarif").read_text())["runs"][0]["results"]
    assert found
    for each in found:
        uri = each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,600}", uri), uri
    assert all(line.isprintable() for line in result.output.splitlines())


def test_a_rule_that_is_not_ascii(hostile: Any) -> None:
    """It is percent-encoded, so its route is checked like others."""
    client = Client(f"http://127.0.0.1:{hostile.server_port}")
    assert client.send("GET", "/mod\u00e8le x/100%").status == 401
