"""The TLS of gunicorn, by handshakes in memory: each allowed version, suite and group works, and no other."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certificates import Certificate, Issued, authority, issue, key_usage, make_certificate
from flask_secure_ml.deploy import openssl
from flask_secure_ml.deploy.gunicorn_tls import (
    bounded_sockets,
    make_context,
)
from gunicorn_contexts import client, configuration, server
from tls_handshakes import handshake, only_group

LOCALHOST = [x509.DNSName("localhost")]
ALL = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"


def rsa_certificate(folder: Path) -> Certificate:
    key = rsa.generate_private_key(65537, 2048)
    itself = x509.BasicConstraints(ca=True, path_length=None)
    return issue("CN=rsa", names=LOCALHOST, usages=(), extensions=[itself], key=key).write(folder, "rsa")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificate]:
    """A certificate of each kind of key."""
    folder = tmp_path_factory.mktemp("pairs")
    return {"ECDSA": make_certificate(folder), "RSA": rsa_certificate(folder)}


@pytest.fixture
def any_version(pairs: dict[str, Certificate]) -> ssl.SSLContext:
    """A client that would use everything that its OpenSSL has."""
    context = client(*pairs.values())
    context.set_ciphers(ALL)
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions(pairs: dict[str, Certificate], any_version: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    """TLS 1.0 and 1.1 are rejected, also where the policy of the machine allows them."""
    any_version.minimum_version = any_version.maximum_version = version
    lax = server(pairs["ECDSA"], ciphers=":".join([*openssl.CIPHERS, "@SECLEVEL=0"]))
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol"):
        handshake(lax, any_version, "localhost")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(pairs: dict[str, Certificate], version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are accepted."""
    context = client(pairs["ECDSA"])
    context.minimum_version = context.maximum_version = version
    assert handshake(server(pairs["ECDSA"]), context, "localhost") == version.name.replace("_", ".")


def test_suites_of_tls_1_2(pairs: dict[str, Certificate], any_version: ssl.SSLContext) -> None:
    """Of all suites that OpenSSL has, exactly those of the profile are accepted, each with its kind of key."""
    any_version.maximum_version = ssl.TLSVersion.TLSv1_2
    names = [each["name"] for each in any_version.get_ciphers() if each["protocol"] != "TLSv1.3"]
    servers = [server(pair) for pair in pairs.values()]
    accepted = set()
    for name in names:
        any_version.set_ciphers(f"{name}:@SECLEVEL=0")
        for each in servers:
            try:
                handshake(each, any_version, "localhost")
            except ssl.SSLError:
                continue
            accepted.add(name)
    assert len(names) > 60
    assert accepted == set(openssl.CIPHERS)


def test_suites_of_tls_1_3(pairs: dict[str, Certificate]) -> None:
    """They are those of the profile."""
    names = {each["name"] for each in server(pairs["RSA"]).get_ciphers() if each["protocol"] == "TLSv1.3"}
    assert names == {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}


GROUPS = {
    **dict.fromkeys(openssl.GROUPS, True),
    **dict.fromkeys(("X448", "secp521r1", "secp256k1", "brainpoolP256r1", "secp224r1"), False),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
@pytest.mark.parametrize(("group", "accepted"), GROUPS.items())
def test_groups(pairs: dict[str, Certificate], kind: str, group: str, accepted: bool, version: ssl.TLSVersion) -> None:
    """A client that has one group only is accepted if it is one of the profile."""
    context = client(pairs[kind])
    only_group(context, group)
    context.minimum_version = context.maximum_version = version
    if kind == "ECDSA" and version is ssl.TLSVersion.TLSv1_2 and group != "prime256v1":
        # The list of groups is also that of the curves of certificates then, and ours is on P-256.
        return
    try:
        found = handshake(server(pairs[kind]), context, "localhost")
    except ssl.SSLError:
        found = ""
    assert bool(found) is accepted


def test_groups_where_openssl_cannot_be_reached(pairs: dict[str, Certificate], monkeypatch: pytest.MonkeyPatch) -> None:
    """The one group is P-256."""
    monkeypatch.setattr(openssl, "_library", lambda: None)
    limited = server(pairs["RSA"])
    for group, accepted in {**GROUPS, "X25519": False, "secp384r1": False}.items():
        context = client(pairs["RSA"])
        only_group(context, group)
        try:
            handshake(limited, context, "localhost")
        except ssl.SSLError:
            assert not accepted
        else:
            assert accepted


def test_another_layout_is_not_touched(pairs: dict[str, Certificate], monkeypatch: pytest.MonkeyPatch) -> None:
    """If OpenSSL's result does not match the context, it is not used."""
    calls: list[tuple[Any, ...]] = []

    def answer(*arguments: Any) -> int:
        calls.append(arguments[1:])
        return 0

    fake = SimpleNamespace(SSL_CTX_ctrl=type("Control", (), {"__call__": staticmethod(answer)})())
    monkeypatch.setattr(openssl, "_library", lambda: fake)
    assert not openssl.limit_groups(server(pairs["RSA"]))
    assert {each[0] for each in calls} == {130}


@dataclass(frozen=True)
class Mutual:
    """A server that requests client certificates, and a client that has one."""

    pair: Certificate
    ca_file: Path
    client: Certificate


@pytest.fixture
def mutual(pairs: dict[str, Certificate], tmp_path: Path) -> Mutual:
    clients = authority("Clients", usage=key_usage(signs_certificates=True))
    one = issue("CN=one", clients, names=[x509.DNSName("one")]).write(tmp_path, "one")
    return Mutual(pairs["ECDSA"], clients.write(tmp_path, "clients").certificate, one)


def resumes(mutual: Mutual, version: ssl.TLSVersion) -> bool:
    """Return True if a second connection resumes the session of the first."""
    near = client(mutual.pair)
    near.load_cert_chain(mutual.client.certificate, mutual.client.key)
    near.minimum_version = near.maximum_version = version
    far = server(mutual.pair, ca_certs=str(mutual.ca_file), cert_reqs=ssl.CERT_REQUIRED)
    session, reused = None, True
    for _ in range(2):
        ours, theirs = socket.socketpair()
        with ours, theirs, ThreadPoolExecutor(1) as serving:
            accepted = serving.submit(far.wrap_socket, theirs, server_side=True)
            with near.wrap_socket(ours, server_hostname="localhost", session=session) as channel:
                with accepted.result() as served:
                    served.sendall(b"x")
                    assert channel.recv(1) == b"x"
                    assert served.getpeercert(binary_form=True)
                session, reused = channel.session, bool(channel.session_reused)
    return reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed(mutual: Mutual, version: ssl.TLSVersion) -> None:
    """Neither tickets nor session ids work, so each connection verifies the client certificate."""
    assert not resumes(mutual, version)


def test_sessions_where_openssl_cannot_be_reached(mutual: Mutual, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that requests client certificates supports TLS 1.3 only; others support TLS 1.2 too."""
    monkeypatch.setattr(openssl, "_library", lambda: None)
    with pytest.raises(ssl.SSLError):
        resumes(mutual, ssl.TLSVersion.TLSv1_2)
    assert not resumes(mutual, ssl.TLSVersion.TLSv1_3)
    assert server(mutual.pair).minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("option", [ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION, ssl.OP_CIPHER_SERVER_PREFERENCE])
def test_options(pairs: dict[str, Certificate], option: ssl.Options) -> None:
    """They are set whatever OpenSSL's default is; the proof "tls" shows their effect."""
    assert server(pairs["ECDSA"]).options & option


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)])
def test_alpn(pairs: dict[str, Certificate], offered: list[str], chosen: str | None) -> None:
    """The only protocol is HTTP/1.1."""
    context = client(pairs["ECDSA"])
    if offered:
        context.set_alpn_protocols(offered)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    far = server(pairs["ECDSA"]).wrap_bio(to_server, to_client, server_side=True)
    for side in (near, far, near, far):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert near.selected_alpn_protocol() == chosen


def with_client(pair: Certificate, client_certificate: Certificate | None, signer: Certificate, needed: int) -> str:
    """Return the version of TLS, if the server accepts the client's certificate."""
    context = server(pair, ca_certs=str(signer.certificate), cert_reqs=needed)
    return handshake(context, presenting(pair, client_certificate), "localhost")


def presenting(pair: Certificate, client_certificate: Certificate | None) -> ssl.SSLContext:
    context = client(pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # so that the client learns of it in the handshake
    if client_certificate is not None:
        context.load_cert_chain(client_certificate.certificate, client_certificate.key)
    return context


def strict_authority(name: str) -> Issued:
    """Return an authority with the extensions that Python requires from 3.13 on (RFC 5280 section 4.2.1.3)."""
    return authority(name, usage=key_usage(signs_certificates=True))


def test_other_authorities_of_clients(pairs: dict[str, Certificate], tmp_path: Path) -> None:
    """When their file changes, the next handshake trusts the new ones only."""
    old, new = strict_authority("Old CA"), strict_authority("New CA")
    ca = old.write(tmp_path, "ca")
    clients = [issue("CN=client", each).write(tmp_path, f"client{number}") for number, each in enumerate((old, new))]
    context = server(pairs["ECDSA"], ca_certs=str(ca.certificate), cert_reqs=2)

    def accepted() -> list[bool]:
        found = []
        for each in clients:
            try:
                handshake(context, presenting(pairs["ECDSA"], each), "localhost")
            except ssl.SSLError:
                found.append(False)
            else:
                found.append(True)
        return found

    assert accepted() == [True, False]
    ca.certificate.write_bytes(new.pem)
    assert accepted() == [False, True]


def test_client_certificates(pairs: dict[str, Certificate], tmp_path: Path) -> None:
    """They are required or accepted, and verified either way; their authority needs no key usage."""
    signer, other = authority("Test CA"), strict_authority("Other CA")
    trusted = signer.write(tmp_path, "ca")
    good = issue("CN=good", signer).write(tmp_path, "good")
    bad = issue("CN=bad", other).write(tmp_path, "bad")
    pair = pairs["ECDSA"]
    assert with_client(pair, good, trusted, 2) == with_client(pair, good, trusted, 1) == "TLSv1.2"
    assert with_client(pair, None, trusted, 1) == "TLSv1.2"
    for certificate, needed in ((None, 2), (bad, 2), (bad, 1)):
        with pytest.raises(ssl.SSLError):
            with_client(pair, certificate, trusted, needed)


def test_a_later_minimum_stays(pairs: dict[str, Certificate]) -> None:
    """A context that allows TLS 1.3 only is not relaxed."""
    config = configuration(pairs["ECDSA"])

    def strict() -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    assert make_context(config, strict).minimum_version is ssl.TLSVersion.TLSv1_3


def test_no_wait_is_endless(socket_waits: list[float | None]) -> None:
    """Where gunicorn requests a blocking socket, it gets one with the timeout."""
    kind = bounded_sockets(ssl.SSLSocket, 7.5)
    found = kind.__new__(kind)
    socket.socket.__init__(found, socket.AF_INET, socket.SOCK_STREAM)
    with found:
        found.setblocking(True)
        found.settimeout(None)
        found.settimeout(2.0)
        found.setblocking(False)
    assert socket_waits[-4:] == [7.5, 7.5, 2.0, 0.0]
    found.setblocking(True)  # closed
