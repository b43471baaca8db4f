"""The samples of model files in ``tests/corpus/model_files``: one JSON file for each kind of finding, one for data."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[1] / "corpus" / "model_files"
DATA = "data"
LIMIT = 1 << 24

Sample = tuple[str, bytes]
"""The kind, and the content."""


def samples() -> dict[str, Sample]:
    """Return all samples by kind and id."""
    return {
        f"{file.stem}: {entry['id']}": (file.stem, _content(entry))
        for file in sorted(CORPUS.glob("*.json"))
        for entry in json.loads(file.read_bytes())
    }


def cases() -> list[object]:
    """Return the samples as test parameters."""
    return [pytest.param(*sample, id=name) for name, sample in samples().items()]


def sample(name: str) -> bytes:
    """Return the content of one sample, such as ``"pickle: gzip"``."""
    return samples()[name][1]


def _content(entry: dict[str, str]) -> bytes:
    return zlib.decompress(b64decode(entry["zlib"])) if "zlib" in entry else b64decode(entry["base64"])
