"""The development certificate: kept while valid, recreated when not, and not trusted elsewhere."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from certificates import Certificate
from flask_secure_ml.deploy.dev_certificate import DevCertificate, ensure
from programs import needs
from tls_handshakes import handshake

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OWN = ["localhost", "127.0.0.1", "::1"]


def names_in(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], []),
        (["127.0.0.1", "localhost"], []),
        (["0.0.0.0", "::"], []),
        (["192.0.2.7"], ["192.0.2.7"]),
        (["Model.Example.", "2001:DB8::1"], ["model.example", "2001:db8::1"]),
        (["fe80::1%lo"], ["fe80::1"]),
    ],
)
def test_names(tmp_path: Path, given: list[str], added: list[str]) -> None:
    """The certificate is for this machine's own names and for those that are given."""
    found = ensure(tmp_path, given, NOW)
    assert names_in(found.certificate) == [*OWN, *added] == list(found.names)


@pytest.mark.parametrize("name", ["*.example.com", "a b", "example.com:8443", "https://example.com", "-", "a" * 64])
def test_what_is_no_name(tmp_path: Path, name: str) -> None:
    """It is an error, and no file is written."""
    with pytest.raises(ValueError, match="neither a DNS name nor an IP address"):
        ensure(tmp_path / "new", [name], NOW)
    assert not (tmp_path / "new").exists()


def test_permissions(tmp_path: Path) -> None:
    """The keys are for their owner only, and so is a directory that is created."""
    found = ensure(tmp_path / "new", (), NOW)
    assert [path.stat().st_mode & 0o777 for path in (found.authority_key, found.key)] == [0o600] * 2
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    keys = [path.name for path in (tmp_path / "new").iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert sorted(keys) == ["ca.key", "server.key"]


@pytest.mark.parametrize(
    ("days", "created"),
    [(0, ""), (59, ""), (61, "certificate"), (639, "certificate"), (641, "authority"), (800, "authority")],
)
def test_renewal(tmp_path: Path, days: int, created: str) -> None:
    """A certificate is renewed 30 days before its end, and the authority when a certificate would outlive it."""
    ensure(tmp_path, ["model.example"], NOW)
    found = ensure(tmp_path, (), NOW + timedelta(days=days))
    assert (found.created, found.names[-1]) == (created, "model.example")
    assert not ensure(tmp_path, (), NOW + timedelta(days=days)).created


def test_another_name_needs_another_authority(tmp_path: Path) -> None:
    """The new one includes the previous names; fewer names need no change."""
    first = ensure(tmp_path, ["a.example"], NOW).authority.read_bytes()
    found = ensure(tmp_path, ["b.example"], NOW)
    assert (found.created, set(found.names[3:])) == ("authority", {"a.example", "b.example"})
    assert found.authority.read_bytes() != first
    assert not ensure(tmp_path, ["a.example"], NOW).created


def test_the_authority_stays_when_the_certificate_is_renewed(tmp_path: Path) -> None:
    """Clients trust it once."""
    first = ensure(tmp_path, (), NOW).authority.read_bytes()
    assert ensure(tmp_path, (), NOW + timedelta(days=70)).authority.read_bytes() == first


def _delete_key(files: DevCertificate) -> None:
    files.key.unlink()


def _cut_short(files: DevCertificate) -> None:
    files.certificate.write_bytes(files.certificate.read_bytes()[:100])


def _other_authority(files: DevCertificate) -> None:
    other = ensure(files.authority.with_name("other"), (), NOW)
    files.authority.write_bytes(other.authority.read_bytes())


def _other_key(files: DevCertificate) -> None:
    files.key.write_bytes(ensure(files.key.with_name("other"), (), NOW).key.read_bytes())


def _no_authority_key(files: DevCertificate) -> None:
    files.authority_key.unlink()


@pytest.mark.parametrize("damage", [_delete_key, _cut_short, _other_authority, _other_key, _no_authority_key])
def test_files_that_do_not_belong_together_are_replaced(
    tmp_path: Path, damage: Callable[[DevCertificate], None]
) -> None:
    """Missing, damaged or mixed files are created again, and are good then."""
    damage(ensure(tmp_path, (), NOW))
    assert ensure(tmp_path, (), NOW).created
    assert not ensure(tmp_path, (), NOW).created


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_an_authority_whose_key_others_know(tmp_path: Path, mode: int) -> None:
    """It is replaced: a checkout can contain one, whose author could sign for hosts that the user trusts."""
    files = ensure(tmp_path, (), NOW)
    files.authority_key.chmod(mode)
    assert ensure(tmp_path, (), NOW).created == "authority"
    assert files.authority_key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_certificate_whose_key_others_know(tmp_path: Path, mode: int) -> None:
    """The certificate is replaced too: other users could impersonate the server."""
    files = ensure(tmp_path, (), NOW)
    before = files.key.read_bytes()
    files.key.chmod(mode)
    assert ensure(tmp_path, (), NOW).created == "certificate"
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert files.key.read_bytes() != before
    assert not ensure(tmp_path, (), NOW).created


@pytest.mark.parametrize(
    "wide",
    [
        x509.DNSName(""),
        x509.DNSName(".example"),
        x509.IPAddress(ip_network("0.0.0.0/0")),
        x509.IPAddress(ip_network("10.0.0.0/31")),
        x509.UniformResourceIdentifier("example.com"),
    ],
    ids=str,
)
def test_an_authority_for_more_than_hosts(tmp_path: Path, wide: x509.GeneralName) -> None:
    """It is replaced, and its other purposes are not kept."""
    files = ensure(tmp_path, (), NOW)
    key = load_pem_private_key(files.authority_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    own = x509.load_pem_x509_certificate(files.authority.read_bytes())
    constraints = own.extensions.get_extension_for_class(x509.NameConstraints)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(own.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
        .add_extension(x509.NameConstraints([*(constraints.value.permitted_subtrees or ()), wide], None), True)
    )
    files.authority.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    found = ensure(tmp_path, (), NOW)
    assert (found.created, list(found.names)) == ("authority", OWN)


def test_git_sees_nothing(tmp_path: Path) -> None:
    """A new directory is ignored as a whole; an existing one is not changed."""
    ensure(tmp_path / "new", (), NOW)
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
    (tmp_path / "old").mkdir()
    ensure(tmp_path / "old", (), NOW)
    assert not (tmp_path / "old" / ".gitignore").exists()


def forged(files: DevCertificate, name: x509.GeneralName, folder: Path) -> Certificate:
    """Return a certificate for another name that was signed with the stolen key of the authority."""
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    signing = load_pem_private_key(files.authority_key.read_bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    own = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(authority.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
    )
    for kept in (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.AuthorityKeyIdentifier):
        found = own.extensions.get_extension_for_class(kept)
        builder = builder.add_extension(found.value, found.critical)
    path = folder / "forged.pem"
    path.write_bytes(builder.sign(signing, hashes.SHA256()).public_bytes(Encoding.PEM))
    return Certificate(path, files.key)


def connect(files: DevCertificate, pair: Certificate, host: str) -> str:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pair.certificate, pair.key)
    return handshake(server, ssl.create_default_context(cafile=str(files.authority)), host)


@pytest.mark.parametrize("host", OWN)
def test_clients_that_trust_the_authority_accept_it(tmp_path: Path, host: str) -> None:
    """OpenSSL verifies it for each of its names."""
    files = ensure(tmp_path, (), datetime.now(UTC))
    assert connect(files, Certificate(files.certificate, files.key), host) == "TLSv1.3"


@pytest.mark.parametrize("host", ["www.example.com", "192.0.2.7"])
def test_a_stolen_key_of_the_authority(tmp_path: Path, host: str) -> None:
    """Certificates that it signs for other hosts are rejected by the constraint, not only by the name."""
    files = ensure(tmp_path, (), datetime.now(UTC))
    name = x509.DNSName(host) if host[0] == "w" else x509.IPAddress(ip_address(host))
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        connect(files, forged(files, name, tmp_path), host)


@needs("openssl")
def test_strict_verification(tmp_path: Path) -> None:
    """It passes the checks of RFC 5280 that Python 3.13 turns on."""
    files = ensure(tmp_path, ["model.example"], datetime.now(UTC))
    options = ("-x509_strict", "-purpose", "sslserver", "-CAfile", str(files.authority))
    command = ["openssl", "verify", *options, str(files.certificate)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
