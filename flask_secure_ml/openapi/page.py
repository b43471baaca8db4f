"""The routes that show the description: ``/openapi.json``, the page ``/docs``, and the files that the page needs.

The page is static and tells nothing of the app, so it is open to everyone; with ``protected`` it asks for a credential
before it fetches the description, and keeps it in memory only. It loads nothing from outside, runs no script and no
style that is not a file of its own, and lets no text become markup (Trusted Types).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.resources import files
from typing import Any

import orjson
from flask import Flask, Response, url_for

from ..errors import ConfigError
from ..policy import MARK, Policy
from ..state import AppState
from .document import build_document, check_apispec
from .routes import ASSET, DESCRIPTION, PAGE

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PATHS = {DESCRIPTION: "/openapi.json", PAGE: "/docs", ASSET: "/docs/<any({names}):name>"}

_ASSETS = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "dom.js": "text/javascript",
    "credentials.js": "text/javascript",
    "operations.js": "text/javascript",
    "schemas.js": "text/javascript",
    "try.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def add_openapi(app: Flask, state: AppState) -> None:
    """Serve description and page, if ``SECURE_ML_OPENAPI`` says so.

    :raises ConfigError: the extra ``[openapi]`` is missing, or the app has a route of its own at one of the addresses.
    """
    mode = state.settings.openapi
    if mode == "off":
        return
    check_apispec()
    _check_free(app)
    site = _Site(app, asks=mode == "protected")
    _add(app, DESCRIPTION, site.description, public=mode == "public")
    _add(app, PAGE, site.page, public=True)
    _add(app, ASSET, site.asset, public=True)


def _check_free(app: Flask) -> None:
    wanted = {PATHS[DESCRIPTION], PATHS[PAGE]}
    if taken := sorted(wanted & {rule.rule for rule in app.url_map.iter_rules()}):
        raise ConfigError([f"SECURE_ML_OPENAPI needs {taken[0]}, where this app has a route of its own"])


def _add(app: Flask, endpoint: str, view: Callable[..., Response], *, public: bool) -> None:
    def answer(**names: str) -> Response:
        return view(**names)

    # No terms of outputs: these are no answers of the model, and their numbers must not be rounded.
    setattr(answer, MARK, Policy.build(public=public, outputs=False))
    path = PATHS[endpoint].format(names=",".join(f"'{name}'" for name in _ASSETS))
    app.add_url_rule(path, endpoint, answer, methods=["GET"])


class _Site:
    """What is served.

    :param asks: the page asks for a credential before it fetches the description.
    """

    def __init__(self, app: Flask, *, asks: bool) -> None:
        self._app = app
        folder = files(__package__) / "static"
        self._files = {name: (folder / name).read_bytes() for name in _ASSETS}
        page = (folder / "page.html").read_text(encoding="utf-8")
        self._page = page.replace("{{access}}", "protected" if asks else "public").encode()

    @cached_property
    def _document(self) -> dict[str, Any]:
        # Made at the first request, when every route is known: Flask takes no more after it.
        return build_document(self._app)

    def description(self) -> Response:
        """Return the OpenAPI document; its servers are where this app is mounted."""
        root = url_for(DESCRIPTION).removesuffix(PATHS[DESCRIPTION])
        servers = {"servers": [{"url": root}]} if root else {}
        body = orjson.dumps(self._document | servers, default=str, option=_OPTIONS)
        return Response(body, mimetype="application/json")

    def page(self) -> Response:
        """Return the page."""
        response = Response(self._page, mimetype="text/html")
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    def asset(self, name: str) -> Response:
        """Return a file of the page."""
        return Response(self._files[name], mimetype=_ASSETS[name])
