"""The loaders that the how-to page shows, with files as their packages write them today."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flask_secure_ml.model_files import UnsafeModel, load_verified
from model_samples import sample


def written(folder: Path, data: bytes) -> tuple[Path, str]:
    (folder / "model").write_bytes(data)
    return folder / "model", sha256(data).hexdigest()


def test_onnx(tmp_path: Path) -> None:
    """An ONNX graph is loaded from the verified bytes."""
    onnx, reference = pytest.importorskip("onnx"), pytest.importorskip("onnx.reference")
    path, digest = written(tmp_path, sample("data: ONNX"))
    graph = load_verified(path, loader=lambda stream: onnx.load_model_from_string(stream.getvalue()), sha256=digest)
    (response,) = reference.ReferenceEvaluator(graph).run(None, {"x": np.zeros((1, 2), np.float32)})
    assert response.tolist() == [[1, 2]]


@pytest.mark.parametrize("padding", [0, 640 - 64, 1152 - 64], ids=["plain", "looks like protocol 2", "like protocol 4"])
def test_safetensors(tmp_path: Path, padding: int) -> None:
    """Tensors are loaded, also when the length of the header looks like the beginning of a pickle."""
    safetensors: Any = pytest.importorskip("safetensors.numpy")
    path, digest = written(tmp_path, safetensors.save({"w": np.arange(3.0)}, {"note": "x" * padding}))
    tensors = load_verified(path, loader=lambda stream: safetensors.load(stream.getvalue()), sha256=digest)
    assert tensors["w"].tolist() == [0, 1, 2]


def test_skops(tmp_path: Path) -> None:
    """A fitted estimator is saved, loaded without a pickle, and predicts the same."""
    skops: Any = pytest.importorskip("skops.io")
    linear_model: Any = pytest.importorskip("sklearn.linear_model")
    inputs = np.arange(8.0)[:, None]
    fitted = linear_model.LogisticRegression().fit(inputs, inputs[:, 0] > 3)
    path, digest = written(tmp_path, skops.dumps(fitted))
    loaded = load_verified(path, loader=lambda stream: skops.loads(stream.getvalue(), trusted=[]), sha256=digest)
    assert loaded.predict(inputs).tolist() == fitted.predict(inputs).tolist()


def test_joblib(tmp_path: Path) -> None:
    """A joblib file is rejected until a pickle is allowed, and then loaded from the verified bytes."""
    joblib: Any = pytest.importorskip("joblib")
    joblib.dump({"w": np.arange(3.0)}, tmp_path / "made", compress=3)
    path, digest = written(tmp_path, (tmp_path / "made").read_bytes())
    with pytest.raises(UnsafeModel, match=r"allow=\['pickle'\]"):
        load_verified(path, loader=joblib.load, sha256=digest)
    assert load_verified(path, loader=joblib.load, sha256=digest, allow=["pickle"])["w"].tolist() == [0, 1, 2]


def test_numpy(tmp_path: Path) -> None:
    """numpy.load is a loader as it is."""
    path, digest = written(tmp_path, sample("data: npz"))
    with load_verified(path, loader=np.load, sha256=digest) as archive:
        assert archive["a"].tolist() == [0, 1]
