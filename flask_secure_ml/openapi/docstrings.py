"""What a view's docstring says to the people who call it."""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import Any

from flask import Flask

from .routes import Route

# A form feed ends what callers are told (as in click), and so do the fields that describe the function.
_END = re.compile(r"\f|^:\w[^:\n]*:", re.MULTILINE)


def docstring_of(app: Flask, route: Route) -> dict[str, str]:
    """Return ``summary``, the first paragraph, and ``description``, the others; what there is not is left out."""
    text = _text(_holder(app, route))
    summary, _, description = text.partition("\n\n")
    found = {"summary": " ".join(summary.split()).removesuffix("."), "description": description.strip()}
    return {name: words for name, words in found.items() if words}


def _holder(app: Flask, route: Route) -> Any:
    """Return what has the docstring: the view, or of a class the method, or the class where the method has none."""
    view: Any = app.view_functions.get(route.rule.endpoint)
    while isinstance(view, partial):
        # Its own docstring is that of functools.
        view = view.func
    cls = getattr(view, "view_class", None)
    if cls is None:
        return view
    method = getattr(cls, route.method.lower(), None)
    return method if method is not None and method.__doc__ else cls


def _text(holder: Any) -> str:
    # Not inspect.getdoc, which takes that of a base class: Flask's own, in the end.
    own = getattr(holder, "__doc__", None) or ""
    return _END.split(inspect.cleandoc(own), maxsplit=1)[0].strip()
