"""Keras models: computing classes are accepted, and every other name in a configuration counts as code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.model_files import UnsafeModel, directory_digest, find_code, load_verified_directory
from flask_secure_ml.model_files.files import read_directory
from flask_secure_ml.model_files.hdf5_bytes import HDF5
from flask_secure_ml.model_files.keras import config_holds_code, holds_code

DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}, "registered_name": None}

CODE: list[Any] = [
    {"module": "keras.layers", "class_name": "Lambda"},
    {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}},
    {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gASV"}},
    {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp/model"}},
    {"module": "keras.src.utils.jax_layer", "class_name": "JaxLayer"},
    {"module": "keras.utils", "class_name": "function", "config": "get_file"},
    {"module": "keras.src.utils.file_utils", "class_name": "get_file"},
    {"module": "builtins", "class_name": "function", "config": "eval"},
    {"module": "keras_evil.layers", "class_name": "Dense"},
    {"module": "keras.layersx", "class_name": "Dense"},
    {"module": None, "class_name": "Mine", "registered_name": "pack>Mine"},
    {"class_name": "Mine", "registered_name": "pack>Mine"},
    {"module": ["os"], "class_name": "system"},
    {"module": "keras.layers", "class_name": ["Dense"]},
    {"module": "keras.src.ops.core", "class_name": "Map", "config": {"f": "os.system"}},
    {"class_name": "WhileLoop", "config": {}},
    DENSE | {"config": {"kernel_initializer": {"module": "os", "class_name": "system"}}},
]
HARMLESS: list[Any] = [
    DENSE,
    {"module": "keras", "class_name": "Sequential", "config": {"layers": [DENSE]}},
    {"module": "keras.src.models.functional", "class_name": "Functional", "config": {}},
    {"module": "keras.activations", "class_name": "function", "config": "relu", "registered_name": "function"},
    {"class_name": "__tuple__", "items": [1, 2]},
    {"module": "keras.src.ops.core", "class_name": "Cast", "config": {"dtype": "int32"}, "registered_name": "Cast"},
    {"class_name": "Absolute", "config": {"name": "absolute"}, "name": "absolute", "inbound_nodes": []},
    {"architectures": ["BertModel"], "hidden_size": 768},
]


@pytest.mark.parametrize("config", CODE, ids=json.dumps)
def test_code(config: Any) -> None:
    """A layer that runs or loads something, a module that does not calculate, a name without a module."""
    assert config_holds_code(json.dumps({"config": {"layers": [DENSE, config]}}).encode())


@pytest.mark.parametrize("config", HARMLESS, ids=json.dumps)
def test_what_calculates(config: Any) -> None:
    """Layers, functions and literals of Keras itself, and configurations of other makers."""
    assert not config_holds_code(json.dumps(config).encode())


@pytest.mark.parametrize(
    "text",
    [
        rb'{"class_name": "\u004cambda"}',
        rb'{"\u0063lass_name": "L\u0061mbda"}',
        b'{"class_name": "Lambda"}',
        b'{"class_name":"TorchModuleWrapper"}',
    ],
)
@pytest.mark.parametrize("place", [0, 100, (1 << 20) - 12], ids=["at once", "later", "across a block"])
def test_hdf5(text: bytes, place: int) -> None:
    """The name is found at any position, and an escaped ASCII letter counts as hiding one."""
    assert holds_code(io.BytesIO(HDF5 + b"\0" * place + text + b"\0" * 100))
    assert [each.kind for each in find_code(HDF5 + b"\0" * place + text, 1 << 24)] == ["keras-lambda"]


def test_hdf5_without_code() -> None:
    """All writers escape names that are not ASCII."""
    assert not holds_code(io.BytesIO(HDF5 + rb'{"class_name": "Dense", "name": "gr\u00f6\u00dfe"}' + bytes(1 << 20)))


def test_a_directory(tmp_path: Path) -> None:
    """An unpacked model is checked against the same, unless code is allowed by name."""
    (tmp_path / "config.json").write_text(json.dumps(CODE[0]))
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    digest = directory_digest(read_directory(tmp_path, 1 << 20))
    with pytest.raises(UnsafeModel, match="keras-lambda"):
        load_verified_directory(tmp_path, loader=sorted, sha256=digest)
    assert load_verified_directory(tmp_path, loader=sorted, sha256=digest, allow=["keras-lambda"])
    (tmp_path / "config.json").write_text(json.dumps(HARMLESS[-1]))
    digest = directory_digest(read_directory(tmp_path, 1 << 20))
    assert load_verified_directory(tmp_path, loader=sorted, sha256=digest) == ["config.json", "weights.bin"]
