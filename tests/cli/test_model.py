"""``flask secure-ml model digest``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from flask_secure_ml.cli import secure_ml
from flask_secure_ml.model_files import load_verified, load_verified_directory
from model_samples import sample
from programs import needs
from support import MakeApp


def run(make_app: MakeApp, *arguments: object) -> tuple[int, str, str]:
    result = make_app().test_cli_runner().invoke(secure_ml, ["model", "digest", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.npz"
    path.write_bytes(sample("data: npz"))
    return path


@needs("sha256sum")
def test_file(protected: MakeApp, model: Path) -> None:
    """The output is the same as that of ``sha256sum``."""
    done = subprocess.run(["sha256sum", model.name], cwd=model.parent, capture_output=True, text=True, check=True)
    assert run(protected, model) == (0, done.stdout, "")


def test_output_is_a_digest_file(protected: MakeApp, model: Path) -> None:
    """The output, written to a file, can be used by load_verified."""
    sums = model.with_name("model.npz.sha256")
    sums.write_text(run(protected, model)[1])
    with load_verified(model, loader=np.load, sha256=sums) as archive:
        assert archive.files == ["a", "b"]


def test_directory(protected: MakeApp, tmp_path: Path) -> None:
    """A directory has one digest, which load_verified_directory takes."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "graph").write_bytes(b"{}")
    code, output, _ = run(protected, tmp_path / "saved")
    digest, name = output.split()
    assert (code, name) == (0, "saved")
    assert load_verified_directory(tmp_path / "saved", loader=len, sha256=digest) == 1


def test_warning(protected: MakeApp, tmp_path: Path) -> None:
    """A warning names formats that run code, in addition to the digest."""
    (tmp_path / "model.bin").write_bytes(sample("torch: torch"))
    code, output, warning = run(protected, tmp_path / "model.bin")
    assert (code, output.split()[1]) == (0, "model.bin")
    assert "Warning: model.bin is an archive with a pickle, as written by torch.save" in warning


def test_too_large(protected: MakeApp, model: Path) -> None:
    """A file above the cap is an error in one sentence."""
    code, output, error = run(protected, model, "--max-bytes", 10)
    assert (code, output) == (1, "")
    assert "max_bytes" in error
    assert "Traceback" not in error


def test_warning_of_other_files(protected: MakeApp, tmp_path: Path) -> None:
    """A model whose weights are in another file is named, unless the digest is of the directory with that file."""
    (tmp_path / "saved").mkdir()
    model = tmp_path / "saved" / "model.onnx"
    model.write_bytes(sample("external: ONNX initializer"))
    warning = "Warning: model.onnx is a model with parts in other files"
    for path in (model, model.parent):
        assert warning in run(protected, path)[2]
        assert "loading it can read unverified files" in run(protected, path)[2]
    (model.parent / "weights.bin").write_bytes(bytes(4))
    assert warning in run(protected, model)[2]
    assert run(protected, model.parent)[2] == ""


def test_a_hostile_name(protected: MakeApp, tmp_path: Path) -> None:
    """A file name with control characters is escaped and printed in one line."""
    path = tmp_path / "m\x1b[2J\n0000  other.onnx"
    path.write_bytes(sample("torch: torch"))
    status, output, errors = run(protected, path)
    assert status == 0
    assert len(output.splitlines()) == 1
    assert "\x1b" not in output + errors
    assert all(line.startswith("Warning: ") for line in errors.splitlines())
