"""``flask secure-ml openapi``: the description of the app, for tools that generate clients or find changes."""

from __future__ import annotations

import json
from typing import IO

import click
from flask.cli import with_appcontext

from ..openapi import build_document
from .context import command_app, command_state


@click.command()
@click.option(
    "--output",
    type=click.File("w", encoding="utf-8", lazy=True, atomic=True),
    default="-",
    help="Write it to this file instead; the file is replaced as a whole.",
)
@with_appcontext
def openapi(output: IO[str]) -> None:
    """Print the OpenAPI 3.1 description of the app, whether it is served or not."""
    command_state()
    document = build_document(command_app())
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False), file=output)
