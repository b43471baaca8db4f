"""A real Chromium, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PATIENCE = 10_000.0  # milliseconds


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium. If it is not installed, tests are skipped unless ``REQUIRE_PROGRAMS`` is set."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("REQUIRE_PROGRAMS"):
            pytest.fail("REQUIRE_PROGRAMS is set, and there is no chromium")
        pytest.skip("there is no chromium; on Debian and Ubuntu: sudo apt install chromium")
    with playwright.sync_playwright() as found:
        launched = found.chromium.launch(executable_path=path, headless=True, args=ARGUMENTS)
        yield launched
        launched.close()
