"""``flask secure-ml tls``: created certificates work, and reports are correct."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certificates import HOUR, Issued, authority, issue
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.deploy.certificate_report import CertificateError, report

NAME = [x509.DNSName("model.example")]
SERVER = [ExtendedKeyUsageOID.SERVER_AUTH]
DAY = 24 * HOUR
LONG_AGO = 1_700_000_000


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(secure_ml, ["tls", *map(str, words)])


def server(**options: Any) -> Issued:
    chosen: dict[str, Any] = {"names": NAME, "usages": SERVER, "lifetime": 90 * DAY} | options
    return issue("CN=model.example", **chosen)


def written(folder: Path, chain: Sequence[Issued], name: str = "chain.pem") -> Path:
    path = folder / name
    path.write_bytes(b"".join(each.pem for each in chain))
    return path


def test_dev_certificate(tmp_path: Path) -> None:
    """It creates the files, explains how to serve, call and trust them, and keeps them the next time."""
    folder = tmp_path / "my files"
    found = run("dev-certificate", "model.example", "--directory", folder)
    assert found.exit_code == 0
    assert found.stdout.startswith("Created a certificate authority and a certificate, valid until ")
    assert "for localhost, 127.0.0.1, ::1, model.example." in found.stdout
    (curl,) = (line for line in found.stdout.splitlines() if line.startswith("  curl "))
    assert Path(shlex.split(curl)[2]) == folder / "ca.pem"
    assert run("dev-certificate", "--directory", folder).stdout.startswith("Kept the certificate, ")


def test_dev_certificate_as_json(tmp_path: Path) -> None:
    """Programs get the paths."""
    found = json.loads(run("dev-certificate", "--directory", tmp_path, "--json").stdout)
    assert found["created"] == "authority"
    assert found["names"] == ["localhost", "127.0.0.1", "::1"]
    shown = run("show", found["certificate"], "--key", found["private_key"], "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["warnings"] == []
    assert json.loads(run("dev-certificate", "--directory", tmp_path, "--json").stdout)["created"] is None


def test_a_name_that_is_none(tmp_path: Path) -> None:
    """The message has the error, without a traceback."""
    found = run("dev-certificate", "*.example.com", "--directory", tmp_path)
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr == (
        "Error: '*.example.com' is neither a DNS name nor an IP address; wildcards and ports are invalid\n"
    )


def test_show(tmp_path: Path) -> None:
    """Names, validity, key, signer and fingerprint are printed."""
    signer = authority(lifetime=400 * DAY)
    leaf = server(issuer=signer)
    found = run("show", written(tmp_path, [leaf, signer]))
    assert found.exit_code == 0
    for expected in (
        "CN=model.example",
        "Names       model.example",
        "EC secp256r1",
        leaf.fingerprint,
        "Signed by   CN=Test CA",
    ):
        assert expected in found.stdout
    assert (
        found.stderr
        == "Warning: the certificate of CN=Test CA is a root certificate; remove it, as clients use their own copy\n"
    )


def test_show_as_json(tmp_path: Path) -> None:
    """The output is machine-readable, and the exit status shows that it is not usable."""
    leaf = server(now=LONG_AGO, lifetime=HOUR)
    found = run("show", written(tmp_path, [leaf]), "--json")
    assert found.exit_code == 1
    document = json.loads(found.stdout)
    assert document["certificates"][0]["names"] == ["model.example"]
    assert document["certificates"][0]["sha256"] == leaf.fingerprint
    assert document["errors"] == [error for error in document["errors"] if " expired at " in error] != []


def expect(path: Path, key: Path | None, errors: str, warnings: str) -> None:
    """Check the errors and warnings, each by a part of it, with bars between them."""
    found = report(path, key, datetime.now(UTC))
    for sentences, parts in ((found.errors, errors), (found.warnings, warnings)):
        wanted = [part for part in parts.split("|") if part]
        assert len(sentences) == len(wanted), sentences
        assert all(part in sentence for part, sentence in zip(wanted, sentences, strict=True)), sentences


CA = authority(lifetime=400 * DAY)
CHAINS = [
    pytest.param(lambda: [server()], "", "", id="good"),
    pytest.param(lambda: [server(lifetime=10 * DAY)], "", "expires in 9 days", id="expires soon"),
    pytest.param(lambda: [server(now=LONG_AGO, lifetime=HOUR)], "expired at", "", id="expired"),
    pytest.param(lambda: [server(now=datetime.now(UTC).timestamp() + DAY)], "is not valid before", "", id="not yet"),
    pytest.param(lambda: [server(lifetime=500 * DAY)], "", "more than 398 days", id="long"),
    pytest.param(lambda: [server(issuer=CA)], "", "append the certificate of that CA", id="no chain"),
    pytest.param(
        lambda: [server(issuer=CA), authority(lifetime=400 * DAY)],
        "the chain is broken",
        "is a root",
        id="another chain",
    ),
    pytest.param(lambda: [server(names=())], "no subject alternative name", "", id="no names"),
    pytest.param(lambda: [server(usages=[ExtendedKeyUsageOID.CLIENT_AUTH])], "lacks serverAuth", "", id="of a client"),
    pytest.param(
        lambda: [authority(lifetime=90 * DAY)], "no subject alternative", "is a CA certificate", id="authority"
    ),
    pytest.param(
        lambda: [server(key=rsa.generate_private_key(65537, 1024))], "an RSA key with 1024 bits", "", id="short RSA key"
    ),
    pytest.param(
        lambda: [server(key=ec.generate_private_key(ec.SECP192R1()))], "a key on secp192r1", "", id="short curve"
    ),
]


@pytest.mark.parametrize(("chain", "errors", "warnings"), CHAINS)
def test_findings(tmp_path: Path, chain: Callable[[], list[Issued]], errors: str, warnings: str) -> None:
    """Each fault is an error or a warning, and a good certificate has none."""
    expect(written(tmp_path, chain()), None, errors, warnings)


def test_private_keys(tmp_path: Path) -> None:
    """The key must be that of the certificate, readable by its owner only, and not encrypted."""
    files = server().write(tmp_path, "own")
    other = server().write(tmp_path, "other")
    files.key.chmod(0o600)
    expect(files.certificate, files.key, "", "")
    files.key.chmod(0o640)
    expect(files.certificate, files.key, "", f"chmod 600 {files.key}")
    other.key.chmod(0o600)
    expect(files.certificate, other.key, "does not match the certificate", "")
    both = tmp_path / "both.pem"
    both.touch(0o600)
    both.write_bytes(files.certificate.read_bytes() + other.key.read_bytes())
    expect(both, None, "does not match the certificate", "")
    encryption = BestAvailableEncryption(b"secret")
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    other.key.write_bytes(key)
    expect(files.certificate, other.key, "is encrypted", "")
    other.key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    expect(files.certificate, other.key, "cannot be read", "")


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\x30\x82"]
)
def test_no_certificate(tmp_path: Path, content: bytes) -> None:
    """A file without one is a message, not a traceback."""
    path = tmp_path / "file"
    path.write_bytes(content)
    found = run("show", path)
    assert found.exit_code == 1
    assert f"Error: {path} has no valid PEM certificate" in found.stderr


def test_no_private_key(tmp_path: Path) -> None:
    """The file of ``--key`` must have one."""
    path = written(tmp_path, [server()])
    with pytest.raises(CertificateError, match="has no PEM private key"):
        report(path, path, datetime.now(UTC))


def test_a_hostile_certificate(tmp_path: Path) -> None:
    """Control characters in its names are escaped, and add no line to the report."""
    name = "\x1b]0;owned\x07ok\nPrivate key   yes\u202e"
    names = [x509.DNSName("a\x1b[31mb"), x509.UniformResourceIdentifier("x:\x1b[2J\nError: none")]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2027, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 2, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, SHA256())
    )
    path = tmp_path / "hostile.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    result = run("show", path)
    assert result.exit_code == 1
    assert not {"\x1b", "\x07", "\u202e"} & set(result.output)
    lines = result.output.splitlines()
    assert [line for line in lines if line.startswith("Private key")] == ["Private key   not given"]
    assert "Error: none" not in lines
