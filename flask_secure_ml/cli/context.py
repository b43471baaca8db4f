"""What the commands share: the app, and mistakes of the user as messages without a traceback."""

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

from ..errors import ConfigError, DependencyUnavailable
from ..state import AppState, state_of

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class SecureMLGroup(AppGroup):
    """A group whose commands print the problems of a configuration, wherever it is read.

    Flask imports this group for every ``flask`` command, so each command here is imported only to run it or to list it.

    :param modules: the module of each command in this package.
    """

    def __init__(self, name: str, *, modules: Mapping[str, str], help: str) -> None:  # noqa: A002  click's own name
        super().__init__(name, help=help)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none of this name."""
        module = self._modules.get(cmd_name)
        if module is None:
            return None
        return cast("click.Command", getattr(import_module(f".{module}", __package__), cmd_name))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        :raises click.ClickException: the configuration is wrong; the message has a line for each problem.
        """
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise click.ClickException(str(error)) from None


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
    """Write a record of what a command did to the audit log.

    :raises click.ClickException: it cannot be written, and ``SECURE_ML_AUDIT_REQUIRED`` is set.
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


@contextmanager
def mistakes_as_messages(hint: str = "") -> Iterator[None]:
    """Turn what a store or a check raises into a message without a traceback.

    :param hint: what to do when the store is down.
    """
    try:
        yield
    except DependencyUnavailable as error:
        raise click.ClickException(error.reason + hint) from None
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows with aligned columns; the first row holds the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
