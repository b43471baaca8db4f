"""The pages of deployment targets: each target has a page that names the threat behind its lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flask_secure_ml.deploy.targets import targets

HOWTO = Path(__file__).parents[2] / "docs" / "howto"


def pages() -> dict[str, list[str]]:
    """Return the pages of each target, from the table of targets."""
    rows = (HOWTO / "deploy.rst").read_text(encoding="utf-8").partition("\nTargets\n")[2].split("\n   * - ")[2:]
    found: dict[str, list[str]] = {}
    for row in rows:
        names, _, rest = row.partition("\n")
        for name in re.findall(r"``([a-z-]+)``", names):
            found[name] = re.findall(r":doc:`(\w+)`", rest)
    return found


def test_every_target_is_in_the_table() -> None:
    assert pages().keys() == targets().keys()


@pytest.mark.parametrize("name", targets())
def test_every_target_has_threats(name: str) -> None:
    """One of its pages has a table of threats."""
    documents = [(HOWTO / f"{page}.rst").read_text(encoding="utf-8") for page in pages()[name]]
    assert any(re.search(r"^   \* - .*Threat|^     - Threat", each, re.MULTILINE) for each in documents)
