"""Programs that a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a program is not installed.

    With ``REQUIRE_PROGRAMS`` in the environment it is not skipped, so it fails.
    """
    is_missing = shutil.which(program) is None and not os.environ.get("REQUIRE_PROGRAMS")
    return pytest.mark.skipif(is_missing, reason=f"{program} is not installed")
