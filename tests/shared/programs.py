"""Programs that may not be installed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def program(name: str) -> str | None:
    """Return the path of a program, also from the directory of this Python; None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def needs(name: str, install: str = "") -> pytest.MarkDecorator:
    """Return a mark that skips a test if a program, or the file at an absolute path, is not installed.

    With ``REQUIRE_PROGRAMS`` in the environment, the test runs and fails instead.

    :param install: the command that installs the program.
    """
    return _skipped_without(name, "REQUIRE_PROGRAMS", install)


def needs_tool(name: str) -> Callable[[Any], Any]:
    """Return a decorator for a test with a program from PyPI or npm, which the tox environment ``deploy`` provides.

    With ``REQUIRE_TOOLS`` in the environment, the test is not skipped if the program is missing, so it fails.
    ``LACKS_TOOLS`` names programs that may still be missing.
    """

    def decorate(test: Any) -> Any:
        for mark in tool_marks(name):
            mark(test)
        return test

    return decorate


def tool_marks(name: str) -> list[pytest.MarkDecorator]:
    """Return the marks of :func:`needs_tool`, for a module or a parameter."""
    return [pytest.mark.tool, _skipped_without(name, "REQUIRE_TOOLS")]


def _is_there(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else program(name) is not None


def _skipped_without(name: str, required: str, install: str = "") -> pytest.MarkDecorator:
    may_lack = name in os.environ.get("LACKS_TOOLS", "").split() or not os.environ.get(required)
    reason = f"{name} is not installed{f': {install}' if install else ''}"
    return pytest.mark.skipif(not _is_there(name) and may_lack, reason=reason)


every_proxy = pytest.mark.skipif(not os.environ.get("EVERY_PROXY"), reason="EVERY_PROXY is not set")
"""The mark of tests that start their own proxy, stop its servers or scan it; ``make prove`` runs them."""
