"""``flask secure-ml audit``: create, verify, read, export and report on audit logs.

These commands do not load the app, except for a report with expiring API keys, so they run on machines without the app
and its secrets.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup

from ..observe.audit.export import as_cef, as_ecs
from ..observe.audit.findings import Report
from ..observe.audit.keys import load_app_keys, make_keys
from ..observe.audit.reading import Filters, follow, records_of
from ..observe.audit.records import Members, text
from .audit_report import TAMPERED
from .audit_report import report as report_command
from .context import json_option, mistakes_as_messages
from .verification import Verification, existing_log, verification_options

audit: AppGroup = AppGroup("audit", help="Create, verify, read, export and report on audit logs.")

_folder = click.argument("folder", metavar="DIRECTORY", type=click.Path(file_okay=False, path_type=Path))
_existing = click.argument("folder", metavar="DIRECTORY", type=click.Path(exists=True, file_okay=False, path_type=Path))
_log = click.argument(
    "folder",
    metavar="DIRECTORY",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    callback=existing_log,
)
_file = click.Path(dir_okay=False, path_type=Path)


@audit.command("init", with_appcontext=False)
@_folder
@click.option("--verification-key", required=True, type=_file, help="The file to write the verification key to.")
@click.option("--origin", help="The name of the log in checkpoints. Default: the host name.")
def init(folder: Path, verification_key: Path, origin: str | None) -> None:
    """Create the DIRECTORY of an audit log with the keys of the app, and the verification key.

    Move the verification key to another machine: with it, an attacker can forge records. With the keys of the app
    alone, changes to existing records are detected.
    """
    with mistakes_as_messages():
        verifier = make_keys(folder, verification_key, origin or f"{platform.node() or 'localhost'}/audit")
    click.echo(f"Created {folder}; set SECURE_ML_AUDIT_LOG to it.")
    click.echo(f"The verification key is {verification_key}: move it to another machine, and keep it secret.")
    click.echo(f"Checkpoints are signed by: {verifier}")


@audit.command("verify", with_appcontext=False)
@_existing
@verification_options(required=True)
@json_option
def verify(
    folder: Path, key: Path, outside: Sequence[Any], max_age: int | None, retention_days: int | None, as_json: bool
) -> None:
    """Verify the audit log in DIRECTORY.

    Exit code 0 if the log is intact up to the last external checkpoint, 1 if it was tampered with, 2 if the files
    cannot be read. The first finding of each stream is its first invalid record.
    """
    report = Verification(key, outside, max_age, retention_days).run(folder)
    if as_json:
        click.echo(json.dumps(_members(report)))
    else:
        for line in _lines(report):
            click.echo(line)
        if not report.ok and report.streams and not report.records:
            click.echo(f"Is {key} the verification key of this log? It does not match any record.", err=True)
    if not report.ok:
        raise click.exceptions.Exit(TAMPERED)


audit.add_command(report_command)


@audit.command("show", with_appcontext=False)
@_log
@click.option("--action", help='The action, such as "request" or "key_revoked".')
@click.option("--principal", help="The principal of a caller.")
@click.option("--client", help="The name of a client.")
@click.option("--network", help="The network of a caller.")
@click.option("--endpoint", help="An endpoint.")
@click.option("--status", help="A status code, such as 401.")
@click.option("--code", help="An error code.")
@click.option("--request-id", help="A request id.")
@click.option("--since", default="", help="The start in UTC, such as 2026-05-01T12:00.")
@click.option("--until", default="", help="The end in UTC, exclusive.")
@click.option("--follow", "following", is_flag=True, help="Print new records as they are written, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(min=1), help="The maximum number of records to print.")
@json_option
def show(
    folder: Path, since: str, until: str, following: bool, limit: int | None, as_json: bool, **equal: str | None
) -> None:
    """Print the records in DIRECTORY, without verifying them."""
    printed = False
    with mistakes_as_messages():
        filters = Filters({name: value for name, value in equal.items() if value is not None}, since, until)
        found = follow(folder) if following else records_of(folder)
        for record in islice(filter(filters.match, found), limit):
            click.echo(json.dumps(record) if as_json else _sentence(record))
            printed = True
    if not printed:
        click.echo("No record matches.", err=True)


@audit.command("export", with_appcontext=False)
@_log
@click.option("--format", "form", type=click.Choice(["ecs", "cef"]), default="ecs", show_default=True)
@click.option("--since", default="", help="The start in UTC, such as 2026-05-01T12:00.")
@click.option("--until", default="", help="The end in UTC, exclusive.")
def export(folder: Path, form: str, since: str, until: str) -> None:
    """Print the records in DIRECTORY in a format for other systems, one per line."""
    with mistakes_as_messages():
        for record in filter(Filters({}, since, until).match, records_of(folder)):
            # In ASCII, so that no control or bidirectional character reaches a terminal.
            line = json.dumps(as_ecs(record)) if form == "ecs" else as_cef(record)
            click.echo(line)


@audit.command("digest", with_appcontext=False)
@_existing
@click.argument("body", type=click.File("rb"))
def digest(folder: Path, body: Any) -> None:
    """Print the digest of BODY as in the member input_digest of a record in DIRECTORY."""
    with mistakes_as_messages():
        click.echo(load_app_keys(folder).digest_of(body.read()))


def _lines(report: Report) -> Iterator[str]:
    yield from map(str, report.findings)
    yield f"{report.records} records in {report.streams} streams, {report.leaves} leaves in the index"
    if report.covered is None:
        yield "No external checkpoint was given: truncation or replacement with the keys of the app cannot be detected."
    else:
        yield f"External checkpoints cover {report.covered} leaves; later records may be missing."
    yield "ok: the log is intact" if report.ok else "TAMPERED: the log was modified"


def _members(report: Report) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "records": report.records,
        "streams": report.streams,
        "leaves": report.leaves,
        "covered": report.covered,
        "findings": [asdict(each) for each in report.findings],
    }


_FIRST = ("time", "action", "status", "code", "method", "endpoint", "principal", "network")
_HIDDEN = {*_FIRST, "prev", "sealed", "signature", "stream", "seq"}


def _sentence(record: Members) -> str:
    named = [str(record[name]) for name in _FIRST if record.get(name) is not None]
    rest = [
        f"{name}={json.dumps(value)}" for name, value in record.items() if name not in _HIDDEN and value is not None
    ]
    # The files were not verified, so they may contain terminal control sequences.
    return text(" ".join([*named, *rest]))
