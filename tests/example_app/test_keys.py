"""The demo's key file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from example_app.keys import KeysError, fresh_key
from support import RANDOM_SECRET


def test_keys_of_others_stay(tmp_path: Path) -> None:
    """Only the demo's own earlier key is removed; keys of other clients are kept."""
    pepper = tmp_path / "pepper"
    pepper.write_text(RANDOM_SECRET)
    _, path = fresh_key(tmp_path, pepper)
    document = json.loads(path.read_text())
    document["keys"].append({**document["keys"][0], "id": "A" * 12, "client": "somebody"})
    path.write_text(json.dumps(document))
    fresh_key(tmp_path, pepper)
    assert sorted(entry["client"] for entry in json.loads(path.read_text())["keys"]) == ["demo", "somebody"]


def test_damaged_key_file(tmp_path: Path) -> None:
    """The message names the unreadable key file, with a remedy."""
    (tmp_path / "pepper").write_text(RANDOM_SECRET)
    (tmp_path / "api_keys.json").write_text("{")
    with pytest.raises(KeysError, match=r"api_keys\.json.*delete it"):
        fresh_key(tmp_path, tmp_path / "pepper")
