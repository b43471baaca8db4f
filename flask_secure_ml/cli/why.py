"""``flask secure-ml why``: what happened to one request, from the request log."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext
from werkzeug.exceptions import HTTPException, default_exceptions

from ..config import Settings
from ..errors import SecureMLError, slug_and_detail
from ..observe.request_log.reading import log_files, opened, records_of
from .context import command_state, json_option

STANDARD_INPUT = "-"
_ERRORS = 400
_SERVER_ERRORS = 500
_OWN_TEXT = re.compile(r"(\w+): (.*)", re.DOTALL)


@click.command("why")
@click.argument("request_id")
@click.option("--log", "log", metavar="FILE", help="The request log; - reads standard input.")
@json_option
@with_appcontext
def why(request_id: str, log: str | None, as_json: bool) -> None:
    """Print what happened to the request REQUEST_ID.

    A client finds the id in the header X-Request-ID and in the body of an error. Files that were rotated away from the
    request log (.1, .2.gz) are read too.
    """
    settings = command_state().settings
    records = _from_input(request_id) if log == STANDARD_INPUT else _from_files(request_id, log, settings)
    if as_json:
        main = next((each for each in records if "status" in each and "event" not in each), {})
        click.echo(json.dumps({"request_id": request_id, "client_saw": _client_saw(main), "records": records}))
        return
    for record in records:
        for name, text in _described(record):
            click.echo(f"{name + ':':<9}{printable(text)}")


def _from_input(request_id: str) -> list[dict[str, Any]]:
    found = records_of(sys.stdin.buffer, request_id)
    if not found:
        raise click.ClickException(f"request {printable(request_id)} is not in what was read from standard input")
    return found


def _from_files(request_id: str, log: str | None, settings: Settings) -> list[dict[str, Any]]:
    path = log or settings.request_log
    if log is None and (path in {"stderr", "stdout", "off"} or path.startswith("logging:")):
        raise click.ClickException(
            f"SECURE_ML_REQUEST_LOG is {path!r}, which cannot be read; name a file with --log FILE, "
            "or pipe the log into --log -"
        )
    read = 0
    problems = []
    try:
        files = log_files(Path(path))
    except OSError as error:
        raise click.ClickException(str(error)) from None
    for file in files:
        try:
            with opened(file) as stream:
                found = records_of(stream, request_id)
        except OSError as error:
            problems.append(f"{file} could not be read ({error.strerror or error})")
            continue
        if found:
            return found
        read += 1
    raise click.ClickException("; ".join([_not_found(request_id, path, read, settings.request_log_sample), *problems]))


def _not_found(request_id: str, path: str, read: int, sample: float) -> str:
    if not read:
        return f"there is no log file {path} that can be read"
    files = path if read == 1 else f"{path} and {read - 1} older {'file' if read == 2 else 'files'}"  # noqa: PLR2004
    sentence = f"request {printable(request_id)} is not in {files}"
    return sentence if sample >= 1 else f"{sentence}; only {sample:g} of the 2xx responses are logged"


def _described(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a line means: a label, and words."""
    if "logger" in record:
        yield "Message", f"{record.get('level')} {record.get('logger')}: {record.get('message')}"
        return
    if record.get("event") == "stream_end":
        reason = record.get("reason")
        how = f"ended too early: {reason}" if reason else "ended as it should"
        yield "Stream", f"{how}, {record.get('ms')} ms after the request began"
        return
    yield "Time", str(record.get("time"))
    yield "Who", _who(record)
    yield "What", _what(record)
    code = record.get("code")
    yield "Result", f"{record.get('status')}{f' {code}' if code else ''} after {record.get('ms')} ms"
    if record.get("reason"):
        yield "Why", str(record["reason"])
    if record.get("pointers"):
        yield "Where", ", ".join(map(str, record["pointers"]))
    if record.get("limit"):
        yield "Limit", f"{record['limit']}, {record.get('limit_remaining')} left"
    yield "Client", f"saw {_client_saw(record)}"
    if record.get("trace_id"):
        yield "Trace", str(record["trace_id"])


def _who(record: dict[str, Any]) -> str:
    principal = record.get("principal")
    parts = [str(principal) if principal else "nobody who is known"]
    if record.get("client_id"):
        parts.append(f"client {record['client_id']}")
    if record.get("plan"):
        parts.append(f"plan {record['plan']}")
    return ", ".join([*parts, f"from {record.get('client') or 'a Unix socket'}"])


def _what(record: dict[str, Any]) -> str:
    where = record.get("http.route") or record.get("path") or record.get("endpoint")
    parts = [f"{record.get('method')} {where}", f"{record.get('bytes_in')} bytes in"]
    if "http.response.body.size" in record:
        parts.append(f"{record['http.response.body.size']} bytes out")
    if "rows" in record:
        parts.append(f"{record['rows']} rows charged")
    return ", ".join(parts)


def _client_saw(record: dict[str, Any]) -> str:
    """Return what the client saw of the response, in words."""
    status, code, reason = record.get("status"), record.get("code"), record.get("reason")
    if not isinstance(status, int) or status < _ERRORS or not code:
        return "the response of the app"
    own = _OWN_TEXT.fullmatch(reason) if isinstance(reason, str) and status < _SERVER_ERRORS else None
    detail = own[2] if own and own[1] in _raised_by_apps() else _details().get(str(code), "a text of the app")
    saw = f'{status} {code}: "{detail}"'
    places = len(record.get("pointers") or ())
    return f"{saw} and where the body is wrong" if places else saw


def _raised_by_apps() -> set[str]:
    return {kind.__name__ for kind in default_exceptions.values()}


def _details() -> dict[str, str]:
    """Return the sentence that clients get for each code."""
    found = dict(slug_and_detail(kind()) for kind in default_exceptions.values())
    kinds: list[type[HTTPException]] = [SecureMLError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if issubclass(kind, SecureMLError):
            found[kind.slug] = kind.detail
    return found


def printable(text: str) -> str:
    """Return a string with everything escaped that a terminal could obey."""
    return "".join(
        [each if each.isascii() and each.isprintable() else each.encode("unicode_escape").decode() for each in text]
    )
