"""What every command needs first: the state of the app it was called for."""

from __future__ import annotations

import click
from flask import Flask, current_app

from ..state import AppState, state_of


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


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows with aligned columns; the first row holds the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
