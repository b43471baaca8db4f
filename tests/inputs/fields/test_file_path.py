"""File paths from clients: only files within the folder are accepted. The corpus has rejected values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from flask_secure_ml.inputs import FilePath

CORPUS = Path(__file__).parents[2] / "corpus" / "fields" / "file_path.json"
CASES = json.loads(CORPUS.read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("top")
    (top / "outside.onnx").write_bytes(b"secret")
    folder = top / "models"
    for path in ("model.onnx", "sub/model.onnx", ".secret.onnx", "model.onnx.py", "model.ONNX", "-rf"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"model")
    (folder / "folder.onnx").mkdir()
    for name, target in {
        "out.onnx": "../outside.onnx",
        "up": "..",
        "loop.onnx": "loop.onnx",
        "gone.onnx": "gone",
        "in.onnx": "sub/model.onnx",
    }.items():
        (folder / name).symlink_to(target)
    return folder


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_rejected(root: Path, case: dict[str, Any]) -> None:
    """Each is rejected with a message that does not quote it or reveal which files exist."""
    field = FilePath(root, suffixes=[".onnx"])
    with pytest.raises(ValidationError) as caught:
        field.deserialize(case["value"])
    text = str(field.error_messages[case["message"]]).format(suffixes=".onnx")
    assert caught.value.messages == [text]


@pytest.mark.parametrize(
    ("name", "target"),
    [("model.onnx", "model.onnx"), ("sub/model.onnx", "sub/model.onnx"), ("in.onnx", "sub/model.onnx")],
)
def test_accepted(root: Path, name: str, target: str) -> None:
    """A file of the folder, also through a link that stays in it; it is dumped as it would be named."""
    field = FilePath(root, suffixes=[".onnx", ".json"])
    found = field.deserialize(name)
    assert found == (root / target).resolve()
    assert field._serialize(found, None, None) == target
    assert field._serialize(None, None, None) is None


def test_the_folder_may_be_a_link_and_change(root: Path, tmp_path: Path) -> None:
    """A release that is switched by a link is seen; a folder that is gone has no files."""
    current = tmp_path / "current"
    field = FilePath(current)
    with pytest.raises(ValidationError, match="no such file"):
        field.deserialize("model.onnx")
    current.symlink_to(root)
    assert field.deserialize("model.onnx") == (root / "model.onnx").resolve()


def test_length(root: Path) -> None:
    """A path over the limit is rejected by its length."""
    with pytest.raises(ValidationError, match="at most 9 characters"):
        FilePath(root, max_length=9).deserialize("model.onnx")


@pytest.mark.parametrize(
    "options", [{"suffixes": []}, {"suffixes": ".onnx"}, {"suffixes": ["onnx"]}, {"max_length": 0}]
)
def test_wrong_definition(options: dict[str, Any]) -> None:
    """A definition that would reject everything, or nothing, raises an error at once."""
    with pytest.raises((TypeError, ValueError)):
        FilePath("models", **options)


@given(value=st.text(st.sampled_from("./\\a-~% \0\n:x"), max_size=12))
def test_fuzz_nothing_leaves_the_folder(root: Path, value: str) -> None:
    """Any path is a file of the folder or rejected."""
    try:
        found = FilePath(root).deserialize(value)
    except ValidationError:
        return
    assert found.is_relative_to(root.resolve())
