"""``flask secure-ml check``: reports problems of a setup, the consequence of each, and the line that fixes it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import PackageNotFoundError, version
from inspect import getsourcefile
from pathlib import Path

import click
from flask import Flask
from flask.cli import ScriptInfo

from ..checks import CHECKS, OFFLINE, ONLINE, OWN_CHECKS
from ..checks.finding import Check, Finding
from ..checks.loading import absent, is_absent, load
from ..checks.online.subject import Online
from ..checks.report import document, fails, lines
from ..checks.run import Progress, run, silent, with_ignores
from ..checks.sarif import sarif
from ..checks.setup import Setup, setup_of
from ..checks.url import URL, run_url
from ..checks.url.client import Client, credential_ring
from ..checks.url.site import Site
from ..config.checks import ignore_problem
from ..describing import described_only
from ..state import state_of
from .context import json_option, one_line

UNSEEN = (
    "Not checked: WSGI middleware that wraps the app under another name, such as application = "
    "DispatcherMiddleware(app, ...). Its own responses are not guarded: assign it to app.wsgi_app instead, and let the "
    "server load the app."
)

ELSEWHERE = "Not checked: secrets, API keys, files and stores of the server (--without-secrets)."

PROBE_SECONDS = 60.0
"""Time limit of one online or URL check in seconds; each exchange has a shorter timeout."""

HTTPS_PORT = 443

_CLEAR_LINE = "\r\x1b[K"
"""Moves a terminal to the start of the line and erases it (ECMA-48, EL)."""


@click.command()
@click.option("--online", is_flag=True, help="Also contact dependencies: stores, issuers, Vault, receivers of events.")
@click.option(
    "--without-secrets",
    "described",
    is_flag=True,
    help="Check the app on a machine that lacks its secrets, API keys, files and stores, such as a CI runner.",
)
@click.option("--url", help="Also check the running service at this URL, through any proxy in front of it.")
@click.option(
    "--credential",
    metavar="REFERENCE",
    help="For --url: a reference (env:NAME or file:/path) to an API key or access token.",
)
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="For --url: the certificate authorities (PEM) to verify the server with.",
)
@click.option(
    "--clear-text-port",
    type=click.IntRange(0, 65535),
    help="For --url: the port of the host that should not respond in clear text. Default: 80 if the URL has port 443.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, 600),
    default=0.0,
    help="For --url: seconds after which an idle client must be disconnected. Default: not checked.",
)
@click.option("--strict", is_flag=True, help="Also exit with 1 on warnings.")
@click.option(
    "--ignore",
    "ignored",
    multiple=True,
    metavar="ID=REASON",
    help="Ignore a finding, such as SML405='one worker'; can be repeated. The setting "
    "SECURE_ML_CHECK_IGNORE does the same.",
)
@click.option(
    "--sarif",
    "sarif_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report to this file as SARIF 2.1.0, for code scanning.",
)
@json_option
@click.pass_context
def check(
    context: click.Context,
    *,
    online: bool,
    described: bool,
    url: str | None,
    credential: str | None,
    ca_file: str | None,
    clear_text_port: int | None,
    patience: float,
    strict: bool,
    ignored: tuple[str, ...],
    sarif_file: Path | None,
    as_json: bool,
) -> None:
    """Check the setup, and print the consequence of each finding and the line that fixes it.

    This reads the settings, policies, routes, keys and model files of the app. With --online, it also probes the
    dependencies of requests. With --url, it also sends a limited number of requests to the running service. Progress
    goes to standard error. Exit code 1 on an error, or with --strict on a warning; 0 otherwise.
    """
    if online and described:
        raise click.UsageError("--online contacts the dependencies of the app, which requires its secrets")
    ignores = _ignores(ignored)
    client = None if url is None else _client(url, credential, ca_file)
    info = context.ensure_object(ScriptInfo)
    with described_only() if described else nullcontext():
        app, found = (None, [absent()]) if client is not None and is_absent(info) else load(info.load_app)
    setup: Setup | None = None
    made: list[Check] = [*OWN_CHECKS]
    if app is not None:
        setup = setup_of(app, state_of(app), described=described)
        ignores = {**setup.settings.check_ignore, **ignores}
        found += run(OFFLINE, setup)
        made += OFFLINE
    with _progress(as_json=as_json) as progress:
        if online and setup is not None:
            found += run(ONLINE, Online(setup), seconds=PROBE_SECONDS, progress=progress)
            made += ONLINE
        if client is not None:
            port = clear_text_port if clear_text_port is not None else 80 * (client.port == HTTPS_PORT)
            site = Site(client, setup, port, patience)
            made += URL
            found += run_url(site, seconds=PROBE_SECONDS + patience, progress=progress)
    findings = with_ignores(found, ignores, CHECKS, made)
    if sarif_file is not None:
        _write_sarif(sarif_file, findings, app)
    if as_json:
        click.echo(json.dumps(document(findings, strict=strict)))
    else:
        for line in lines(findings):
            # It may contain text from a service or file; a separate line could be a workflow command of CI.
            click.echo(one_line(line))
        click.echo(UNSEEN, err=True)
        if described:
            click.echo(ELSEWHERE, err=True)
    context.exit(int(fails(findings, strict=strict)))


def _client(url: str, reference: str | None, ca_file: str | None) -> Client:
    """Return the client of the URL checks; the credential is given by reference only."""
    try:
        ring = None if reference is None else credential_ring(reference)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--credential") from None
    try:
        return Client(url, ring, ca_file)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None


@contextmanager
def _progress(*, as_json: bool) -> Iterator[Progress]:
    """Yield a progress callback: one line on a terminal, lines in a log, none for JSON."""
    if as_json:
        yield silent
    elif not sys.stderr.isatty():
        yield lambda title: click.echo(f"checking for: {title}", err=True)
    else:
        try:
            yield lambda title: click.echo(f"{_CLEAR_LINE}checking for: {title}", nl=False, err=True)
        finally:
            click.echo(_CLEAR_LINE, nl=False, err=True)


def _ignores(given: Sequence[str]) -> Mapping[str, str]:
    found = {}
    for entry in given:
        name, _, reason = entry.partition("=")
        problem = ignore_problem(name, reason)
        if problem is not None:
            raise click.BadParameter(f"{entry!r} {problem}", param_hint="--ignore")
        found[name] = reason
    return found


def _write_sarif(path: Path, findings: Sequence[Finding], app: Flask | None) -> None:
    found = sarif(findings, CHECKS, version=_version(), folder=Path.cwd(), source=_source(app))
    try:
        path.write_text(json.dumps(found, indent=2), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None


def _version() -> str:
    try:
        return version("flask-secure-ml")
    except PackageNotFoundError:
        return "0"


def _source(app: Flask | None) -> str:
    """Return the source file of the app, or the project file if there is none."""
    if app is not None and app.import_name in sys.modules:
        with suppress(TypeError):
            return getsourcefile(sys.modules[app.import_name]) or "pyproject.toml"
    return "pyproject.toml"
