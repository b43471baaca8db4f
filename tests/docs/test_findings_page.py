"""The page of findings: every check is in one of its tables."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from flask_secure_ml.checks import CHECKS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "findings.rst").read_text(encoding="utf-8")


def test_every_check_is_in_one_table() -> None:
    """The tables are generated from the checks; a check whose id begins otherwise would be missing."""
    beginnings = re.findall(r"^\.\. secure-ml-findings:: (\S+)$", PAGE, re.MULTILINE)
    tables = Counter(each.id for each in CHECKS for beginning in beginnings if each.id.startswith(beginning))
    assert tables == dict.fromkeys((each.id for each in CHECKS), 1)


def test_ids_that_pages_name_exist() -> None:
    """No page names a finding that there is not."""
    named = {found for page in DOCS.rglob("*.rst") for found in re.findall(r"SML[0-9]{3}", page.read_text("utf-8"))}
    assert named
    assert named <= {each.id for each in CHECKS}
