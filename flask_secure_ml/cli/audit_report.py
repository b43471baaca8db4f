"""``flask secure-ml audit report``: the audit log as one HTML page."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from flask.cli import ScriptInfo

from ..authentication.api_keys.key import ACTIVE
from ..observe.audit.reading import Filters
from ..observe.audit.verify import log_bytes
from ..observe.report.figures import Figures
from ..observe.report.page import Facts, render
from ..observe.report.tables import Expiring
from ..refresh import replace_file
from .context import command_state, missing, mistakes_as_messages
from .verification import Verification, check_is_log, verification_options

TAMPERED = 1
_DAY = 86_400


@click.command("report")
@click.argument("folder", metavar="DIRECTORY", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--html", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The HTML file to write.")
@click.option("--since", default="", help="The start in UTC, such as 2026-05-01T12:00.")
@click.option("--until", default="", help="The end in UTC, exclusive.")
@click.option("--title", default="", help="The title of the page.")
@click.option(
    "--expiring-days",
    type=click.IntRange(1, 3650),
    help="List the API keys that expire within this many days. This loads the app given by --app or FLASK_APP.",
)
@verification_options(required=False)
def report(
    folder: Path,
    html: Path,
    since: str,
    until: str,
    title: str,
    expiring_days: int | None,
    key: Path | None,
    outside: Sequence[Any],
    max_age: int | None,
    retention_days: int | None,
) -> None:
    """Write a report of the log in DIRECTORY as one HTML page.

    The page has no scripts and loads no resources. It names clients and principals, so only its owner can read the
    file. Exit code 1 if the verification fails; the page is still written, with a warning at its top.
    """
    if key is None and (outside or max_age or retention_days):
        raise click.UsageError("--checkpoint-from, --max-age and --retention-days require --key")
    if not outside:
        check_is_log(folder)
    now = int(time.time())
    expiring = None if expiring_days is None else _expiring(now, expiring_days)
    verified = None if key is None else Verification(key, outside, max_age, retention_days).run(folder)
    with mistakes_as_messages():
        figures = Figures(Filters({}, since, until))
        with click.progressbar(length=log_bytes(folder), label="Reading", file=sys.stderr) as bar:
            figures.read(folder, bar.update)
        more = 0 if verified is None else figures.scanned - verified.records
        page = render(figures, Facts(now, title, verified, expiring, expiring_days or 0, more))
        replace_file(html, page.encode())
    click.echo(f"Wrote {html}: {figures.requests} requests in {figures.records} records.")
    if verified is not None and not verified.ok:
        click.echo("TAMPERED: the log was modified", err=True)
        raise click.exceptions.Exit(TAMPERED)


def _expiring(now: int, days: int) -> list[Expiring]:
    """Return the API keys of the app that expire within the given number of days.

    :raises click.ClickException: there is no app, or it has no API keys.
    """
    app = click.get_current_context().ensure_object(ScriptInfo).load_app()
    with app.app_context(), mistakes_as_messages():
        store = command_state().keys
        if store is None:
            raise missing(
                "SECURE_ML_API_KEYS", "--expiring-days requires SECURE_ML_API_KEYS, which the app does not set"
            )
        uses = store.last_used()
        return [
            Expiring(each.id, each.client, each.expires, uses.get(each.id))
            for each in store.list()
            if each.expires is not None and each.status == ACTIVE and now < each.expires <= now + days * _DAY
        ]
