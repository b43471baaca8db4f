"""Every registered check has a test and complete metadata."""

from __future__ import annotations

import re
from pathlib import Path

from flask_secure_ml.checks import CHECKS
from flask_secure_ml.checks.finding import nothing
from flask_secure_ml.checks.own import OWN_CHECKS

TESTS = Path(__file__).parents[1]


def test_every_check_is_tested() -> None:
    """A check without a faulty setup could silently find nothing."""
    folders = (TESTS / "checks", TESTS / "cli", TESTS / "shared")
    named = {
        found for each in folders for path in each.glob("*.py") for found in re.findall(r"SML\d{3}", path.read_text())
    }
    assert sorted({each.id for each in CHECKS} - named) == []


def test_ids_are_unique() -> None:
    """Each has the form that an ignore has."""
    ids = [each.id for each in CHECKS]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"SML[0-9]{3}", each) for each in ids)


def test_every_part_is_there() -> None:
    """A consequence is a sentence, a title is none, and only the findings of the command itself have no function."""
    for each in CHECKS:
        assert each.why.endswith(".")
        assert not each.title.endswith(".")
        assert each.fix
        assert (each.find is nothing) == (each in OWN_CHECKS)
