"""Every id of the checklist is the id of a test, or lists the tests that cover it, or the reason for none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# RFC 8725bis, RFC 6750, RFC 9068, RFC 7662, RFC 8705, RFC 9449, RFC 9728, RFC 8414; then the list of attacks.
CHECKLIST = {
    "JB-": 19,
    "BT-": 13,
    "AT-": 10,
    "IN-": 7,
    "MT-": 5,
    "DP-": 16,
    "PR-": 6,
    "AS-": 6,
    "A": 9,
    "H": 7,
    "C": 12,
    "T": 7,
    "K": 6,
    "J": 4,
    "P": 8,
}
IDS = [f"{family}{number}" for family, last in CHECKLIST.items() for number in range(1, last + 1)]
ELSEWHERE = json.loads((TESTS / "corpus" / "standards.json").read_text())


def sources() -> Iterator[str]:
    for path in sorted(TESTS.rglob("*")):
        if path.suffix in {".py", ".json"} and path.name not in {"standards.json", Path(__file__).name}:
            yield path.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def mentioned() -> set[str]:
    return set(re.findall(r"(?<![A-Za-z0-9-])(?:[A-Z]{2}-|[AHCTKJP])\d+(?!\d)", "\n".join(sources())))


def test_every_id_has_a_test(mentioned: set[str]) -> None:
    """None is lost when a test is renamed or removed."""
    assert [name for name in IDS if not is_held(ELSEWHERE.get(name, [name]), mentioned)] == []


def is_held(by: list[str] | str, mentioned: set[str]) -> bool:
    # A sentence is the reason why no test holds it.
    return set(by) <= mentioned if isinstance(by, list) else len(by) > 20


def test_nothing_is_said_twice(mentioned: set[str]) -> None:
    """An id that has a test of its own needs no entry, and every entry is an id."""
    assert ELSEWHERE.keys() - {"note"} <= set(IDS)
    assert not [name for name in ELSEWHERE if name in mentioned and name != "AT-9"]
