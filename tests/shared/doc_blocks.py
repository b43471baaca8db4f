"""The Python code blocks of the README and the documentation, as a reader copies them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto"
_BLOCK = re.compile(
    r"^\.\. code-block:: python\n(?P<options>(?:   :.*\n)*)\n(?P<code>(?:(?:   .*)?\n)+)",
    re.MULTILINE,
)


def blocks(page: Path, marked: str = "") -> list[str]:
    """Return the Python blocks of a page; with ``marked``, only those whose options contain that text."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8") + "\n")
    return [textwrap.dedent(each["code"]) for each in found if marked in each["options"]]


def write_file(page: Path, file: str, folder: Path) -> None:
    """Write the block of a page whose caption is the name of a file to that file.

    :raises ValueError: the page has no such block, or several.
    """
    (code,) = blocks(page, f":caption: {file}\n")
    (folder / file).write_text(code, encoding="utf-8")
