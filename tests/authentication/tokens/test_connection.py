"""Connection options of an issuer (authorities, a credential, a proxy) affect only requests to this issuer."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import Key

from certificates import make_certificate
from flask_secure_ml.authentication.tokens.connection import IssuerConnection
from flask_secure_ml.authentication.tokens.jwt import JwtVerifier
from flask_secure_ml.config import Settings
from flask_secure_ml.config.issuers import IssuerConfig
from flask_secure_ml.errors import ConfigError, DependencyUnavailable
from flask_secure_ml.fetch import FetchError
from flask_secure_ml.testing import FakeClock, make_key_set, make_token
from http_servers import QuietHandler, in_thread

AUDIENCE, ISSUER = "https://api.example", "https://kubernetes.example"
CREDENTIAL = "a-token-of-this-pod-1"


class Server(ThreadingHTTPServer):
    """Serves a key set over TLS, and notes the credentials that it was sent."""

    def __init__(self, keys: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys = keys.encode()
        self.credentials: list[str | None] = []
        self.uri = f"https://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Ignore failed handshakes."""


class _Handler(QuietHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.credentials.append(self.headers["Authorization"])
        self.respond(200, self.server.keys)


@pytest.fixture
def server(tmp_path: Path, signing_keys: Mapping[str, Key]) -> Iterator[Server]:
    with in_thread(Server(make_key_set(signing_keys["RS256"])), make_certificate(tmp_path)) as made:
        yield made


@pytest.fixture
def ca_file(tmp_path: Path, server: Server) -> str:
    """The authority of the server."""
    return str(tmp_path / "server.pem")


def entry(server: Server, **options: Any) -> dict[str, Any]:
    usual = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["RS256"], "private_network": True}
    return {**usual, "jwks_uri": server.uri + "/openid/v1/jwks", **options}


def verifier(clock: FakeClock, *entries: Mapping[str, Any]) -> JwtVerifier:
    return JwtVerifier.from_settings(Settings.load({"SECURE_ML_TOKEN_ISSUERS": list(entries), "TESTING": True}), clock)


def verify(made: JwtVerifier, key: Key, clock: FakeClock, issuer: str = ISSUER) -> str:
    return made.verify(make_token(key, issuer=issuer, audience=AUDIENCE, now=clock.now())).principal.subject


def other_authority(folder: Path) -> str:
    (folder / "other").mkdir()
    return str(make_certificate(folder / "other").certificate)


def test_ca_file(server: Server, ca_file: str, clock: FakeClock, signing_keys: Mapping[str, Key]) -> None:
    """AS-2: the URLs of the issuer are verified with its own authorities."""
    made = verifier(clock, entry(server, ca_file=ca_file))
    assert verify(made, signing_keys["RS256"], clock) == "alice"
    assert server.credentials == [None]


def test_ca_file_of_one_issuer(server: Server, ca_file: str, clock: FakeClock, signing_keys: Mapping[str, Key]) -> None:
    """AS-2: the authorities of one issuer are not trusted for another."""
    made = verifier(clock, entry(server, ca_file=ca_file), entry(server, issuer="https://other.example"))
    assert verify(made, signing_keys["RS256"], clock) == "alice"
    with pytest.raises(DependencyUnavailable):
        verify(made, signing_keys["RS256"], clock, "https://other.example")


def test_another_authority(server: Server, tmp_path: Path, clock: FakeClock, signing_keys: Mapping[str, Key]) -> None:
    """AS-2: a certificate that another authority signed is rejected, until the file has the right one."""
    path = Path(other_authority(tmp_path))
    made = verifier(clock, entry(server, ca_file=str(path)))
    with pytest.raises(DependencyUnavailable):
        verify(made, signing_keys["RS256"], clock)
    shutil.copy(tmp_path / "server.pem", path)
    clock.advance(600)
    assert verify(made, signing_keys["RS256"], clock) == "alice"


def test_ca_file_that_is_gone(server: Server, tmp_path: Path, ca_file: str) -> None:
    """The authorities of the system do not take the place of a file that is gone."""
    path = tmp_path / "authority.pem"
    shutil.copy(ca_file, path)
    connection = IssuerConnection(IssuerConfig(ISSUER, AUDIENCE, ca_file=str(path), private_network=True))
    assert connection.send(server.uri, timeout=2).status == 200
    path.unlink()
    with pytest.raises(FetchError, match="ca_file cannot be used"):
        connection.send(server.uri, timeout=2)


def test_jwks_token(
    server: Server,
    ca_file: str,
    tmp_path: Path,
    clock: FakeClock,
    signing_keys: Mapping[str, Key],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The credential is sent to the key set as currently in the file, and is never logged."""
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "token"
    path.write_text(CREDENTIAL + "\n")
    made = verifier(clock, entry(server, ca_file=ca_file, jwks_token=f"file:{path}"))
    assert verify(made, signing_keys["RS256"], clock) == "alice"
    path.write_text(CREDENTIAL.replace("1", "2"))
    clock.advance(3600)
    assert verify(made, signing_keys["RS256"], clock) == "alice"
    assert server.credentials == [f"Bearer {CREDENTIAL}", f"Bearer {CREDENTIAL.replace('1', '2')}"]
    assert CREDENTIAL not in caplog.text


@pytest.mark.parametrize("content", [None, "short", "a-token-with-é-in-it", "a-token-with\nanother-line"])
def test_jwks_token_that_cannot_be_sent(
    server: Server,
    ca_file: str,
    tmp_path: Path,
    clock: FakeClock,
    signing_keys: Mapping[str, Key],
    caplog: pytest.LogCaptureFixture,
    content: str | None,
) -> None:
    """Without a credential no fetch is made; no reason contains it."""
    path = tmp_path / "token"
    path.write_text(CREDENTIAL)
    made = verifier(clock, entry(server, ca_file=ca_file, jwks_token=f"file:{path}"))
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DependencyUnavailable):
        verify(made, signing_keys["RS256"], clock)
    assert server.credentials == []
    assert "a-token-with" not in caplog.text


def test_jwks_token_goes_nowhere_else(server: Server, ca_file: str) -> None:
    """A request to another URL of the issuer has no credential."""
    ring = Settings.load(
        {"SECURE_ML_TOKEN_ISSUERS": [entry(server, jwks_token=CREDENTIAL)], "TESTING": True}
    ).token_issuers[0]
    config = IssuerConfig(ISSUER, AUDIENCE, ca_file=ca_file, private_network=True, jwks_token=ring.jwks_token)
    IssuerConnection(config).send(server.uri + "/introspect", timeout=2)
    assert server.credentials == [None]


def test_proxy(server: Server, ca_file: str, signing_keys: Mapping[str, Key], clock: FakeClock) -> None:
    """With a proxy that is down, the server is not reached around it."""
    made = verifier(clock, entry(server, ca_file=ca_file, proxy="http://127.0.0.1:1"))
    with pytest.raises(DependencyUnavailable):
        verify(made, signing_keys["RS256"], clock)
    assert server.credentials == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"ca_file": "/nowhere.pem"}, "ca_file: cannot be used: No such file or directory"),
        ({"ca_file": __file__}, "ca_file: cannot be used: "),
        ({"jwks_token": CREDENTIAL, "jwks_uri": None, "discover": True}, "jwks_token: requires jwks_uri"),
        ({"jwks_token": "short"}, "jwks_token: must be a reference"),
        ({"proxy": "https://proxy.example"}, "proxy: must be an http: URL"),
        ({"proxy": "http://user:word@proxy.example"}, "proxy: must be an http: URL"),
        ({"proxy": "http://proxy.example/x"}, "proxy: must be an http: URL"),
        ({"proxy": "http://"}, "proxy: must be an http: URL"),
        ({"proxy": "http://proxy.example", "insecure_http": True}, "proxy: is only for https: URLs"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], problem: str) -> None:
    """Each of them stops the app, and no message repeats a credential."""
    given = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["RS256"], "jwks_uri": "https://k.example/jwks"}
    with pytest.raises(ConfigError) as caught:
        Settings.load({"SECURE_ML_TOKEN_ISSUERS": [{**given, **options}], "TESTING": True})
    assert any(f"SECURE_ML_TOKEN_ISSUERS[0].{problem}" in line for line in caught.value.problems), caught.value.problems
    assert json.dumps(caught.value.problems).count(CREDENTIAL) == 0
