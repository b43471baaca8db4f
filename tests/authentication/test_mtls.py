"""Clients that prove themselves with a certificate: RFC 8705 section 2, ASVS 12.1.3."""

from __future__ import annotations

import base64
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request as WerkzeugRequest

from certificates import Issued, authority, issue, key_usage
from flask_secure_ml.authentication import mtls
from flask_secure_ml.authentication.mtls import MAX_CERTIFICATE, MtlsAuthenticator
from flask_secure_ml.config.clients import clients_field
from flask_secure_ml.errors import ConfigError, DependencyUnavailable, NotAuthenticated, UnusableCredential
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.principal import Principal
from flask_secure_ml.testing import FakeClock
from support import HTTPS, MakeApp

NOW = 1_800_000_000.0
HOUR = 3600
SUBJECT = "CN=trainer,O=Example"
URI = "spiffe://example.com/trainer"
ALL_NAMES = [
    x509.DNSName("Trainer.example"),
    x509.UniformResourceIdentifier(URI),
    x509.IPAddress(ip_address("2001:db8::1")),
    x509.RFC822Name("trainer@example.com"),
]


def entry(client: str = "trainer", **name: str) -> dict[str, Any]:
    return {"client": client, "scopes": ["predict"], "plan": "big", **name}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority(now=NOW, lifetime=10 * HOUR)


@pytest.fixture
def ca_file(tmp_path: Path, root: Issued) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(root.pem)
    return path


class Door:
    """Shows certificates to an authenticator."""

    def __init__(self, ca_file: Path | None, clock: FakeClock, *entries: dict[str, Any]) -> None:
        path = None if ca_file is None else str(ca_file)
        self.authenticator = MtlsAuthenticator(clients_field().deserialize(list(entries)), path, clock)

    def show(self, certificate: Issued | bytes) -> Principal:
        der = certificate if isinstance(certificate, bytes) else certificate.der
        exchange = Exchange("r1", NOW, 0.0, "192.0.2.1", "192.0.2.1", secure=True, certificate=der)
        return self.authenticator.verify(der, exchange)

    def rejects(self, certificate: Issued | bytes) -> str:
        """Return the private reason."""
        with pytest.raises(NotAuthenticated) as caught:
            self.show(certificate)
        return caught.value.reason


def test_the_principal(ca_file: Path, clock: FakeClock, root: Issued) -> None:
    """The client of the configuration, since its certificate began: so a revocation by time takes hold."""
    shown = Door(ca_file, clock, entry(subject_dn=SUBJECT)).show(issue(SUBJECT, root, now=NOW))
    assert (shown.kind, shown.subject, shown.client_id, shown.issuer) == ("mtls", "trainer", "trainer", "")
    assert (shown.scopes, shown.plan) == (frozenset({"predict"}), "big")
    assert (shown.id, shown.issued) == ("mtls:trainer", NOW - 300)


def test_finding(clock: FakeClock) -> None:
    """The credential comes from the transport; it has no HTTP scheme."""
    authenticator = MtlsAuthenticator((), None, clock)
    exchange = Exchange("r1", NOW, 0.0, "192.0.2.1", "192.0.2.1", secure=True)
    request: Any = WerkzeugRequest(EnvironBuilder().get_environ())
    assert authenticator.find(request, exchange) is None
    exchange.certificate = b"der"
    assert authenticator.find(request, exchange) == b"der"
    assert (authenticator.name, authenticator.challenge) == ("mtls", "")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param({"subject_dn": SUBJECT}, id="subject"),
        pytest.param({"san_dns": "trainer.EXAMPLE"}, id="DNS"),
        pytest.param({"san_uri": URI}, id="URI"),
        pytest.param({"san_ip": "2001:DB8::1"}, id="IP"),
        pytest.param({"san_email": "trainer@example.com"}, id="email"),
    ],
)
def test_each_name(ca_file: Path, clock: FakeClock, root: Issued, name: dict[str, str]) -> None:
    """RFC 8705 section 2.1.2: one property names the client, and the same names from another authority do not."""
    door = Door(ca_file, clock, entry(**name))
    assert door.show(issue(SUBJECT, root, names=ALL_NAMES, now=NOW)).subject == "trainer"
    stranger = authority("Test CA", now=NOW)
    assert "no valid chain" in door.rejects(issue(SUBJECT, stranger, names=ALL_NAMES, now=NOW))
    assert "no valid chain" in door.rejects(issue(SUBJECT, names=ALL_NAMES, now=NOW))


@pytest.mark.parametrize(
    ("name", "subject", "names"),
    [
        pytest.param({"subject_dn": SUBJECT}, "CN=Trainer,O=Example", [], id="subject in another case"),
        pytest.param({"subject_dn": SUBJECT}, "O=Example,CN=trainer", [], id="subject in another order"),
        pytest.param({"subject_dn": SUBJECT}, "CN=trainer", [], id="subject without its organization"),
        pytest.param({"subject_dn": SUBJECT}, f"OU=Lab,{SUBJECT}", [], id="subject with more"),
        pytest.param({"subject_dn": SUBJECT}, "CN=trainer\\,O=Example", [], id="subject all in one attribute"),
        pytest.param({"san_dns": "a.example"}, "CN=a.example", [], id="DNS name as common name"),
        pytest.param({"san_dns": "a.example"}, "CN=x", [x509.DNSName("*.example")], id="wildcard"),
        pytest.param({"san_dns": "a.example"}, "CN=x", [x509.DNSName("b.a.example")], id="DNS name below"),
        pytest.param({"san_dns": "a.example"}, "CN=x", [x509.UniformResourceIdentifier("a.example")], id="DNS as URI"),
        pytest.param({"san_dns": "192.0.2.1"}, "CN=x", [x509.IPAddress(ip_address("192.0.2.1"))], id="IP as DNS"),
        pytest.param({"san_uri": URI}, "CN=x", [x509.UniformResourceIdentifier(URI + "/")], id="URI with more"),
        pytest.param({"san_uri": URI}, "CN=x", [x509.UniformResourceIdentifier(URI.upper())], id="URI in upper case"),
        pytest.param({"san_ip": "192.0.2.1"}, "CN=x", [x509.IPAddress(ip_address("192.0.2.2"))], id="another IP"),
        pytest.param(
            {"san_email": "a@b.example"}, "CN=x", [x509.RFC822Name("A@b.example")], id="email in another case"
        ),
        pytest.param({"sha256": "ab" * 32}, SUBJECT, [], id="fingerprint"),
    ],
)
def test_names_that_are_only_similar(
    ca_file: Path, clock: FakeClock, root: Issued, name: dict[str, str], subject: str, names: list[x509.GeneralName]
) -> None:
    """A certificate of a trusted authority is accepted only if its name is exactly that of a client."""
    reason = Door(ca_file, clock, entry(**name)).rejects(issue(subject, root, names=names, now=NOW))
    assert reason.startswith("no client matches the certificate")


def test_a_certificate_by_its_fingerprint(clock: FakeClock) -> None:
    """RFC 8705 section 2.2: self-signed, without an authority; one with the same name and another key is rejected."""
    mine, twin = issue(SUBJECT, now=NOW), issue(SUBJECT, now=NOW)
    door = Door(None, clock, entry(sha256=mine.fingerprint))
    assert door.show(mine).subject == "trainer"
    assert twin.fingerprint in door.rejects(twin)


@pytest.mark.parametrize("offset", [pytest.param(-301, id="not yet"), pytest.param(HOUR + 1, id="expired")])
@pytest.mark.parametrize("known", [pytest.param(True, id="seen before"), pytest.param(False, id="new")])
@pytest.mark.parametrize("by", ["sha256", "subject_dn"])
def test_the_period_of_validity(ca_file: Path, root: Issued, by: str, known: bool, offset: float) -> None:
    """Outside of it a client is never accepted, by fingerprint or from the cache."""
    clock = FakeClock(NOW)
    mine = issue(SUBJECT, root, now=NOW)
    door = Door(ca_file, clock, entry(**{by: mine.fingerprint if by == "sha256" else SUBJECT}))
    if known:
        door.show(mine)
    clock.advance(offset)
    assert "not valid now" in door.rejects(mine)
    # Its fingerprint cannot be guessed, and its name can be written into any certificate.
    with pytest.raises(UnusableCredential if by == "sha256" else NotAuthenticated) as caught:
        door.show(mine)
    assert isinstance(caught.value, UnusableCredential) is (by == "sha256")
    clock.advance(-offset)
    assert door.show(mine).subject == "trainer"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"usages": [ExtendedKeyUsageOID.SERVER_AUTH]}, id="of a server"),
        pytest.param({"usages": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]}, id="for any use"),
        pytest.param({"extensions": [x509.BasicConstraints(ca=True, path_length=None)]}, id="of an authority"),
    ],
)
def test_certificates_that_are_not_for_clients(
    ca_file: Path, clock: FakeClock, root: Issued, options: dict[str, Any]
) -> None:
    """MT-3: a certificate of a trusted authority that is not for client authentication is rejected."""
    mine = issue(SUBJECT, root, now=NOW, **options)
    assert "no valid chain" in Door(ca_file, clock, entry(subject_dn=SUBJECT)).rejects(mine)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(rsa.generate_private_key(65537, 1024), id="RSA with 1024 bits"),
        pytest.param(ec.generate_private_key(ec.SECP192R1()), id="curve with 192 bits"),
        pytest.param(dsa.generate_private_key(2048), id="DSA"),
    ],
)
@pytest.mark.parametrize("by", ["sha256", "subject_dn"])
def test_weak_keys(ca_file: Path, clock: FakeClock, root: Issued, by: str, key: Any) -> None:
    """Rejected, whether our authority signed for it or its fingerprint is known."""
    mine = issue(SUBJECT, root, now=NOW, key=key)
    door = Door(ca_file, clock, entry(**{by: mine.fingerprint if by == "sha256" else SUBJECT}))
    assert door.rejects(mine) == "the key of the client certificate is too weak"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"key": rsa.generate_private_key(65537, 2048)}, id="RSA"),
        pytest.param({"usages": ()}, id="no extended key usage"),
        pytest.param({"extensions": ()}, id="no basic constraints"),
        pytest.param({"key": Ed25519PrivateKey.generate()}, id="Ed25519"),
    ],
)
def test_certificates_that_are_plain(ca_file: Path, clock: FakeClock, root: Issued, options: dict[str, Any]) -> None:
    """Certificates as issued by simple authorities are accepted."""
    mine = issue(SUBJECT, root, now=NOW, **options)
    assert Door(ca_file, clock, entry(subject_dn=SUBJECT)).show(mine).subject == "trainer"


def test_intermediate_authorities(ca_file: Path, clock: FakeClock, root: Issued) -> None:
    """MT-3: they must be in the file; certificates that a client could issue itself are not trusted."""
    middle = authority("Middle CA", root, now=NOW)
    mine = issue(SUBJECT, middle, now=NOW)
    door = Door(ca_file, clock, entry(subject_dn=SUBJECT))
    assert "no valid chain" in door.rejects(mine)
    ca_file.write_bytes(root.pem + middle.pem)
    assert door.show(mine).subject == "trainer"
    client = issue("CN=other", middle, now=NOW)
    assert "no valid chain" in door.rejects(issue(SUBJECT, client, now=NOW))


def test_the_authority_ends_first(ca_file: Path, clock: FakeClock) -> None:
    """A certificate is remembered no longer than its whole chain is valid."""
    short = authority(now=NOW, lifetime=60)
    ca_file.write_bytes(short.pem)
    mine = issue(SUBJECT, short, now=NOW)
    door = Door(ca_file, clock, entry(subject_dn=SUBJECT))
    assert door.show(mine).subject == "trainer"
    clock.advance(61)
    assert "no valid chain" in door.rejects(mine)


@pytest.mark.parametrize("signs", [pytest.param(True, id="certificates"), pytest.param(False, id="no certificates")])
def test_the_key_usage_of_an_authority(ca_file: Path, clock: FakeClock, signs: bool) -> None:
    """RFC 5280 section 6.1.4 (n): where there is one, it must allow to sign certificates."""
    own = authority(now=NOW, usage=key_usage(signs_certificates=signs))
    ca_file.write_bytes(own.pem)
    door = Door(ca_file, clock, entry(subject_dn=SUBJECT))
    if signs:
        assert door.show(issue(SUBJECT, own, now=NOW)).subject == "trainer"
    else:
        assert "no valid chain" in door.rejects(issue(SUBJECT, own, now=NOW))


def test_a_certificate_that_names_two_clients(ca_file: Path, clock: FakeClock, root: Issued) -> None:
    """A caller cannot choose its identity."""
    door = Door(ca_file, clock, entry("a", san_dns="a.example"), entry("b", san_dns="b.example"))
    both = issue("CN=x", root, names=[x509.DNSName("a.example"), x509.DNSName("b.example")], now=NOW)
    assert door.rejects(both) == "the certificate matches several clients: a, b"
    assert door.show(issue("CN=x", root, names=[x509.DNSName("b.example")], now=NOW)).subject == "b"


def test_a_fingerprint_beside_a_name(ca_file: Path, clock: FakeClock) -> None:
    """A client that is known by fingerprint cannot use the name of another client."""
    mine = issue("CN=x", names=[x509.DNSName("a.example")], now=NOW)
    door = Door(ca_file, clock, entry("a", san_dns="a.example"), entry("b", sha256=mine.fingerprint))
    assert "several clients" in door.rejects(mine)


def replace_file(path: Path, content: bytes) -> None:
    """Put another file in its place, as deployments do."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def test_other_authorities_take_hold_at_once(ca_file: Path, clock: FakeClock, root: Issued) -> None:
    """An accepted certificate is rejected as soon as its authority is removed from the file."""
    mine = issue(SUBJECT, root, now=NOW)
    door = Door(ca_file, clock, entry(subject_dn=SUBJECT))
    door.show(mine)
    fresh = authority(now=NOW)
    replace_file(ca_file, fresh.pem)
    assert "no valid chain" in door.rejects(mine)
    assert door.show(issue(SUBJECT, fresh, now=NOW)).subject == "trainer"


BROKEN = [
    pytest.param(None, "cannot be read", id="missing"),
    pytest.param(b"", "is damaged", id="empty"),
    pytest.param(
        b"-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n", "is damaged", id="no certificate"
    ),
    pytest.param(issue(SUBJECT, now=NOW).pem, "not a CA certificate", id="a client's certificate"),
    pytest.param(issue(SUBJECT, now=NOW, extensions=()).pem, "without basic constraints", id="old certificate"),
    pytest.param(authority(now=NOW, key=Ed25519PrivateKey.generate()).pem, "NIST curve", id="Ed25519 authority"),
]


@pytest.mark.parametrize(("content", "reason"), BROKEN)
def test_a_broken_file_of_authorities(
    ca_file: Path, clock: FakeClock, root: Issued, content: bytes | None, reason: str
) -> None:
    """At run time it is 503, also for known clients; at start an error; fingerprints need no file."""
    mine, self_signed = issue(SUBJECT, root, now=NOW), issue("CN=self", now=NOW)
    door = Door(ca_file, clock, entry(subject_dn=SUBJECT), entry("self", sha256=self_signed.fingerprint))
    door.authenticator.check()
    door.show(mine)
    if content is None:
        ca_file.unlink()
    else:
        replace_file(ca_file, content)
    with pytest.raises(DependencyUnavailable) as caught:
        door.show(mine)
    assert reason in caught.value.reason
    assert ("Retry-After", "60") in caught.value.extra_headers
    with pytest.raises(ConfigError, match=reason):
        door.authenticator.check()
    assert door.show(self_signed).subject == "self"


def test_no_authorities_at_all(clock: FakeClock, root: Issued) -> None:
    """Without a file no chain is valid, and the check at start-up is skipped."""
    door = Door(None, clock, entry(subject_dn=SUBJECT))
    door.authenticator.check()
    assert "cannot be verified without SECURE_ML_MTLS_CA_FILE" in door.rejects(issue(SUBJECT, root, now=NOW))


def test_a_known_certificate_is_not_examined_again(
    ca_file: Path, clock: FakeClock, root: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time costs a hash and a look at the file; once the authorities change, the chain is checked again."""
    reads: list[bytes] = []

    read = mtls.read_certificate

    def read_certificate(der: bytes) -> mtls.ClientCertificate:
        reads.append(der)
        return read(der)

    monkeypatch.setattr(mtls, "read_certificate", read_certificate)
    mine = issue(SUBJECT, root, now=NOW)
    door = Door(ca_file, clock, entry(subject_dn=SUBJECT))
    assert door.show(mine) is door.show(mine)
    assert len(reads) == 1
    os.utime(ca_file, ns=(1, 1))
    door.show(mine)
    assert len(reads) == 1
    ca_file.write_bytes(ca_file.read_bytes() + b"\n")
    door.show(mine)
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("subject", "lifetime"),
    [
        pytest.param("CN=nobody", HOUR, id="no client"),
        pytest.param(SUBJECT, HOUR, id="the name of a client"),
        pytest.param(SUBJECT, 0, id="expired"),
        pytest.param("CN=nobody", 0, id="no client, expired"),
    ],
)
def test_every_rejection_costs_a_chain(
    ca_file: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, subject: str, lifetime: float
) -> None:
    """Whether a name is that of a client does not show in the time."""
    built: list[float] = []
    valid_until = mtls.Authorities.valid_until

    def noting(self: mtls.Authorities, certificate: mtls.ClientCertificate, now: float) -> float:
        built.append(now)
        return valid_until(self, certificate, now)

    monkeypatch.setattr(mtls.Authorities, "valid_until", noting)
    door = Door(ca_file, clock, entry(subject_dn=SUBJECT))
    door.rejects(issue(subject, now=NOW - 2 * HOUR + 2 * lifetime))
    assert built == [NOW]


def test_what_is_remembered_is_bounded(
    ca_file: Path, clock: FakeClock, root: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest entry is evicted first, and rejected certificates are never cached."""
    monkeypatch.setattr(mtls, "MAX_CACHED", 2)
    door = Door(ca_file, clock, entry(subject_dn=SUBJECT))
    shown = [issue(SUBJECT, root, now=NOW) for _ in range(3)]
    for each in shown:
        door.show(each)
    door.rejects(issue("CN=nobody", root, now=NOW))
    kept = list(door.authenticator._cache.values())
    assert len(kept) == 2
    assert all(door.show(each) is known.principal for each, known in zip(shown[1:], kept, strict=True))


@pytest.mark.parametrize(
    "der",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00" * 100, id="zeros"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff", id="huge length"),
        pytest.param(b"\x30\x80" * 5_000, id="deep nesting"),
        pytest.param(issue(SUBJECT, now=NOW).pem, id="PEM"),
        pytest.param(issue(SUBJECT, now=NOW).der + b"\x00", id="trailing byte"),
        pytest.param(issue(SUBJECT, now=NOW).der[:-1], id="cut off"),
        pytest.param(issue("", now=NOW).der, id="no subject"),
        pytest.param(bytes(MAX_CERTIFICATE + 1), id="above the cap"),
        pytest.param(issue("CN=x", names=[x509.DNSName("a" * 20)] * 900, now=NOW).der, id="large certificate"),
        pytest.param(
            issue("CN=x", names=[x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")], now=NOW).der,
            id="name of an unknown kind",
        ),
    ],
)
def test_strange_bytes(ca_file: Path, clock: FakeClock, der: bytes) -> None:
    """None is a client, none an error of ours, and no reason repeats them."""
    assert "x" * 10 not in Door(ca_file, clock, entry(subject_dn=SUBJECT)).rejects(der)


@pytest.mark.parametrize("fifth", range(5))
@given(data=st.data())
def test_any_change_of_a_certificate(
    ca_file: Path, clock: FakeClock, root: Issued, any_names: Issued, fifth: int, data: st.DataObject
) -> None:
    """A certificate with changed, added or removed bytes is rejected, without other errors."""
    whole = any_names.der
    # Five times as many examples as other properties get, each in a part of its own.
    first, last = (len(whole) * each // 5 for each in (fifth, fifth + 1))
    at = data.draw(st.integers(first, last - 1))
    gone = data.draw(st.integers(0, 4))
    changed = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + gone :]
    door = Door(ca_file, clock, entry(subject_dn=SUBJECT), entry("ip", san_ip="2001:db8::2"))
    if changed == whole:
        assert door.show(changed).subject == "trainer"
    else:
        door.rejects(changed)


SETTINGS: dict[str, Any] = {
    "MTLS_CLIENTS": [{**entry(subject_dn=SUBJECT), "plan": "default"}],
    "TRUSTED_PROXIES": ["192.0.2.0/24"],
    "CLIENT_CERTIFICATE_HEADER": "Client-Cert",
}


def test_the_settings_turn_it_on(protected: MakeApp, ca_file: Path, clock: FakeClock, root: Issued) -> None:
    """SECURE_ML_MTLS_CLIENTS, _MTLS_CA_FILE and _CLIENT_CERTIFICATE_HEADER are all it takes."""
    mine = issue(SUBJECT, root, now=NOW)
    sent = {"Client-Cert": f":{base64.b64encode(mine.der).decode()}:", "X-Forwarded-Proto": "https"}
    for changed, status in (
        ({}, 404),
        ({"CLIENT_CERTIFICATE_HEADER": "X-SSL-Client-Cert"}, 401),
        ({"TRUSTED_PROXIES": ["198.51.100.0/24"]}, 401),
        ({"MTLS_CLIENTS": []}, 401),
    ):
        app = protected(parts={"clock": clock}, **SETTINGS | {"MTLS_CA_FILE": str(ca_file)} | changed)
        client = app.test_client()
        response = client.get("/", headers=sent, base_url=HTTPS, environ_base={"REMOTE_ADDR": "192.0.2.1"})
        assert response.status_code == status


@pytest.mark.parametrize(("content", "reason"), BROKEN)
def test_the_app_does_not_start_with_a_broken_file(
    protected: MakeApp, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    """SECURE_ML_MTLS_CA_FILE is read at start-up."""
    path = tmp_path / "broken.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"SECURE_ML_MTLS_CA_FILE .*{reason}"):
        protected(**SETTINGS | {"MTLS_CA_FILE": str(path)})


@pytest.fixture(scope="module")
def any_names(root: Issued) -> Issued:
    return issue(SUBJECT, root, names=ALL_NAMES, now=NOW)
