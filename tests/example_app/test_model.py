"""The example's model: good enough to be an example, and rejected unless it is the one that was trained."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from example_app.model import DigitsModel, ModelError, digest_path, load, save, trained_digest
from example_app.training import split, train


@pytest.fixture(scope="module")
def model() -> DigitsModel:
    return train()


@pytest.fixture
def saved(model: DigitsModel, tmp_path: Path) -> Path:
    save(model, tmp_path / "model.npz")
    return tmp_path / "model.npz"


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (pytest.fail, ("a pickle was loaded",))


def _pickle() -> bytes:
    return pickle.dumps(Harmful())


def _array_of_objects() -> bytes:
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=True, coefficients=np.array([Harmful()], dtype=object))
    return archive.getvalue()


def _single_array() -> bytes:
    archive = io.BytesIO()
    np.save(archive, np.zeros(3))
    return archive.getvalue()


def _wrong_shapes() -> bytes:
    archive = io.BytesIO()
    names = ("coefficients", "intercept", "classes", "mean", "scale", "accuracy")
    np.savez(archive, allow_pickle=False, **{name: np.zeros(3) for name in names})
    return archive.getvalue()


def _unknown_names() -> bytes:
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, weights=np.zeros(3))
    return archive.getvalue()


def _cut_short() -> bytes:
    return _wrong_shapes()[:-30]


def test_accuracy_on_images_held_out(model: DigitsModel) -> None:
    """The accuracy on the test images is above 93 % and matches the stored one."""
    _, unseen, _, digits = split()
    right = float(np.mean(model.predict(unseen)[0] == digits))
    assert right > 0.93
    assert float(model.accuracy) == right


def test_probabilities(model: DigitsModel) -> None:
    """Each image gets ten probabilities that add up to one; the largest belongs to the predicted digit."""
    digits, probabilities = model.predict(split()[1][:50])
    assert probabilities.shape == (50, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert digits.tolist() == probabilities.argmax(axis=1).tolist()


def test_probabilities_of_extreme_pixels_are_finite(model: DigitsModel) -> None:
    """Large scores do not overflow."""
    assert np.isfinite(model.predict(np.full((1, 64), 1e6))[1]).all()


def test_no_images(model: DigitsModel) -> None:
    """An empty batch has an empty response."""
    digits, probabilities = model.predict(np.empty((0, 64), dtype=np.float32))
    assert (digits.shape, probabilities.shape) == ((0,), (0, 10))


def test_training_is_repeatable(model: DigitsModel, saved: Path) -> None:
    """The same data and seed give the same responses."""
    again, images = train(), split()[1]
    assert again.predict(images)[0].tolist() == model.predict(images)[0].tolist()


def test_saved_and_loaded(model: DigitsModel, saved: Path) -> None:
    """A loaded model responds as the one that was saved."""
    images = split()[1]
    loaded = load(saved, trained_digest(saved))
    np.testing.assert_array_equal(loaded.predict(images)[1], model.predict(images)[1])


def test_digest_beside_the_model(saved: Path) -> None:
    """The digest file reads as ``sha256sum`` writes it."""
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    assert digest_path(saved).read_text() == f"{digest}  model.npz\n"


@pytest.mark.parametrize("position", [0, 1000, -1], ids=["first", "middle", "last"])
def test_one_changed_byte_is_rejected(saved: Path, position: int) -> None:
    """A model with one changed byte is not loaded, and the error has a remedy."""
    digest, data = trained_digest(saved), bytearray(saved.read_bytes())
    data[position] ^= 1
    saved.write_bytes(data)
    with pytest.raises(ModelError, match=r"not the trained model.*python -m example_app\.training"):
        load(saved, digest)


@pytest.mark.parametrize("digest", ["", "0" * 64, "ä"], ids=["empty", "other", "not-ascii"])
def test_wrong_digest_parses_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    """Not a byte of a file with a wrong digest reaches the parser."""
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(ModelError, match="SHA-256"):
        load(saved, digest)


@pytest.mark.parametrize(
    "make",
    [_pickle, _array_of_objects, _single_array, _wrong_shapes, _unknown_names, _cut_short, bytes],
    ids=["pickle", "array-of-objects", "single-array", "wrong-shapes", "unknown-names", "cut-short", "empty"],
)
def test_other_formats_are_rejected(tmp_path: Path, make: Callable[[], bytes]) -> None:
    """A file that is not a model is rejected, even with the right digest; a pickle is never executed."""
    path, data = tmp_path / "model.npz", make()
    path.write_bytes(data)
    with pytest.raises(ModelError, match="Train again"):
        load(path, hashlib.sha256(data).hexdigest())


def test_missing_model(tmp_path: Path) -> None:
    """Without a model, the error names the command that trains one."""
    with pytest.raises(ModelError, match=r"python -m example_app\.training .*model\.npz$"):
        load(tmp_path / "model.npz", "0" * 64)


def test_missing_digest(saved: Path) -> None:
    """A model without its digest is rejected."""
    digest_path(saved).unlink()
    with pytest.raises(ModelError, match=r"python -m example_app\.training .*model\.npz$"):
        trained_digest(saved)
