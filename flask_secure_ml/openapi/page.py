"""The routes that show the description: ``/openapi.json``, the page ``/docs``, and the files that the page needs.

The page is static and tells nothing of the app, so it is open to everyone; with ``protected`` it asks for a credential
before it fetches the description, and keeps it in memory only. It loads nothing from outside, runs no script and no
style that is not a file of its own, and lets no text become markup (Trusted Types).

All three have an ``ETag`` and answer ``If-None-Match`` with 304 (RFC 9110 section 13.1.2). A browser keeps what is open
to everyone, and asks each time whether it still holds; it does not keep a protected description.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from threading import Lock
from typing import Any
from urllib.parse import quote

import orjson
from flask import Flask, Request, Response

from ..errors import ConfigError
from ..policy.policy import MARK, Policy
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


def add_openapi(app: Flask, state: AppState, request: Callable[[], Request]) -> None:
    """Serve description and page, if ``SECURE_ML_OPENAPI`` says so.

    :param request: returns the request that is being answered.
    :raises ConfigError: the extra ``[openapi]`` is missing, or the app has a route of its own at one of the addresses.
    """
    mode = state.settings.openapi
    if mode == "off":
        return
    check_apispec()
    _check_free(app)
    site = _Site(app, asks=mode == "protected")
    views = ((DESCRIPTION, site.description, mode == "public"), (PAGE, site.page, True), (ASSET, site.asset, True))
    for endpoint, view, public in views:
        # No terms of outputs: these are no answers of the model, and their numbers must not be rounded.
        answer = _answering(view, request, kept=public)
        setattr(answer, MARK, Policy.build(public=public, scores=False))
        path = PATHS[endpoint].format(names=",".join(f"'{name}'" for name in _ASSETS))
        app.add_url_rule(path, endpoint, answer, methods=["GET"])


def _check_free(app: Flask) -> None:
    # Routes that the app gets later are held against these by PolicyTable.check.
    wanted = {PATHS[DESCRIPTION], PATHS[PAGE], f"{PATHS[PAGE]}/"}
    if taken := sorted(wanted & {rule.rule for rule in app.url_map.iter_rules()}):
        raise ConfigError([f"SECURE_ML_OPENAPI needs {taken[0]}, where this app has a route of its own"])


def _answering(view: Callable[..., Response], request: Callable[[], Request], *, kept: bool) -> Callable[..., Response]:
    """Return a view that answers conditional requests too, and says whether browsers may keep what it answers."""

    def answer(**names: str) -> Response:
        current = request()
        response = view(current, **names)
        response.set_etag(sha256(response.get_data()).hexdigest())
        if kept:
            response.headers["Cache-Control"] = "no-cache"
        response.make_conditional(current)
        return response

    return answer


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
        self._lock = Lock()
        self._built: dict[str, Any] | None = None

    def _document(self) -> dict[str, Any]:
        # Made at the first request, when every route is known: Flask takes no more after it.
        with self._lock:
            if self._built is None:
                self._built = build_document(self._app)
            return self._built

    def description(self, request: Request) -> Response:
        """Return the OpenAPI document; its servers are where this app is mounted."""
        # Not url_for, which an app's own URL defaults change.
        root = quote(request.script_root)
        servers = {"servers": [{"url": root}]} if root else {}
        body = orjson.dumps(self._document() | servers, option=orjson.OPT_APPEND_NEWLINE)
        return Response(body, mimetype="application/json")

    def page(self, _request: Request) -> Response:
        """Return the page."""
        response = Response(self._page, mimetype="text/html")
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    def asset(self, _request: Request, name: str) -> Response:
        """Return a file of the page."""
        return Response(self._files[name], mimetype=_ASSETS[name])
