"""``flask secure-ml why``: explains one request from the request log and the audit log."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import click
from flask.cli import with_appcontext

from ..config import Settings
from ..observe.request_log.reading import log_files, opened
from ..observe.trail import Around, Found, Sum, Trail
from ..refresh import sentence_of
from .context import command_state, in_ascii, json_option
from .why_in_words import SHOWN, Story, client_saw, commands_of, labelled_lines, rank_of

STANDARD_INPUT = "-"
_STEPS = 200


@click.command("why")
@click.argument("request_id")
@click.option("--log", "log", metavar="FILE", help="The request log; - for standard input.")
@click.option(
    "--audit",
    "audit",
    metavar="DIRECTORY",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The audit log.",
)
@click.option(
    "--minutes",
    type=click.IntRange(1, 10_080),
    default=10,
    show_default=True,
    help="Minutes before and after the request for which the activity of the same client is summarized.",
)
@json_option
@with_appcontext
def why(request_id: str, log: str | None, audit: Path | None, minutes: int, as_json: bool) -> None:
    """Explain what happened to the request REQUEST_ID, and print commands to respond to it.

    Clients get the id in the header X-Request-ID and in the body of an error. Both logs are read if both exist,
    including rotated files of the request log (.1, .2.gz).
    """
    settings = command_state().settings
    if audit is None and settings.audit_log != "off":
        audit = Path(settings.audit_log)
    with _opened_logs(log, settings, is_needed=audit is None) as files, _progress(files, audit) as progress:
        trail = Trail({str(each): partial(_opened, each) for each in files}, audit, progress)
        found = trail.find(request_id)
        arounds = [trail.around(each, minutes * 60) for each in found.requests[:SHOWN]]
    if not found.requests and not found.messages:
        read = [each for each in files if str(each) not in trail.problems]
        searched = [*([_files(read)] if read else []), *([] if audit is None else [f"the audit log {audit}"])]
        raise click.ClickException("; ".join([_not_found(request_id, searched, settings), *_problems(trail)]))
    for problem in _problems(trail):
        click.echo(f"Warning: {problem}", err=True)
    stories = list(zip(found.requests, arounds, strict=False))
    if as_json:
        click.echo(json.dumps(_members(request_id, found, stories)))
        return
    for name, text in labelled_lines(found, stories, minutes):
        click.echo(f"{name + ':':<9}{in_ascii(text)}" if name else "")


File = Path | IO[bytes]


@contextmanager
def _opened_logs(log: str | None, settings: Settings, *, is_needed: bool) -> Iterator[list[File]]:
    """Yield the files of the request log; standard input is copied to a file, because it is read twice."""
    if log == STANDARD_INPUT:
        with TemporaryFile() as kept:
            shutil.copyfileobj(sys.stdin.buffer, kept)
            yield [kept]
        return
    path = log or settings.request_log
    if log is None and (path in {"stderr", "stdout", "off"} or path.startswith("logging:")):
        if is_needed:
            raise click.ClickException(
                f"SECURE_ML_REQUEST_LOG is {path!r}, which is not a file; name a file with --log FILE, "
                "pipe the log into --log -, or name an audit log with --audit DIRECTORY"
            )
        yield []
        return
    try:
        files = log_files(Path(path))
    except OSError as error:
        raise click.ClickException(sentence_of(error)) from None
    if not files and is_needed:
        raise click.ClickException(f"the log file {path} cannot be read")
    yield [*files]


@contextmanager
def _opened(file: File) -> Iterator[IO[bytes]]:
    if isinstance(file, Path):
        with opened(file) as stream:
            yield stream
    else:
        file.seek(0)
        yield file


@contextmanager
def _progress(files: list[File], audit: Path | None) -> Iterator[Any]:
    """Yield a callback for the number of bytes read: a progress bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _bytes: None
        return
    paths = [each for each in files if isinstance(each, Path)]
    paths += [] if audit is None else [*(audit / "streams").glob("*.jsonl")]
    # Each file is read twice: for the request, and for its history.
    total = 2 * sum(each.stat().st_size for each in paths if each.exists())
    # Drawing the bar for each line would take longer than reading the line.
    steps = max(1, total // _STEPS)
    with click.progressbar(length=total, label="Reading", file=sys.stderr, update_min_steps=steps) as bar:
        yield bar.update
        # The rest of a step, and of an audit log that is not read twice.
        bar.update(max(steps, total - bar.pos))


def _files(files: list[File]) -> str:
    if not isinstance(files[0], Path):
        return "standard input"
    older = len(files) - 1
    return f"{files[0]} and {older} older {'file' if older == 1 else 'files'}" if older else str(files[0])


def _problems(trail: Trail) -> list[str]:
    return [in_ascii(f"{name} could not be read ({reason})") for name, reason in trail.problems.items()]


def _not_found(request_id: str, searched: list[str], settings: Settings) -> str:
    sentence = f"request {in_ascii(request_id)} is not in {' or '.join(searched) or 'any readable log'}"
    sample = settings.request_log_sample
    return sentence if sample >= 1 else f"{sentence}; only {sample:g} of the 2xx responses are logged"


def _around(around: Around) -> dict[str, Any]:
    # asdict() would rebuild a Counter by counting its items.
    parts = {
        name: {**vars(part), "codes": dict(part.codes)} for name, part in vars(around).items() if isinstance(part, Sum)
    }
    return {**parts, "callers": dict(around.callers), "events": around.events}


def _members(request_id: str, found: Found, stories: list[Story]) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "requests": [
            {
                "client_saw": client_saw(request),
                "log": request.log,
                "audit": request.audit,
                "stream_ends": request.ends,
                "around": None if around is None else _around(around),
                "rejections": None if around is None else rank_of(request, around),
                "commands": [command for command, _ in commands_of(request, around)],
            }
            for request, around in stories
        ],
        "messages": found.messages,
        "left_out": found.left_out + len(found.requests) - len(stories),
    }
