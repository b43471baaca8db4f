"""Checks of the model files that the configuration names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...model_files import find_code
from ..finding import Check, Found, Severity, Where
from ..setup import Setup
from .files import others_may

SUFFIXES = frozenset(
    {
        ".pkl",
        ".pickle",
        ".joblib",
        ".pt",
        ".pth",
        ".onnx",
        ".npz",
        ".npy",
        ".h5",
        ".hdf5",
        ".keras",
        ".safetensors",
        ".skops",
    }
)

MOST_BYTES = 64 * 1024 * 1024
"""Maximum size of a model file that is examined, in bytes."""


def writable_models(setup: Setup) -> Iterator[Found]:
    """Yield the configured model files that other users may change."""
    for name, path in _configured(setup):
        if others_may(path):
            what = f"{path} ({name}) can be changed by other users of this machine"
            yield Found(Where("file", str(path)), what, f"chmod go-w {path}")


def code_in_models(setup: Setup) -> Iterator[Found]:
    """Yield the configured model files that can run code when they are loaded."""
    for name, path in _configured(setup):
        if path.stat().st_size <= MOST_BYTES:
            for finding in find_code(path.read_bytes(), MOST_BYTES):
                what = f"{path} ({name}) is {finding}; loading it can {finding.consequence}"
                yield Found(Where("file", str(path)), what)


def _configured(setup: Setup) -> Iterator[tuple[str, Path]]:
    for name, value in setup.app.config.items():
        if isinstance(value, (str, Path)) and Path(value).suffix.lower() in SUFFIXES:
            path = setup.folder / value
            if path.is_file():
                yield name, path


CHECKS = (
    Check(
        "SML702",
        Severity.WARNING,
        "Other users can change a model file",
        "Anyone who changes it can manipulate predictions, or run code in the server.",
        "chmod go-w FILE",
        writable_models,
    ),
    Check(
        "SML703",
        Severity.WARNING,
        "A model file can run code",
        "Its author, or anyone who can replace it, can control the process that loads it.",
        "convert the model to ONNX, safetensors, skops or plain arrays",
        code_in_models,
    ),
)
