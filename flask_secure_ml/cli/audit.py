"""``flask secure-ml audit``: make the keys of an audit log, verify it, read it and export it.

None of these commands loads the app, so they run where neither the app nor its secrets are.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup

from ..observe.audit.export import as_cef, as_ecs
from ..observe.audit.findings import Report
from ..observe.audit.keys import load_app_keys, load_verification_key, make_keys
from ..observe.audit.reading import Filters, follow, records_of
from ..observe.audit.records import Members
from ..observe.audit.verify import log_bytes, verify_log
from .context import json_option, mistakes_as_messages

audit: AppGroup = AppGroup("audit", help="Make, verify, read and export the audit log.")

TAMPERED = 1
_folder = click.argument("folder", metavar="DIRECTORY", type=click.Path(file_okay=False, path_type=Path))
_existing = click.argument("folder", metavar="DIRECTORY", type=click.Path(exists=True, file_okay=False, path_type=Path))
_file = click.Path(dir_okay=False, path_type=Path)


@audit.command("init", with_appcontext=False)
@_folder
@click.option("--verification-key", required=True, type=_file, help="Where the verification key is written.")
@click.option("--origin", help="The name of the log in checkpoints. Default: the name of this machine.")
def init(folder: Path, verification_key: Path, origin: str | None) -> None:
    """Create the DIRECTORY of an audit log, with the keys of the app, and the verification key.

    Move the verification key to another machine: whoever has it can forge records, and whoever has only the keys of the
    app cannot change what is recorded already without being detected.
    """
    with mistakes_as_messages():
        verifier = make_keys(folder, verification_key, origin or f"{platform.node() or 'localhost'}/audit")
    click.echo(f"Created {folder}; set SECURE_ML_AUDIT_LOG to it.")
    click.echo(f"The verification key is {verification_key}: move it to another machine, and keep it secret.")
    click.echo(f"Checkpoints are signed by: {verifier}")


@audit.command("verify", with_appcontext=False)
@_existing
@click.option("--key", required=True, type=_file, help="The verification key.")
@click.option(
    "--checkpoint-from",
    "outside",
    type=click.File("r", encoding="utf-8", errors="replace"),
    multiple=True,
    help="A file with the checkpoints that a sink has stored, also in syslog messages; repeat it for several.",
)
@click.option("--max-age", type=click.IntRange(min=1), help="Seconds that the newest checkpoint may be old.")
@click.option(
    "--retention-days",
    type=click.IntRange(min=1),
    help="Days after which covered files may have been deleted. Default: nothing may.",
)
@json_option
def verify(
    folder: Path, key: Path, outside: Sequence[Any], max_age: int | None, retention_days: int | None, as_json: bool
) -> None:
    """Verify the audit log in DIRECTORY.

    Exit code 0 if nothing was changed up to the last outside checkpoint, 1 if something was, 2 if the files cannot be
    read. The first finding of each stream is the first record that is wrong.
    """
    try:
        found = load_verification_key(key)
        content = "\n".join(each.read() for each in outside) if outside else None
        with click.progressbar(length=log_bytes(folder), label="Verifying", file=sys.stderr) as bar:
            report = verify_log(
                folder,
                found,
                outside=content,
                now=time.time(),
                max_age=max_age,
                retention_days=retention_days,
                progress=bar.update,
            )
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps(_members(report)))
    else:
        for line in _lines(report):
            click.echo(line)
    if not report.ok:
        raise click.exceptions.Exit(TAMPERED)


@audit.command("show", with_appcontext=False)
@_existing
@click.option("--action", help='What was done, such as "request" or "key_revoked".')
@click.option("--principal", help="The id of a caller.")
@click.option("--client", help="The name of a client.")
@click.option("--network", help="The network of a caller.")
@click.option("--endpoint", help="An endpoint.")
@click.option("--status", help="A status, such as 401.")
@click.option("--code", help="The code of an error.")
@click.option("--request-id", help="The id of a request.")
@click.option("--since", default="", help="The first instant in UTC, such as 2026-05-01T12:00.")
@click.option("--until", default="", help="The instant before which records end.")
@click.option("--follow", "following", is_flag=True, help="Print new records as they are written, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(min=1), help="How many records are printed at most.")
@json_option
def show(
    folder: Path, since: str, until: str, following: bool, limit: int | None, as_json: bool, **equal: str | None
) -> None:
    """Print the records in DIRECTORY, without verifying them."""
    filters = Filters({name: value for name, value in equal.items() if value is not None}, since, until)
    with mistakes_as_messages():
        found = follow(folder) if following else records_of(folder)
        for record in islice(filter(filters.match, found), limit):
            click.echo(json.dumps(record) if as_json else _sentence(record))


@audit.command("export", with_appcontext=False)
@_existing
@click.option("--format", "form", type=click.Choice(["ecs", "cef"]), default="ecs", show_default=True)
@click.option("--since", default="", help="The first instant in UTC, such as 2026-05-01T12:00.")
@click.option("--until", default="", help="The instant before which records end.")
def export(folder: Path, form: str, since: str, until: str) -> None:
    """Print the records in DIRECTORY for other systems, one a line."""
    with mistakes_as_messages():
        for record in filter(Filters({}, since, until).match, records_of(folder)):
            # In ASCII, so that no control or direction character reaches a terminal.
            line = json.dumps(as_ecs(record)) if form == "ecs" else as_cef(record)
            click.echo(line)


@audit.command("digest", with_appcontext=False)
@_existing
@click.argument("body", type=click.File("rb"))
def digest(folder: Path, body: Any) -> None:
    """Print the digest of BODY as the log in DIRECTORY records it: input_digest of the request that sent it."""
    with mistakes_as_messages():
        click.echo(load_app_keys(folder).digest_of(body.read()))


def _lines(report: Report) -> Iterator[str]:
    yield from map(str, report.findings)
    yield f"{report.records} records in {report.streams} streams, {report.leaves} leaves in the index"
    if report.covered is None:
        yield "No outside checkpoint was given: what someone with the keys of the app cut or replaced is not detected."
    else:
        yield f"Outside checkpoints cover {report.covered} leaves; what came later can have been cut."
    yield "ok: nothing was changed" if report.ok else "TAMPERED: the log is not as it was written"


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
    return " ".join([*named, *rest])
