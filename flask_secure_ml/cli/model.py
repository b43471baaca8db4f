"""``flask secure-ml model``: what one wants to know of a model file before an app loads it."""

from __future__ import annotations

from pathlib import Path

import click
from flask.cli import AppGroup

from ..models import ModelFileError, directory_digest, file_digest, find_code, read_directory, read_file
from ..models.files import MAX_BYTES, Files

model = AppGroup("model", help="Look at model files.")


@model.command("digest", with_appcontext=False)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, exists=True))
@click.option("--max-bytes", type=click.IntRange(min=0), default=MAX_BYTES, show_default=True, help="The largest size.")
def digest(path: Path, max_bytes: int) -> None:
    """Print the SHA-256 digest of a model file, as sha256sum does; of a directory, one digest of all its files.

    Run it where the model was made. Warnings about content that runs code when it is loaded go to the error output.
    """
    try:
        files: Files = read_directory(path, max_bytes) if path.is_dir() else {path.name: read_file(path, max_bytes)}
    except ModelFileError as error:
        raise click.ClickException(str(error)) from None
    value = directory_digest(files) if path.is_dir() else file_digest(files[path.name])
    click.echo(f"{value}  {path.name}")
    for name, data in files.items():
        for finding in find_code(data, max_bytes):
            if not (path.is_dir() and finding.reads_only(name, files)):
                click.echo(f"Warning: {name} is {finding}; loading it can {finding.consequence}", err=True)
