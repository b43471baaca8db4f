"""Key sources over real connections: an authorization server that misbehaves."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import Key

from certificates import make_certificate
from flask_secure_ml.authentication.tokens.jwt import JwtVerifier
from flask_secure_ml.config import Settings
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.testing import FakeClock, make_key_set, make_token
from http_servers import QuietHandler, in_thread

AUDIENCE = "https://api.example"
METADATA_OF_THE_CLOUD = "http://169.254.169.254/latest/meta-data/"
KEYS, METADATA, OPENID = "/jwks", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
Document = tuple[int, Mapping[str, str], bytes]


class AuthorizationServer(ThreadingHTTPServer):
    """Responses with the documents that a test gives it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.documents: dict[str, Document] = {}
        self.asked: list[str] = []
        self.uri = f"http://127.0.0.1:{self.server_port}"

    def publish(self, path: str, document: Any, status: int = 200, **headers: str) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        usual = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self.documents[path] = (status, {**usual, **{k.replace("_", "-"): v for k, v in headers.items()}}, body)


class _Handler(QuietHandler):
    server: AuthorizationServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers, body = self.server.documents.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True


@pytest.fixture
def server(signing_keys: Mapping[str, Key]) -> Iterator[AuthorizationServer]:
    with in_thread(AuthorizationServer()) as made:
        made.publish(KEYS, json.loads(make_key_set(signing_keys["RS256"])))
        yield made


@pytest.fixture
def verify(server: AuthorizationServer, signing_keys: Mapping[str, Key], clock: FakeClock) -> Callable[..., str]:
    """Configure the server as an issuer, verify a token, and return its caller."""

    def run(header: Mapping[str, Any] | None = None, **members: Any) -> str:
        issuer = {"issuer": server.uri, "audience": AUDIENCE, "algorithms": ["RS256"], "insecure_http": True, **members}
        verifier = JwtVerifier.from_settings(Settings.load({"SECURE_ML_TOKEN_ISSUERS": [issuer]}), clock)
        key = signing_keys["RS256"]
        text = make_token(key, issuer=issuer["issuer"], audience=AUDIENCE, now=clock.now(), header=header)
        return verifier.verify(text).principal.subject

    return run


def test_keys_at_an_address(verify: Callable[..., str], server: AuthorizationServer) -> None:
    """Only the configured URL is requested."""
    assert verify(jwks_uri=server.uri + KEYS) == "alice"
    assert server.asked == [KEYS]


@pytest.mark.parametrize("place", [METADATA, OPENID])
def test_as_3_discovery(verify: Callable[..., str], server: AuthorizationServer, place: str) -> None:
    """AS-3: the metadata of the issuer contain the URL of its keys."""
    server.publish(place, {"issuer": server.uri, "jwks_uri": server.uri + KEYS})
    assert verify(discover=True) == "alice"
    assert server.asked[-2:] == [place, KEYS]


REDIRECT = {"status": 302, "Location": METADATA_OF_THE_CLOUD}


@pytest.mark.parametrize(
    ("document", "options"),
    [
        pytest.param(b"", REDIRECT, id="J2 redirect to the metadata of the cloud"),
        pytest.param(b"", {"status": 500}, id="J2 500"),
        pytest.param(b"", {"status": 404}, id="J2 404"),
        pytest.param(b"<html></html>", {"Content_Type": "text/html"}, id="J2 HTML"),
        pytest.param(b"{" + b" " * 300_000 + b"}", {}, id="J2 large"),
        pytest.param({"keys": []}, {}, id="J2 no keys"),
        pytest.param({"keys": [{"kty": "oct", "k": "AAAA", "kid": "RS256"}]}, {}, id="J3 secret"),
        pytest.param(b"[" * 100_000, {}, id="J2 deep"),
    ],
)
def test_keys_that_cannot_be_had(
    verify: Callable[..., str], server: AuthorizationServer, document: Any, options: dict[str, Any]
) -> None:
    """J2: without usable keys the response is 503 with Retry-After, never a pass."""
    server.publish(KEYS, document, **options)
    with pytest.raises(DependencyUnavailable) as caught:
        verify(jwks_uri=server.uri + KEYS)
    assert caught.value.extra_headers == (("Retry-After", "60"),)
    assert server.asked == [KEYS]


@pytest.mark.parametrize(
    ("change", "options"),
    [
        pytest.param({"issuer": "https://evil.example"}, {}, id="AS-1 J2 another issuer"),
        pytest.param({}, {"Content_Type": "text/html"}, id="AS-4 media type"),
        pytest.param({}, {"status": 302, "Location": METADATA_OF_THE_CLOUD}, id="AS-4 J2 redirect"),
        pytest.param({"jwks_uri": METADATA_OF_THE_CLOUD}, {}, id="AS-2 JB-14 keys at the metadata of the cloud"),
        pytest.param({"jwks_uri": "https://169.254.169.254/"}, {}, id="AS-4 JB-14 keys at a link-local address"),
        pytest.param({"jwks_uri": "https://[::ffff:127.0.0.1]/"}, {}, id="AS-4 JB-14 keys at a private address"),
    ],
)
def test_metadata_that_cannot_be_used(
    verify: Callable[..., str], server: AuthorizationServer, change: dict[str, Any], options: dict[str, Any]
) -> None:
    """AS-1, AS-2, AS-4: metadata are validated before use."""
    server.publish(METADATA, {"issuer": server.uri, "jwks_uri": server.uri + KEYS, **change}, **options)
    with pytest.raises(DependencyUnavailable):
        verify(discover=True)
    assert KEYS not in server.asked


@pytest.mark.parametrize("source", ["jwks_uri", "discover"])
def test_private_network(verify: Callable[..., str], source: str) -> None:
    """AS-4, JB-14: a private address is not connected to."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0)
        address = f"https://127.0.0.1:{trap.getsockname()[1]}"
        members = {"discover": True} if source == "discover" else {"jwks_uri": address + KEYS}
        with pytest.raises(DependencyUnavailable):
            verify(issuer=address, **members)
        with pytest.raises(BlockingIOError):
            trap.accept()


@pytest.fixture
def secured(server: AuthorizationServer, tmp_path: Path) -> str:
    """The address of the server over TLS, with a certificate that signs itself."""
    made = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    address = server.uri.replace("http:", "https:")
    server.publish(METADATA, {"issuer": address, "jwks_uri": address + KEYS})
    return address


def test_private_network_over_tls(
    verify: Callable[..., str], secured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """private_network allows private addresses, to which TLS is spoken and checked as everywhere."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    assert verify(issuer=secured, jwks_uri=secured + KEYS, private_network=True) == "alice"
    assert verify(issuer=secured, discover=True, private_network=True) == "alice"
    with pytest.raises(DependencyUnavailable):
        verify(issuer=secured, discover=True)


def test_j2_self_signed(verify: Callable[..., str], secured: str) -> None:
    """J2, AS-2: keys of a server that no known authority vouches for are none."""
    with pytest.raises(DependencyUnavailable):
        verify(issuer=secured, jwks_uri=secured + KEYS, private_network=True)


def test_as_2_metadata_do_not_lead_to_clear_text(
    verify: Callable[..., str],
    server: AuthorizationServer,
    secured: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AS-2: without insecure_http the key set is fetched over TLS, on loopback too."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0)
        leading = {"issuer": secured, "jwks_uri": f"http://127.0.0.1:{trap.getsockname()[1]}/"}
        server.publish(METADATA, leading)
        with pytest.raises(DependencyUnavailable):
            verify(issuer=secured, discover=True, private_network=True, insecure_http=False)
        with pytest.raises(BlockingIOError):
            trap.accept()
    assert METADATA in server.asked


def test_as_2_clear_text_beyond_loopback(verify: Callable[..., str], server: AuthorizationServer) -> None:
    """AS-2: with insecure_http, metadata cannot refer to clear text on a network."""
    server.publish(METADATA, {"issuer": server.uri, "jwks_uri": "http://192.0.2.1/jwks"})
    with pytest.raises(DependencyUnavailable):
        verify(discover=True, private_network=True)


@pytest.mark.parametrize("name", ["jku", "x5u"])
def test_h1_address_in_a_token(verify: Callable[..., str], server: AuthorizationServer, name: str) -> None:
    """H1, JB-14: a URL in a header is not requested, not even one on the issuer's own server."""
    assert verify(jwks_uri=server.uri + KEYS, header={name: server.uri + "/other"}) == "alice"
    assert "/other" not in server.asked
