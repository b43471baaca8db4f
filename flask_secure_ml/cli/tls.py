"""``flask secure-ml tls``: creates development certificates, and inspects certificate files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup

from ..deploy.certificate_report import Entry, report
from ..deploy.dev_certificate import DevCertificate, ensure
from .context import json_option, mistakes_as_messages, one_line

tls: AppGroup = AppGroup("tls", help="Create development certificates, and inspect certificate files.")


@tls.command("dev-certificate", with_appcontext=False)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".tls"),
    show_default=True,
    help="The directory of the files.",
)
@json_option
def dev_certificate(names: Sequence[str], directory: Path, as_json: bool) -> None:
    """Create a certificate for localhost, 127.0.0.1, ::1 and the NAMEs, signed by a local certificate authority.

    Existing files are kept if they are valid for at least 30 more days. A new NAME requires a new authority, because an
    authority may only sign certificates for its own names.
    """
    with mistakes_as_messages():
        found = ensure(directory.resolve(), names, datetime.now(UTC))
    click.echo(json.dumps(_members(found)) if as_json else "\n".join(_advice(found)))


@tls.command("show", with_appcontext=False)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--key",
    "key_path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The file of the private key, unless FILE contains it.",
)
@json_option
def show(path: Path, key_path: Path | None, as_json: bool) -> None:
    """Print the names, validity, keys, chain and problems of the certificates in FILE.

    Exit code 1 if clients would reject the certificate or a server could not use it.
    """
    with mistakes_as_messages():
        found = report(path, key_path, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps(asdict(found), default=_time))
    else:
        for number, entry in enumerate(found.certificates):
            click.echo("\n".join(map(one_line, _lines(number, entry))))
        click.echo(f"Private key   {'yes' if found.private_key else 'not given'}")
    for kind, sentences in (("Error", found.errors), ("Warning", found.warnings)):
        for sentence in sentences:
            click.echo(one_line(f"{kind}: {sentence}"), err=True)
    if found.errors:
        raise click.exceptions.Exit(1)


def _members(found: DevCertificate) -> dict[str, Any]:
    return {
        "authority": str(found.authority),
        "certificate": str(found.certificate),
        "private_key": str(found.key),
        "names": list(found.names),
        "expires": _time(found.expires),
        "created": found.created or None,
    }


def _advice(found: DevCertificate) -> Iterator[str]:
    what = {
        "authority": "Created a certificate authority and a certificate",
        "certificate": "Created a certificate, signed by the same authority",
        "": "Kept the certificate",
    }
    authority, certificate, key = (shlex.quote(str(path)) for path in (found.authority, found.certificate, found.key))
    yield f"{what[found.created]}, valid until {found.expires:%Y-%m-%d}, for {', '.join(found.names)}."
    yield "Run this command again to renew it. gunicorn uses the new certificate immediately; reload other servers."
    yield ""
    yield f"  Authority:    {authority}"
    yield f"  Certificate:  {certificate}"
    yield f"  Private key:  {key}"
    yield ""
    yield "Serve with it:"
    yield f"  flask --app app run --cert {certificate} --key {key}"
    yield f"  export SECURE_ML_SERVE_CERTIFICATE={certificate} SECURE_ML_SERVE_PRIVATE_KEY={key}"
    yield "  gunicorn -c python:flask_secure_ml.deploy.gunicorn --bind 127.0.0.1:8443 'app:create_app()'"
    yield ""
    yield "Call it with the authority trusted for this request only:"
    yield f"  curl --cacert {authority} https://localhost:8443/"
    yield f"  export SSL_CERT_FILE={authority}  # httpx and urllib; REQUESTS_CA_BUNDLE for requests"
    yield ""
    yield "To trust the authority in browsers, too, for these names only:"
    yield f"  Debian, Ubuntu   sudo cp {authority} /usr/local/share/ca-certificates/flask-secure-ml.crt"
    yield "                   sudo update-ca-certificates"
    yield f"  Fedora           sudo trust anchor {authority}"
    yield f"  macOS            security add-trusted-cert -k ~/Library/Keychains/login.keychain-db {authority}"
    yield "  Firefox, Chrome  Settings, Certificates, Authorities, Import"


def _lines(number: int, entry: Entry) -> Iterator[str]:
    yield f"{'Certificate' if not number else 'Signed by'}   {entry.subject}"
    yield f"  Names       {', '.join(entry.names) or '-'}"
    yield f"  Issuer      {entry.issuer}"
    yield f"  Valid       {_time(entry.not_before)} to {_time(entry.not_after)}"
    yield f"  Key         {entry.key}, signed with {entry.signature}{', an authority' if entry.authority else ''}"
    yield f"  Serial      {entry.serial}"
    yield f"  SHA-256     {entry.sha256}"


def _time(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
