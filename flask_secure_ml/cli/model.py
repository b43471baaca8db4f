"""``flask secure-ml model`` and ``profile``: inspect model files, and profile training data."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup

from ..inputs.model_inputs import ModelInputsError, inputs_of, schema_source
from ..inputs.profiles.file import ProfileError
from ..inputs.profiles.fit import QUANTILES, read_columns
from ..inputs.profiles.fit import fit as fit_columns
from ..model_files import ModelFileError, directory_digest, file_digest, find_code, read_directory, read_file
from ..model_files.files import MAX_BYTES, Files
from .context import mistakes_as_messages, one_line

model: AppGroup = AppGroup("model", help="Inspect model files.")


@model.command("digest", with_appcontext=False)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--max-bytes", type=click.IntRange(min=0), default=MAX_BYTES, show_default=True, help="The maximum size in bytes."
)
def digest(path: Path, max_bytes: int) -> None:
    """Print the SHA-256 digest of a model file, as sha256sum does; of a directory, one digest of all its files.

    Run it where the model was built. Warnings about content that can run code when it is loaded go to standard error.
    """
    try:
        files: Files = read_directory(path, max_bytes) if path.is_dir() else {path.name: read_file(path, max_bytes)}
    except ModelFileError as error:
        raise click.ClickException(str(error)) from None
    value = directory_digest(files) if path.is_dir() else file_digest(files[path.name])
    click.echo(one_line(f"{value}  {path.name}"))
    for name, data in files.items():
        for finding in find_code(data, max_bytes):
            if not (path.is_dir() and finding.reads_only(name, files)):
                click.echo(one_line(f"Warning: {name} is {finding}; loading it can {finding.consequence}"), err=True)


profile: AppGroup = AppGroup("profile", help="Profile training data.")


@profile.command("fit", with_appcontext=False)
@click.argument("data", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The output file. Default: standard output.")
@click.option("--target", "targets", multiple=True, help="A column to leave out, by name, or by number for .npy.")
@click.option(
    "--quantiles",
    default=",".join(map(str, QUANTILES)),
    show_default=True,
    help="Probabilities from 0 to 1 in ascending order, separated by commas.",
)
def fit(data: Path, output: Path | None, targets: Sequence[str], quantiles: str) -> None:
    """Write the input profile of training data as JSON: range, quantiles and missing values of each feature.

    DATA is an .npy file, a .csv file with a header line, or a .parquet file.
    """
    with mistakes_as_messages():
        found = fit_columns(read_columns(data, targets), _numbers(quantiles))
        if output is not None:
            found.save(output)
    if output is None:
        click.echo(found.to_json(), nl=False)
    click.echo(f"{found.rows} rows, {len(found.features)} features", err=True)


@model.command("schema", with_appcontext=False)
@click.argument("name", metavar="MODEL")
def schema(name: str) -> None:
    """Print the Python source of a schema for the inputs of a model.

    MODEL is an .onnx file, the directory of an MLflow model, or module:object, which is imported: a fitted scikit-learn
    estimator, for example. Pickles are never loaded.
    """
    module, colon, attribute = name.partition(":")
    with mistakes_as_messages():
        is_import = colon and not Path(name).exists()
        click.echo(schema_source(inputs_of(_imported(module, attribute) if is_import else name)))


def _numbers(quantiles: str) -> list[float]:
    try:
        return list(map(float, quantiles.split(",")))
    except ValueError:
        raise ProfileError("--quantiles must be numbers separated by commas, such as 0.001,0.999") from None


def _imported(module: str, name: str) -> Any:
    try:
        with _from_here():
            return attrgetter(name)(import_module(module))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ModelInputsError(f"{module}:{name} cannot be imported: {error}") from None


@contextmanager
def _from_here() -> Iterator[None]:
    """Import modules from the working directory, as ``flask --app`` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
