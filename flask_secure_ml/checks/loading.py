"""Loads the app for the doctor: an exception becomes a finding, never a traceback."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from flask import Flask
from flask.cli import ScriptInfo

from ..errors import ConfigError
from ..model_files import ModelFileError
from ..state import AppState, state_of
from ..transport.gate import outer_problems
from . import own
from .finding import Finding, Found, Where

_PACKAGE = Path(__file__).resolve().parents[1]
_SETTING = re.compile(r"(?:SECURE_ML|RATELIMIT)_[A-Z0-9_]+[^\s:]*")
_FIX_LINE = "the line named in the message"
_USUAL = (Path("wsgi.py"), Path("app.py"))
# Their messages contain names of code and files. Other messages may contain values, such as a password in a URL.
_NAMES_ONLY = (AttributeError, ImportError, NameError, SyntaxError, TypeError, ModelFileError)


def load(find: Callable[[], Flask]) -> tuple[Flask | None, list[Finding]]:
    """Return the app and the findings that prevent checks; the app is None if it cannot be loaded.

    :param find: returns the app, or raises any exception of the user's code.
    """
    try:
        app = find()
    except ConfigError as error:
        return None, [own.CONFIG.finding(_problem(each, error)) for each in error.problems]
    except SystemExit as error:
        what = f"it exits the process (SystemExit {error.code})"
        return None, [own.LOAD.finding(Found(Where("app", "factory"), what))]
    except Exception as error:  # noqa: BLE001  it is code of the user
        found = _of_flask(error) if isinstance(error, click.ClickException) else _failure(error)
        return None, [own.LOAD.finding(found)]
    try:
        state = state_of(app)
    except RuntimeError as error:
        return None, [own.UNPROTECTED.finding(Found(Where("app", app.name), str(error)))]
    return app, [own.POLICIES.finding(Found(Where("app", app.name), each)) for each in _problems(app, state)]


def is_absent(info: ScriptInfo) -> bool:
    """Return True if no option, environment variable or default file names an app."""
    return info.app_import_path is None and info.create_app is None and not any(map(Path.is_file, _USUAL))


def absent() -> Finding:
    """Return the note that no app was named."""
    return own.NO_APP.finding(Found(Where("app", "factory"), "no app was named"))


def located(error: ConfigError) -> Iterator[str]:
    """Yield each problem, with the line of code that caused it if it names no setting."""
    for problem in error.problems:
        where = _problem(problem, error).where
        yield f"{problem} ({where.name})" if where.kind == "file" else problem


def _problems(app: Flask, state: AppState) -> Iterator[str]:
    yield from state.policies.problems()
    yield from outer_problems(app, state.settings.outer_middleware)


def _problem(problem: str, error: ConfigError) -> Found:
    """Return a problem with its setting, or with the line of code that caused it."""
    setting, last = _SETTING.match(problem), _last_line(error)
    if setting is not None:
        return Found(Where("setting", setting[0]), problem)
    if last is None:
        return Found(Where("app", "configuration"), problem)
    return Found(Where("file", _place(last), last.filename, last.lineno or 0), problem, _FIX_LINE)


def _last_line(error: Exception) -> traceback.FrameSummary | None:
    """Return the innermost line of the user's code in the traceback, or None."""
    frames = traceback.extract_tb(error.__traceback__)
    own_frames = [each for each in frames if "site-packages" not in each.filename and not _is_ours(each.filename)]
    return own_frames[-1] if own_frames else None


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(_PACKAGE)


def _place(line: traceback.FrameSummary) -> str:
    return f"{Path(line.filename).name}, line {line.lineno}"


def _of_flask(error: click.ClickException) -> Found:
    """Return why Flask finds no app, without the traceback that its message may contain."""
    cause = error.__cause__ or error.__context__
    if "Traceback" in error.message and isinstance(cause, Exception):
        return _failure(cause)
    return Found(Where("app", "factory"), error.message.strip().partition("\n\n")[0])


def _failure(error: Exception) -> Found:
    """Return the exception, and the line of code that raised it."""
    last = _last_line(error)
    if isinstance(error, OSError):
        message = f": {error.strerror or ''}" + (f": {error.filename}" if error.filename else "")
    else:
        message = f": {error}" if isinstance(error, _NAMES_ONLY) else ""
    place = f" in {_place(last)}" if last is not None else ""
    where = Where("app", "factory") if last is None else Where("app", "factory", last.filename, last.lineno or 0)
    return Found(where, f"{type(error).__name__}{place}{message}", _FIX_LINE if last is not None else "")
