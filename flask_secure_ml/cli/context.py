"""Shared by all commands: the app, and error messages without a traceback."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from ..describing import in_command
from ..errors import ConfigError, DependencyUnavailable
from ..refresh import sentence_of
from ..state import AppState, state_of

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class SecureMLGroup(AppGroup):
    """A group whose commands print problems of the configuration as a message.

    Flask imports this group for every ``flask`` command, so a command is only imported to run or list it.

    :param modules: the module of each command, by name.
    """

    def __init__(self, name: str, *, modules: Mapping[str, str], help: str) -> None:  # noqa: A002  click's own name
        super().__init__(name, help=help)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name, or None."""
        module = self._modules.get(cmd_name)
        if module is None:
            return None
        return cast("click.Command", getattr(import_module(f".{module}", __package__), cmd_name))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        :raises click.ClickException: the configuration is invalid; the message has a line for each problem.
        """
        try:
            with in_command():
                return super().invoke(ctx)
        except ConfigError as error:
            from ..checks.loading import located

            raise click.ClickException(str(ConfigError(located(error)))) from None


def command_app() -> Flask:
    """Return the app itself, not its proxy."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


def command_state() -> AppState:
    """Return the state of the app.

    :raises click.ClickException: the app is not protected.
    """
    try:
        return state_of(command_app())
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None


def audit_event(action: str, **members: Any) -> None:
    """Write a record of a command's action to the audit log.

    :raises click.ClickException: it cannot be written and ``SECURE_ML_AUDIT_REQUIRED`` is set.
    """
    log = command_state().audit
    reason = log.event(action, {**members, "user": _user()}) if log is not None else None
    if log is not None and reason is not None:
        if log.required:
            raise click.ClickException(f"done, but {reason}")
        click.echo(f"Warning: {reason}", err=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def missing(setting: str, sentence: str) -> click.ClickException:
    """Return the error of a command for a missing setting.

    It also explains why a variable in the environment is not read.

    :param sentence: the message without this explanation.
    """
    reason = ""
    if setting not in command_app().config:
        if f"FLASK_{setting}" in os.environ:
            reason = f"; FLASK_{setting} is not read: call app.config.from_prefixed_env() before init_app"
        elif setting in os.environ:
            reason = f"; the variable must be FLASK_{setting}"
    return click.ClickException(sentence + reason)


@contextmanager
def mistakes_as_messages(hint: str = "") -> Iterator[None]:
    """Convert errors of stores and checks to messages without a traceback.

    :param hint: what to do when the store is down.
    """
    try:
        yield
    except BrokenPipeError:
        # The reader of the output, such as head, closed the pipe: click ends the command without a message.
        raise
    except DependencyUnavailable as error:
        raise click.ClickException(error.reason + hint) from None
    except (OSError, ValueError) as error:
        raise click.ClickException(sentence_of(error)) from None


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows with aligned columns; the first row contains the headings."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def printable(line: str) -> str:
    """Return a line with terminal control characters escaped."""
    return "".join(
        each if each.isprintable() or each in "\t\n" else each.encode("unicode_escape").decode() for each in line
    )


def one_line(text: str) -> str:
    """Return an untrusted string as one line, with control characters escaped."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def in_ascii(text: str) -> str:
    """Return an untrusted string as one line of ASCII, for values that people compare and paste into commands."""
    return "".join(
        [each if each.isascii() and each.isprintable() else each.encode("unicode_escape").decode() for each in text]
    )
