"""Digest files as ``sha256sum`` writes them, and the digest of a directory."""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.model_files import ModelFileError, UnreadableModel, UnverifiedModel, directory_digest, read_digest
from flask_secure_ml.model_files.integrity import MAX_SUMS, check_digest
from programs import needs

A, B = "a" * 64, "b" * 64


def sums(folder: Path, text: str | bytes) -> Path:
    path = folder / "SHA256SUMS"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{A}  model.onnx\n", id="text mode"),
        pytest.param(f"{A} *model.onnx\n", id="binary mode"),
        pytest.param(f"{A}  model.onnx", id="no newline at the end"),
        pytest.param(f"{A}  model.onnx\r\n", id="Windows"),
        pytest.param(f"{A.upper()}  model.onnx\n", id="capitals"),
        pytest.param(f"SHA256 (model.onnx) = {A}\n", id="tag"),
        pytest.param(f"{A}  ./model.onnx\n", id="relative"),
        pytest.param(f"{B}  other.onnx\n{A}  model.onnx\n{B}  model.onnx.bak\n", id="among others"),
        pytest.param(f"{A}  model.onnx\n{A}  model.onnx\n", id="twice the same"),
        pytest.param(f"-----BEGIN-----\n# text\n{A}  model.onnx\n", id="among other text"),
        pytest.param(b"\xff\xfe\n" + f"{A}  model.onnx\n".encode(), id="among bytes that are not UTF-8"),
    ],
)
def test_digest_file(tmp_path: Path, text: str | bytes) -> None:
    """The line of the model counts, in each form that ``sha256sum`` writes."""
    assert read_digest(sums(tmp_path, text), tmp_path / "model.onnx") == A


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "no SHA-256 digest for model.onnx", id="empty"),
        pytest.param(f"{A}\n", "no SHA-256 digest", id="digest alone"),
        pytest.param(f"{A} model.onnx\n", "no SHA-256 digest", id="one space"),
        pytest.param(f" {A}  model.onnx\n", "no SHA-256 digest", id="space before"),
        pytest.param(f"{A}  model.onnx \n", "no SHA-256 digest", id="space after"),
        pytest.param(f"{A}  other/model.onnx\n", "no SHA-256 digest", id="the same name elsewhere"),
        pytest.param(f"{A}  xmodel.onnx\n", "no SHA-256 digest", id="another name"),
        pytest.param(f"{A[:-1]}  model.onnx\n", "no SHA-256 digest", id="too short"),
        pytest.param(f"{A}a  model.onnx\n", "no SHA-256 digest", id="too long"),
        pytest.param(f"{'٣' * 64}  model.onnx\n", "no SHA-256 digest", id="other digits"),
        pytest.param(f"SHA1 (model.onnx) = {A}\n", "no SHA-256 digest", id="another algorithm"),
        pytest.param(f"{A}  model.onnx\n{B}  model.onnx\n", "more than one SHA-256 digest", id="two"),
        pytest.param(f"{A}  model.onnx\n{B}  ./model.onnx\n", "more than one SHA-256 digest", id="two by two names"),
    ],
)
def test_digest_file_without_the_model(tmp_path: Path, text: str, words: str) -> None:
    """A digest file that does not name the model exactly once is rejected, with the command that writes one."""
    with pytest.raises(UnverifiedModel, match=words) as caught:
        read_digest(sums(tmp_path, text), tmp_path / "model.onnx")
    assert "flask secure-ml model digest model.onnx > model.onnx.sha256" in str(caught.value)


def test_digest_file_of_other_places(tmp_path: Path) -> None:
    """Paths in a digest file are those from where it is; a bare name is that of the model, wherever it is."""
    listed = sums(tmp_path, f"{A}  v1/model.onnx\n{B}  v2/model.onnx\n")
    assert read_digest(listed, tmp_path / "v2" / "model.onnx") == B
    listed = sums(tmp_path, f"{A}  model.onnx\n{B}  other.onnx\n")
    assert read_digest(listed, "/srv/models/model.onnx") == A


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\rb", "a\\nb", "ä", "a b"], ids=ascii)
@needs("sha256sum")
@pytest.mark.parametrize("options", [[], ["--tag"], ["--binary"]], ids=["default", "tag", "binary"])
def test_names_as_sha256sum_writes_them(tmp_path: Path, name: str, options: list[str]) -> None:
    """Names with backslashes and newlines are found as ``sha256sum`` escapes them."""
    (tmp_path / name).write_bytes(b"model")
    text = subprocess.run(["sha256sum", *options, name], cwd=tmp_path, capture_output=True, check=True).stdout
    assert read_digest(sums(tmp_path, text), tmp_path / name) == hashlib.sha256(b"model").hexdigest()


def test_digest_file_too_large(tmp_path: Path) -> None:
    """A digest file above a mebibyte is none."""
    with pytest.raises(UnreadableModel, match="max_bytes"):
        read_digest(sums(tmp_path, bytes(MAX_SUMS + 1)), "model.onnx")


@given(data=st.binary(max_size=200), lines=st.lists(st.sampled_from([A, "  ", " *", "model", "\n", "\\", "SHA256 ("])))
def test_fuzz_digest_files(tmp_path_factory: pytest.TempPathFactory, data: bytes, lines: list[str]) -> None:
    """Any content is a digest file or rejected."""
    path = sums(tmp_path_factory.getbasetemp(), "".join(lines).encode() + data)
    with suppress(ModelFileError):
        assert read_digest(path, "model") == A


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        pytest.param(B, f"digest is {A} instead of {B}", id="other"),
        pytest.param("", "not a SHA-256 digest", id="empty"),
        pytest.param("model.sha256", "not a SHA-256 digest.*pathlib.Path", id="path as text"),
        pytest.param(f"sha256:{A}", "not a SHA-256 digest", id="prefix"),
        pytest.param(f"{A}\n", "not a SHA-256 digest", id="newline"),
        pytest.param("ä" * 64, "not a SHA-256 digest", id="not ASCII"),
        pytest.param("٣" * 64, "not a SHA-256 digest", id="other digits"),
    ],
)
def test_wrong_digest(expected: str, words: str) -> None:
    """An invalid digest is distinguished from the digest of another file."""
    with pytest.raises(UnverifiedModel, match=words):
        check_digest(Path("model"), A, expected)


def test_digest_in_capitals() -> None:
    """Hexadecimal digits may be capitals."""
    check_digest(Path("model"), A, A.upper())


def test_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict is that of ``hmac.compare_digest``."""
    compare = Mock(return_value=False)
    monkeypatch.setattr("flask_secure_ml.model_files.integrity.compare_digest", compare)
    with pytest.raises(UnverifiedModel):
        check_digest(Path("model"), A, A)
    compare.assert_called_once_with(A.encode(), A.encode())


@needs("sha256sum")
def test_directory_digest_in_the_shell(tmp_path: Path) -> None:
    """The documented shell commands print the digest of a directory."""
    files = {
        "saved_model.pb": b"1",
        "variables/b": b"2",
        "variables/a": b"3",
        "a-b": b"4",
        "a/b": b"5",
        "ä": b"",
        ".c": b"6",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    command = r"find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert directory_digest(files) == done.stdout.split()[0]
    assert command in str(directory_digest.__doc__)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"a": b"1", "b": b"3"}, id="content"),
        pytest.param({"a": b"2", "b": b"1"}, id="swapped"),
        pytest.param({"a": b"1", "c": b"2"}, id="name"),
        pytest.param({"a": b"1"}, id="missing"),
        pytest.param({"a": b"1", "b": b"2", "c": b""}, id="more"),
        pytest.param({"x/a": b"1", "b": b"2"}, id="moved"),
    ],
)
def test_directory_digest_sees_every_difference(other: dict[str, bytes]) -> None:
    """Another name, place, content or number of files gives another digest; another order does not."""
    files = {"b": b"2", "a": b"1"}
    assert directory_digest(files) == directory_digest(dict(reversed(files.items())))
    assert directory_digest(files) != directory_digest(other)
