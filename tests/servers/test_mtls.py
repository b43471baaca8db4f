"""Client certificates end to end: in the TLS handshake with gunicorn, or forwarded by a proxy."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc.jwk import Key

from certificates import Certificate, Issued, authority, issue, key_usage
from flask_secure_ml.testing import make_token
from http_servers import QuietHandler, in_thread
from servers import Served, gunicorn
from site_under_test import AUDIENCE, ISSUER

TRAINER = "spiffe://example.com/trainer"
OPAQUE = "opaque-token"
# From Python 3.13 on, the server's TLS holds authorities to RFC 5280: they need a key usage.
SIGNS = key_usage(signs_certificates=True)


@dataclass(frozen=True)
class Mutual:
    """A server that asks for certificates, the authority that it trusts, and a place for files."""

    served: Served
    root: Issued
    ca_file: Path
    folder: Path
    key: Key

    def issue(self, subject: str, issuer: Issued | None = None, **options: Any) -> tuple[Issued, Certificate]:
        made = issue(subject, issuer or self.root, **options)
        return made, made.write(self.folder, made.fingerprint)

    def whoami(
        self, client: Certificate | None = None, headers: dict[str, str] | None = None, token: str = ""
    ) -> tuple[int, dict[str, Any]]:
        sent = (headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        status, _, body = self.served.call("GET", "/whoami", headers=sent, client=client)
        return status, json.loads(body)

    def bearer(self, token: str, client: Certificate | None = None) -> int:
        return self.whoami(client, token=token)[0]

    def token(self, confirmation: Any) -> str:
        claims = {"cnf": confirmation}
        return make_token(self.key, issuer=ISSUER, audience=AUDIENCE, now=time.time(), claims=claims)


def thumbprint(certificate: Issued) -> str:
    """RFC 8705 section 3.1."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate.der).digest()).rstrip(b"=").decode()


def settings(environ: dict[str, str], **more: Any) -> dict[str, str]:
    return environ | {f"FLASK_SECURE_ML_{name}": value for name, value in more.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutual")


@pytest.fixture(scope="module")
def trainer(folder: Path, root: Issued) -> tuple[Issued, Certificate]:
    made = issue("CN=trainer", root, names=[x509.UniformResourceIdentifier(TRAINER)])
    return made, made.write(folder, "trainer")


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority(usage=SIGNS)


@pytest.fixture(scope="module")
def introspection(trainer: tuple[Issued, Certificate]) -> Iterator[str]:
    """An authorization server whose one opaque token is bound to the trainer's certificate."""
    response = {
        "active": True,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "client_id": "tests",
        "scope": "predict",
        "cnf": {"x5t#S256": thumbprint(trainer[0])},
    }

    class Introspection(QuietHandler):
        def do_POST(self) -> None:
            sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            now = int(time.time())
            known = {**response, "iat": now, "exp": now + 60} if sent["token"] == [OPAQUE] else {"active": False}
            self.respond(200, json.dumps(known).encode(), {"Content-Type": "application/json"})

    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), Introspection)) as server:
        yield f"http://127.0.0.1:{server.server_port}/introspect"


@pytest.fixture(scope="module")
def mutual_environ(environ: dict[str, str], folder: Path, root: Issued, introspection: str) -> dict[str, str]:
    (folder / "ca.pem").write_bytes(root.pem)
    (issuer,) = json.loads(environ["FLASK_SECURE_ML_TOKEN_ISSUERS"])
    issuer |= {"introspection_uri": introspection, "client_id": "api", "client_secret": "env:PEPPER"}
    clients = [
        {"client": "trainer", "san_uri": TRAINER, "scopes": ["predict"]},
        {"client": "batch", "subject_dn": "CN=batch,O=Example", "scopes": []},
    ]
    return settings(
        environ,
        TOKEN_ISSUERS=json.dumps([issuer]),
        MTLS_CLIENTS=json.dumps(clients),
        MTLS_CA_FILE=str(folder / "ca.pem"),
    )


@pytest.fixture(scope="module")
def mutual(
    folder: Path, root: Issued, certificate: Certificate, mutual_environ: dict[str, str], signing_key: Key
) -> Iterator[Mutual]:
    # The server's own copy, because it reads the file once and the app reads its own again.
    at_the_server = folder / "server-ca.pem"
    at_the_server.write_bytes(root.pem)
    asks = ("--cert-reqs", str(int(ssl.CERT_OPTIONAL)), "--ca-certs", str(at_the_server))
    with gunicorn(folder, certificate, mutual_environ, "--workers", "2", "--threads", "2", *asks) as served:
        yield Mutual(served, root, folder / "ca.pem", folder, signing_key)


def test_a_certificate_is_an_identity(mutual: Mutual, trainer: tuple[Issued, Certificate]) -> None:
    """RFC 8705 section 2.1: no header, no secret in the request, and the client's own scopes."""
    assert mutual.whoami(trainer[1]) == (200, {"id": "mtls:trainer", "scopes": ["predict"]})
    batch = mutual.issue("CN=batch,O=Example")[1]
    assert mutual.whoami(batch) == (200, {"id": "mtls:batch", "scopes": []})


def test_no_certificate(mutual: Mutual) -> None:
    """The handshake succeeds and the response is a challenge."""
    status, headers, _ = mutual.served.call("GET", "/whoami")
    assert status == 401
    assert any(challenge.startswith("Bearer") for challenge in headers.get_all("WWW-Authenticate"))


def test_a_certificate_that_names_nobody(mutual: Mutual) -> None:
    """It is signed by a trusted authority: the handshake succeeds, and the response is the same as without it."""
    status, problem = mutual.whoami(mutual.issue("CN=nobody")[1])
    without, expected = mutual.whoami()
    assert status == without == 401
    assert problem | {"request_id": ""} == expected | {"request_id": ""}


@pytest.mark.parametrize(
    ("own", "options"),
    [
        pytest.param(False, {}, id="another authority"),
        pytest.param(True, {"now": time.time() - 7200}, id="expired"),
        pytest.param(True, {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]}, id="a server's"),
    ],
)
def test_certificates_that_tls_rejects(mutual: Mutual, own: bool, options: dict[str, Any]) -> None:
    """MT-3: the handshake fails, so no request is read."""
    issuer = mutual.root if own else authority("Test CA", usage=SIGNS)
    names = [x509.UniformResourceIdentifier(TRAINER)]
    stranger = mutual.issue("CN=trainer", issuer, names=names, **options)[1]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        mutual.whoami(stranger)


def test_a_token_beside_a_certificate(mutual: Mutual, trainer: tuple[Issued, Certificate]) -> None:
    """A certificate accompanies every request of a connection; the token identifies the caller."""
    token = make_token(mutual.key, issuer=ISSUER, audience=AUDIENCE, now=time.time(), scope="")
    status, found = mutual.whoami(trainer[1], token=token)
    assert (status, found["scopes"]) == (200, [])
    assert found["id"].endswith("alice")
    assert mutual.bearer(token + "x", trainer[1]) == 401


def test_a_token_bound_to_a_certificate(mutual: Mutual, trainer: tuple[Issued, Certificate]) -> None:
    """MT-1: good on a connection with exactly this certificate, and on no other."""
    token = mutual.token({"x5t#S256": thumbprint(trainer[0])})
    assert mutual.bearer(token, trainer[1]) == 200
    assert mutual.bearer(token) == 401
    assert mutual.bearer(token, mutual.issue("CN=trainer")[1]) == 401


def test_an_opaque_token_bound_to_a_certificate(mutual: Mutual, trainer: tuple[Issued, Certificate]) -> None:
    """MT-2: the same for a token with introspection."""
    assert mutual.bearer(OPAQUE, trainer[1]) == 200
    assert mutual.bearer(OPAQUE) == 401
    assert mutual.bearer(OPAQUE, mutual.issue("CN=trainer")[1]) == 401


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"x5t": "AAAA"}, id="x5t beside it"),
        pytest.param({"kid": "1"}, id="kid beside it"),
        pytest.param({"jkt": "AAAA"}, id="jkt beside it"),
        pytest.param({"x5t#S256": ""}, id="empty"),
        pytest.param({"x5t#S256": 5}, id="a number"),
        pytest.param({"x5t#S256": [""]}, id="a list"),
    ],
)
def test_a_confirmation_that_is_not_understood(
    mutual: Mutual, trainer: tuple[Issued, Certificate], more: dict[str, Any]
) -> None:
    """MT-5, C11: rejected, in spite of the right certificate."""
    assert mutual.bearer(mutual.token({"x5t#S256": thumbprint(trainer[0])} | more), trainer[1]) == 401


def test_a_header_from_a_client_is_not_believed(mutual: Mutual, trainer: tuple[Issued, Certificate]) -> None:
    """MT-4: neither as an identity nor as the binding of a token."""
    known = quote(trainer[0].pem.decode(), safe="")
    forged = {
        "Client-Cert": f":{base64.b64encode(trainer[0].der).decode()}:",
        "X-SSL-Client-Cert": known,
        "X-Forwarded-Client-Cert": f'Cert="{known}"',
        "X-Amzn-Mtls-Clientcert-Leaf": known,
    }
    assert mutual.whoami(headers=forged)[0] == 401
    token = mutual.token({"x5t#S256": thumbprint(trainer[0])})
    assert mutual.whoami(headers=forged, token=token)[0] == 401


def test_authorities_change_under_running_workers(mutual: Mutual, trainer: tuple[Issued, Certificate]) -> None:
    """MT-3: the app checks the chain itself, in every worker and at the next request."""
    calls = [mutual.whoami(trainer[1])[0] for _ in range(4)]
    try:
        mutual.ca_file.write_bytes(authority("Another CA", usage=SIGNS).pem)
        calls += [mutual.whoami(trainer[1])[0] for _ in range(4)]
        mutual.ca_file.unlink()
        calls += [mutual.whoami(trainer[1])[0] for _ in range(4)]
    finally:
        mutual.ca_file.write_bytes(mutual.root.pem)
    assert calls == [200] * 4 + [401] * 4 + [503] * 4


def test_the_log_names_the_client_and_no_certificate(mutual: Mutual, trainer: tuple[Issued, Certificate]) -> None:
    """The log line has the client, but not the certificate."""
    mutual.whoami(trainer[1])
    text = mutual.served.log.read_text()
    assert "mtls:trainer" in text
    assert "BEGIN CERTIFICATE" not in text
    assert base64.b64encode(trainer[0].der).decode()[:60] not in text


@pytest.mark.parametrize(
    "header", ["Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "X-Amzn-Mtls-Clientcert-Leaf"]
)
def test_behind_a_proxy(
    header: str,
    tmp_path: Path,
    certificate: Certificate,
    mutual_environ: dict[str, str],
    root: Issued,
    signing_key: Key,
    trainer: tuple[Issued, Certificate],
) -> None:
    """MT-4: the header of the proxy has the client's certificate; that of the proxy's own connection is ignored."""
    environ = settings(mutual_environ, TRUSTED_PROXIES='["127.0.0.1/32"]', CLIENT_CERTIFICATE_HEADER=header)
    asks = ("--cert-reqs", str(int(ssl.CERT_OPTIONAL)), "--ca-certs", mutual_environ["FLASK_SECURE_ML_MTLS_CA_FILE"])
    escaped = quote(trainer[0].pem.decode(), safe="")
    value = {
        "Client-Cert": f":{base64.b64encode(trainer[0].der).decode()}:",
        "X-SSL-Client-Cert": escaped,
        "X-Forwarded-Client-Cert": f'Hash={trainer[0].fingerprint};Cert="{escaped}";Subject="CN=trainer"',
        "X-Amzn-Mtls-Clientcert-Leaf": quote(trainer[0].pem.decode(), safe="+/="),
    }[header]
    with gunicorn(tmp_path, certificate, environ, *asks) as served:
        proxied = Mutual(served, root, tmp_path / "ca.pem", tmp_path, signing_key)
        proxy = proxied.issue("CN=batch,O=Example")[1]
        assert proxied.whoami(proxy, {header: value}) == (200, {"id": "mtls:trainer", "scopes": ["predict"]})
        assert proxied.whoami(proxy)[0] == 401
        assert proxied.whoami(proxy, {header: "canary"})[0] == 401
        # T7: gunicorn drops the alias, which WSGI would not tell from the header.
        assert proxied.whoami(proxy, {header.replace("-", "_"): value})[0] == 401
        token = proxied.token({"x5t#S256": thumbprint(trainer[0])})
        assert proxied.whoami(proxy, {header: value}, token)[0] == 200
        assert proxied.whoami(trainer[1], token=token)[0] == 401
        assert f"the header {header} of the trusted proxy 127.0.0.1 has no certificate" in served.log.read_text()
        assert "canary" not in served.log.read_text()
