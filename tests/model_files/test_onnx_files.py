"""ONNX models with other files are detected without the package onnx, and loaded only with verified files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.model_files import (
    UnsafeModel,
    directory_digest,
    file_digest,
    find_code,
    load_verified,
    load_verified_copy,
    load_verified_directory,
    read_directory,
)
from flask_secure_ml.model_files import onnx as onnx_files
from model_samples import sample, samples

LIMIT = 1 << 24
ONNX = {name: data for name, (_, data) in samples().items() if "ONNX" in name}
KNOWN = [b"\x08\x08", b"\x3a", b"\x2a", b"\x0a", b"\x6a", b"\x70\x01", b"\x70\x00", b"\x10\x01", b"\x7a", b"\xa2\x01"]


def external(location: str = "weights.bin", *, key: str = "location") -> bytes:
    """Return a model of one operation, whose weights are in another file."""
    entry = field(1, key.encode()) + field(2, location.encode())
    tensor = b"\x08\x90\x03\x10\x01" + field(8, b"w") + field(13, entry) + b"\x70\x01"
    value = field(2, field(1, b"\x08\x01" + field(2, field(1, b"\x08\x90\x03"))))
    node = field(1, b"x") + field(1, b"w") + field(2, b"y") + field(4, b"Add")
    graph = field(1, node) + field(2, b"g") + field(5, tensor) + field(11, field(1, b"x") + value)
    return b"\x08\x08" + field(7, graph + field(12, field(1, b"y") + value)) + field(8, b"\x10\x0d")


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 128 * 128
    size = len(content)
    return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content


def never(_: object) -> None:
    pytest.fail("the loader was called")


def weights(value: float) -> bytes:
    return np.full(400, value, np.float32).tobytes()


def predict(model: Any) -> float:
    """Return the result of an onnxruntime session for zero; the model is bytes or a path."""
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model)
    (response,) = session.run(None, {"x": np.zeros(400, np.float32)})
    return float(response[0])


def written(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def digest_of(folder: Path) -> str:
    return directory_digest(read_directory(folder, LIMIT))


def test_weights_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose weights are swapped after its digest was made is rejected before onnxruntime takes them."""
    folder = written(tmp_path, model_onnx=external(), weights_bin=weights(400))
    digest = file_digest((folder / "model.onnx").read_bytes())
    monkeypatch.chdir(folder)
    assert predict((folder / "model.onnx").read_bytes()) == 400
    (folder / "weights.bin").write_bytes(weights(-2800))
    assert predict((folder / "model.onnx").read_bytes()) == -2800
    with pytest.raises(UnsafeModel, match=r"ONNX refers to 'weights.bin', and loading it can read unverified files"):
        load_verified(folder / "model.onnx", loader=never, sha256=digest)


def test_bytes_of_a_directory(tmp_path: Path) -> None:
    """A loader that gets bytes would leave it to the library where the weights are, so it does not get them."""
    folder = written(tmp_path, model_onnx=external(), weights_bin=weights(400))
    with pytest.raises(UnsafeModel, match="load_verified_copy"):
        load_verified_directory(folder, loader=never, sha256=digest_of(folder))


def test_copy_of_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are read from the private copy, even if the directory has changed."""
    folder = written(tmp_path / "model", model_onnx=external(), weights_bin=weights(400))
    digest = digest_of(folder)
    elsewhere = written(tmp_path / "elsewhere", weights_bin=weights(-2800))
    monkeypatch.chdir(elsewhere)
    copies = []

    def load(copy: Path) -> float:
        copies.append(copy)
        (folder / "weights.bin").write_bytes(weights(-2800))
        assert sorted(path.name for path in copy.iterdir()) == ["model.onnx", "weights.bin"]
        return predict(copy / "model.onnx")

    assert load_verified_copy(folder, loader=load, sha256=digest) == 400
    assert not copies[0].exists()


@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "data/weights.bin"])
@pytest.mark.parametrize("model", ["model.onnx", "sub/model.onnx"])
def test_location_in_the_directory(tmp_path: Path, model: str, location: str) -> None:
    """A location counts from where the model is."""
    folder = written(tmp_path)
    for name, content in ((model, external(location)), (str(Path(model).parent / location), bytes(4))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert load_verified_copy(folder, loader=Path.is_dir, sha256=digest_of(folder))


@pytest.mark.parametrize(
    "location",
    [
        *("", "missing.bin", "../weights.bin", "sub/../weights.bin", "/etc/passwd", "..", ".", "sub", "C:weights.bin"),
        *(
            "sub\\weights.bin",
            "weights.bin\0",
            "*/_ORT_MEM_ADDR_/*",
            "file:weights.bin",
            "weights.bin\nx",
            "WEIGHTS.BIN",
        ),
    ],
    ids=ascii,
)
def test_location_elsewhere(tmp_path: Path, location: str) -> None:
    """A location that is not a verified file, by its plain relative path, is rejected."""
    folder = written(tmp_path / "model", model_onnx=external(location), weights_bin=bytes(4), sub__x=b"[1]")
    (tmp_path / "weights.bin").write_bytes(bytes(4))
    with pytest.raises(UnsafeModel, match="read unverified files"):
        load_verified_copy(folder, loader=never, sha256=digest_of(folder))
    assert load_verified_copy(folder, loader=Path.is_dir, sha256=digest_of(folder), allow=["external"])


@pytest.mark.parametrize("kind", ["a directory", "a copy"])
def test_code_beside_a_model(tmp_path: Path, kind: str) -> None:
    """Files that run code are rejected in a directory, however it is loaded."""
    folder = written(tmp_path, a_pkl=sample("pickle: None"), config_json=b'{"class_name": "Lambda"}')
    load: Any = load_verified_copy if kind == "a copy" else load_verified_directory
    for allow in ([], ["pickle"], ["keras-lambda"]):
        with pytest.raises(UnsafeModel):
            load(folder, loader=never, sha256=digest_of(folder), allow=allow)
    assert load(folder, loader=bool, sha256=digest_of(folder), allow=["pickle", "keras-lambda"])


def test_archive_in_a_directory(tmp_path: Path) -> None:
    """A model in an archive has no other files next to it."""
    folder = written(tmp_path, m_gz=sample("external: ONNX gzip"), weights_bin=bytes(4))
    with pytest.raises(UnsafeModel, match="gzip"):
        load_verified_copy(folder, loader=never, sha256=digest_of(folder))


@pytest.mark.parametrize(
    ("entries", "files"),
    [
        pytest.param(field(1, b"location") + field(2, b"a") + field(2, b"b"), {"a", "b"}, id="two values"),
        pytest.param(field(1, b"x") + field(1, b"location") + field(2, b"a"), {"a"}, id="two keys"),
        pytest.param(field(2, b"a") + field(1, b"location"), {"a"}, id="value first"),
        pytest.param(field(1, b"location"), {""}, id="no value"),
        pytest.param(field(1, b"basepath") + field(2, b"/etc"), {""}, id="another folder"),
        pytest.param(field(1, b"new") + field(2, b"x"), {""}, id="key nobody knows"),
        pytest.param(field(1, b"basepath") + field(2, b""), {""}, id="no folder and no location"),
    ],
)
def test_entries(entries: bytes, files: set[str]) -> None:
    """Every value that a reader may use as the location counts, and an unknown one is not a verified file."""
    tensor = field(13, entries) + b"\x70\x01"
    assert onnx_files.other_files(b"\x08\x08" + field(7, field(5, tensor))) == frozenset(files)


def test_offset_and_length_name_nothing() -> None:
    """A range in the file, and an empty location, do not refer to another file."""
    keys = [field(13, field(1, key) + field(2, b"4")) for key in (b"offset", b"length", b"checksum")]
    keys += [field(13, field(1, b"basepath") + field(2, b"")), field(13, field(1, b"location") + field(2, b"w"))]
    assert onnx_files.other_files(field(7, field(5, b"".join(keys) + b"\x70\x01"))) == frozenset({"w"})


def test_numbers_of_a_field_each_are_passed_over_quickly() -> None:
    """Lists of numbers that are not packed are no fields to look at, however many; fields of other kinds have a cap."""
    numbers = b"\x3d\0\0\x80\x3f" * 200_000 + b"\x40\x96\x01" * 200_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_files, "MAX_FIELDS", 100)
        assert onnx_files.other_files(numbers) is None
        assert [each.kind for each in find_code(b"\x12\x00" * 101, LIMIT)] == ["opaque"]


@pytest.mark.parametrize("name", sorted(ONNX))
def test_cut_anywhere(name: str) -> None:
    """A truncated model is not a model, and raises no error."""
    for end in range(0, len(ONNX[name]), max(1, len(ONNX[name]) // 50)):
        list(find_code(ONNX[name][:end], LIMIT))


def _uses_other_files(onnx: Any, model: Any) -> bool:
    helper: Any = pytest.importorskip("onnx.external_data_helper")
    pending = [model]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.TensorProto) and helper.uses_external_data(message):
            return True
        for descriptor, value in message.ListFields():
            if descriptor.message_type:
                pending.extend([value] if hasattr(value, "ListFields") else value)
    return False


@given(
    name=st.sampled_from(sorted(ONNX)),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(KNOWN) | st.binary(max_size=3))),
    insert=st.booleans(),
)
def test_fuzz_no_other_file_is_missed(name: str, places: list[tuple[float, bytes]], insert: bool) -> None:
    """Every external file that the package onnx would read is detected."""
    onnx: Any = pytest.importorskip("onnx")
    data = ONNX[name]
    for place, change in places[:3]:
        position = int(place * len(data))
        data = data[:position] + change + data[position + (0 if insert else len(change)) :]
    damaged: Any = pytest.importorskip("google.protobuf.message").DecodeError
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except damaged:
        return
    if _uses_other_files(onnx, model):
        assert onnx_files.other_files(data) is not None
