"""The client of the URL checks: handling of responses and of invalid options."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_secure_ml.checks.url.client import Client, Reply
from flask_secure_ml.cli import secure_ml

OURS = (("X-Error-Code", "not_found"), ("X-Request-ID", "0123456789"), ("Content-Type", "application/problem+json"))


@pytest.mark.parametrize(
    ("headers", "body", "ours"),
    [
        (OURS, b'{"code": "not_found"}', True),
        (OURS, b'{"code": "other"}', False),
        (OURS[:2], b"<h1>of the app's own handler</h1>", True),
        (OURS[1:], b'{"code": "not_found"}', False),
        ((OURS[0], OURS[2]), b'{"code": "not_found"}', False),
        (OURS, b"[]", True),
        (OURS, b"{", True),
        (OURS, b"[" * 900_000, True),
    ],
)
def test_whose_it_is(headers: tuple[tuple[str, str], ...], body: bytes, ours: bool) -> None:
    """The headers identify a rejection; the document alone does not."""
    assert Reply(404, headers, body).is_ours("not_found") is ours


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ('"default";r=3;t=20', 3),
        ('"default";r=599;t=60, "route";r=4;t=3600', 4),
        ('"in-flight";r=0', 0),
        ("", None),
        ("nonsense", None),
        ('"default";r=-1', None),
        ('"default";r=' + "9" * 6_000, None),
    ],
)
def test_what_is_left(value: str, left: int | None) -> None:
    assert Reply(200, (("RateLimit", value),)).remaining == left


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        (Reply(fault="TimeoutError"), "no response (TimeoutError)"),
        (Reply(404, OURS), "status 404, not_found"),
        (Reply(502, (("Content-Type", "text/html; charset=utf-8"),)), "status 502, text/html without X-Error-Code"),
        (Reply(204), "status 204, no content type without X-Error-Code"),
    ],
)
def test_what_people_see(reply: Reply, shown: str) -> None:
    assert reply.shown() == shown


@pytest.mark.parametrize(
    ("url", "port", "prefix"),
    [
        ("https://models.example.com", 443, ""),
        ("https://models.example.com:8443/api/", 8443, "/api"),
        ("http://localhost:5000", 5000, ""),
        ("http://[::1]", 80, ""),
    ],
)
def test_urls(url: str, port: int, prefix: str) -> None:
    client = Client(url)
    assert (client.port, client.prefix) == (port, prefix)


def test_no_credential() -> None:
    """No request is sent if a credential is needed and there is none."""
    client = Client("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="no credential"):
        client.send("GET", "/", authenticated=True)
    assert client.sent == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--url", "http://models.example.com"], "must begin with https:, because requests carry a credential"),
        (["--url", "ftp://models.example.com"], "must be a URL such as https://models.example.com"),
        (["--url", "https://user@models.example.com"], "without a user and a query"),
        (["--url", "https://:sml_literal@models.example.com"], "without a user and a query"),
        (["--url", "https://[::1"], "Invalid"),
        (["--url", "https://localhost", "--credential", "sml_literal_literal_literal"], "never the credential itself"),
        (["--url", "https://localhost", "--credential", "env:NO_SUCH"], "environment variable NO_SUCH is not set"),
        (["--url", "https://localhost", "--credential", "env:ODD"], "contains characters that are not valid"),
    ],
)
def test_wrong_options(app: Flask, words: list[str], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is sent, and a credential on the command line is not repeated."""
    monkeypatch.setenv("ODD", "line\nbreak-in-a-credential")
    result = app.test_cli_runner().invoke(secure_ml, ["check", *words])
    assert result.exit_code == 2
    assert problem in result.stderr
    assert "sml_literal" not in result.output
