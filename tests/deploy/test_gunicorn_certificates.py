"""The certificate of gunicorn: renewed while it runs, and files that cannot be used."""

from __future__ import annotations

import logging
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from gunicorn.sock import ssl_context as create_context

from certificates import Certificate, Issued, issue
from flask_secure_ml.deploy.gunicorn_tls import Renewed, TlsError
from gunicorn_contexts import configuration, server

LOCALHOST = [x509.DNSName("localhost")]


class Site:
    """A context whose files change, and its clients."""

    def __init__(self, folder: Path, pair: Issued) -> None:
        self.files = pair.write(folder, "site")
        self.config = configuration(self.files)
        self.context = create_context(self.config)

    def serial(self) -> int:
        """Return the serial number of the certificate in a handshake."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        near = context.wrap_bio(to_client, to_server)
        far = self.context.wrap_bio(to_server, to_client, server_side=True)
        for side in (near, far, near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        return x509.load_der_x509_certificate(near.getpeercert(binary_form=True) or b"").serial_number


def issued() -> Issued:
    return issue("CN=localhost", names=LOCALHOST)


def test_a_renewed_certificate_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the next handshake, without a name of the server too; one that is written half or mixed is not."""
    caplog.set_level(logging.INFO, "gunicorn.error")
    old, new = issued(), issued()
    site = Site(tmp_path, old)
    renewed = new.write(tmp_path, "renewed")
    assert site.serial() == old.certificate.serial_number
    site.files.certificate.write_bytes(new.pem[:200])
    assert [site.serial() for _ in range(3)] == [old.certificate.serial_number] * 3
    shutil.copy(renewed.certificate, site.files.certificate)
    assert [site.serial() for _ in range(3)] == [old.certificate.serial_number] * 3
    site.files.certificate.unlink()
    assert site.serial() == old.certificate.serial_number
    shutil.copy(renewed.key, site.files.key)
    shutil.copy(renewed.certificate, site.files.certificate)
    assert site.serial() == new.certificate.serial_number
    names = f"{site.files.certificate} and {site.files.key}"
    stays = "; the previous certificate stays in use"
    assert caplog.messages == [
        f"{names} cannot be used: no PEM certificate and private key{stays}",
        f"{names} cannot be used: the private key does not match the certificate{stays}",
        f"{site.files.certificate} cannot be used: No such file or directory{stays}",
        f"The renewed certificate in {site.files.certificate} is in use",
    ]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """The message names this file, not both."""
    files = issued().write(tmp_path, "site")
    files.key.unlink()
    files.key.mkdir()
    with pytest.raises(TlsError, match=f"^{files.key} cannot be used: Is a directory$"):
        create_context(configuration(files))


def test_a_key_that_is_missing(tmp_path: Path) -> None:
    """The message has the variable for a key in another file."""
    config = configuration(issued().write(tmp_path, "site"))
    config.set("keyfile", None)
    with pytest.raises(TlsError, match="no PEM certificate and private key; set SECURE_ML_SERVE_PRIVATE_KEY"):
        create_context(config)


def test_the_same_context_for_every_connection(tmp_path: Path) -> None:
    """gthread asks for it with each one; reading the files again each time would take longer than the handshake."""
    config = configuration(issued().write(tmp_path, "site"))
    assert create_context(config) is create_context(config)


def test_files_are_read_once_while_they_stay(tmp_path: Path) -> None:
    """A handshake looks at their times only."""
    path = tmp_path / "file"
    path.write_bytes(b"1")
    made: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        made.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return made[-1]

    renewed = Renewed(make, [str(path)])
    assert [renewed.current() for _ in range(5)] == [made[0]] * 5
    path.write_bytes(b"12")
    assert [renewed.current() for _ in range(5)] == [made[1]] * 5
    assert len(made) == 2


def encrypted(folder: Path) -> Certificate:
    pair = issued()
    files = pair.write(folder, "encrypted")
    encryption = BestAvailableEncryption(b"secret")
    files.key.write_bytes(pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return files


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """Each is a sentence; an encrypted key does not wait for a pass phrase."""
    files, other = issued().write(tmp_path, "one"), issued().write(tmp_path, "two")
    empty = tmp_path / "empty"
    empty.touch()
    for pair, reason in (
        (Certificate(files.certificate, other.key), "the private key does not match the certificate"),
        (Certificate(empty, files.key), "no PEM certificate and private key"),
        (Certificate(files.certificate, empty), "no PEM certificate and private key"),
        (Certificate(files.certificate, tmp_path / "missing"), "No such file or directory"),
        (encrypted(tmp_path), "the private key is encrypted"),
    ):
        with pytest.raises(TlsError, match=reason):
            server(pair)
