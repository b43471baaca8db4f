"""A classifier of handwritten digits: trained once, saved as plain arrays, verified at every load.

A pickled model can run code when it is loaded. This one is a NumPy archive of numbers, and it is parsed only after its
SHA-256 digest was compared with the digest from training.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from flask_secure_ml.model_files import ModelFileError, UnverifiedModel, file_digest, load_verified, read_digest

from .files import write

PIXELS = 64

# Exceptions that occur when a file is not a model.
_NOT_A_MODEL = (AttributeError, BadZipFile, EOFError, OSError, TypeError, ValueError)

Floats = NDArray[np.float64]


class ModelError(Exception):
    """The model cannot be used. The message has a remedy."""


@dataclass(frozen=True)
class DigitsModel:
    """Multinomial logistic regression over the 64 pixels of an 8 by 8 image, each from 0 to 16.

    :param accuracy: the fraction of correct predictions on the test images.
    """

    coefficients: Floats
    intercept: Floats
    classes: NDArray[np.int64]
    mean: Floats
    scale: Floats
    accuracy: Floats

    def predict(self, instances: NDArray[Any]) -> tuple[NDArray[np.int64], Floats]:
        """Return the most likely digit of each image, and the probability of every digit.

        :param instances: one row of 64 pixels for each image.
        """
        scores = ((instances - self.mean) / self.scale) @ self.coefficients.T + self.intercept
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities: Floats = weights / weights.sum(axis=1, keepdims=True)
        return self.classes[probabilities.argmax(axis=1)], probabilities


def save(model: DigitsModel, path: Path) -> str:
    """Write the model, and next to it its digest in the format of ``sha256sum --check``.

    :return: the SHA-256 digest in hexadecimal.
    """
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **_arrays(model))
    digest = file_digest(archive.getvalue())
    write(path, archive.getvalue())
    write(digest_path(path), f"{digest}  {path.name}\n".encode())
    return digest


def load(path: Path, digest: str) -> DigitsModel:
    """Load a model after verifying its digest.

    :param digest: the expected SHA-256 digest in hexadecimal.
    :raises ModelError: the file is missing, has another digest, or is not a model. A file with a wrong digest is not
        parsed.
    """
    try:
        model = load_verified(path, loader=_parse, sha256=digest)
    except UnverifiedModel as error:
        raise ModelError(
            f"{path} is not the trained model: {error.problem}. "
            f"Restore it, or delete it and train again: {_training_command(path)}"
        ) from None
    except ModelFileError as error:
        raise ModelError(f"{error} {_advice(path)}") from None
    except _NOT_A_MODEL as error:
        raise ModelError(f"{path} is not a model of this version. {_advice(path)}") from error
    _check_shapes(model, path)
    return model


def trained_digest(path: Path) -> str:
    """Return the digest that training wrote next to the model.

    :raises ModelError: there is none.
    """
    try:
        return read_digest(digest_path(path), path)
    except ModelFileError as error:
        raise ModelError(f"{error} {_advice(path)}") from None


def digest_path(path: Path) -> Path:
    """Return the path of a model's digest file."""
    return path.with_name(path.name + ".sha256")


def _arrays(model: DigitsModel) -> dict[str, NDArray[Any]]:
    return asdict(model)


def _parse(stream: io.BytesIO) -> DigitsModel:
    with np.load(stream, allow_pickle=False) as archive:
        return DigitsModel(**{name: archive[name] for name in archive.files})


def _check_shapes(model: DigitsModel, path: Path) -> None:
    digits = model.classes.size
    expected = [(digits, PIXELS), (digits,), (digits,), (PIXELS,), (PIXELS,), ()]
    arrays = list(_arrays(model).values())
    if [array.shape for array in arrays] != expected or any(array.dtype.kind not in "if" for array in arrays):
        raise ModelError(f"{path} has arrays of wrong shapes. {_advice(path)}")


def _advice(path: Path) -> str:
    return f"Train again: {_training_command(path)}"


def _training_command(path: Path) -> str:
    return f"python -m example_app.training {path}"
