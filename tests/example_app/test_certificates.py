"""The demo's certificate: kept while it is good, made again when it is not."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from example_app.certificates import Certificates, ensure

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def _names(server: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(server.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def _delete_key(files: Certificates) -> None:
    files.key.unlink()


def _cut_short(files: Certificates) -> None:
    files.server.write_bytes(files.server.read_bytes()[:100])


def _other_authority(files: Certificates) -> None:
    other = files.authority.with_name("other")
    other.mkdir()
    files.authority.write_bytes(ensure(other, "127.0.0.1", NOW)[0].authority.read_bytes())


def _other_key(files: Certificates) -> None:
    other = files.key.with_name("other")
    other.mkdir()
    files.key.write_bytes(ensure(other, "127.0.0.1", NOW)[0].key.read_bytes())


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", []),
        ("localhost", []),
        ("0.0.0.0", []),
        ("::", []),
        ("192.0.2.7", ["192.0.2.7"]),
        ("model.example", ["model.example"]),
    ],
)
def test_names(tmp_path: Path, host: str, own: list[str]) -> None:
    """The certificate is good for this machine's own names and for the host that is served."""
    assert _names(ensure(tmp_path, host, NOW)[0].server) == ["localhost", "127.0.0.1", "::1", *own]


def test_private_key_is_private_and_the_only_one(tmp_path: Path) -> None:
    """The server's key is for its owner only; the authority's key is not on the disk."""
    files, _ = ensure(tmp_path, "127.0.0.1", NOW)
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if b"PRIVATE KEY" in path.read_bytes()] == ["server.key"]


def test_loads_into_tls_contexts(tmp_path: Path) -> None:
    """OpenSSL takes the pair for a server and the authority for a client."""
    files, _ = ensure(tmp_path, "127.0.0.1", NOW)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(files.server, files.key)
    assert len(ssl.create_default_context(cafile=str(files.authority)).get_ca_certs()) == 1


@pytest.mark.parametrize(("days", "fresh"), [(0, False), (22, False), (24, True), (31, True)])
def test_renewed_a_week_before_its_end(tmp_path: Path, days: int, fresh: bool) -> None:
    """A certificate is good for 30 days and is kept for 23."""
    ensure(tmp_path, "127.0.0.1", NOW)
    assert ensure(tmp_path, "127.0.0.1", NOW + timedelta(days=days))[1] is fresh


def test_another_host_needs_another_certificate(tmp_path: Path) -> None:
    """A certificate that does not name the host is replaced."""
    ensure(tmp_path, "127.0.0.1", NOW)
    assert ensure(tmp_path, "192.0.2.7", NOW)[1]


@pytest.mark.parametrize("damage", [_delete_key, _cut_short, _other_authority, _other_key])
def test_files_that_do_not_belong_together_are_replaced(tmp_path: Path, damage: Callable[[Certificates], None]) -> None:
    """Missing, damaged or mixed files are made again, and are good then."""
    files, _ = ensure(tmp_path, "127.0.0.1", NOW)
    damage(files)
    assert ensure(tmp_path, "127.0.0.1", NOW)[1]
    assert not ensure(tmp_path, "127.0.0.1", NOW)[1]
