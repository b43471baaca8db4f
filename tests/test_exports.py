"""The public names, pinned."""

from __future__ import annotations

import ast
from pathlib import Path

import flask_secure_ml


def test_all_is_sorted_and_complete() -> None:
    """Each imported name is in ``__all__``, in order, and exists."""
    source = Path(flask_secure_ml.__file__).read_text(encoding="utf-8")
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    names = sorted(alias.asname or alias.name for node in imports for alias in node.names)
    assert names == flask_secure_ml.__all__
    assert all(hasattr(flask_secure_ml, name) for name in names)
