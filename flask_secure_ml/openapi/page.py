"""The routes of the OpenAPI document: ``/openapi.json``, the page ``/docs``, and the assets of the page.

The page is static and reveals nothing about the app, so it is public. With ``protected``, it asks for a credential
before it fetches the document, and keeps the credential in memory only. It loads nothing from other hosts, runs only
its own scripts and styles, and never parses strings as markup (Trusted Types).

All three routes send an ``ETag`` and respond to ``If-None-Match`` with 304 (RFC 9110 section 13.1.2). Browsers may
store public responses but revalidate them each time; a protected document is not stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import orjson
from flask import Flask, Request, Response

from ..errors import ConfigError
from ..policy.policy import MARK, Policy
from ..refresh import process_lock
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
# An app is mounted under one or two prefixes. The limit keeps a client that can choose the prefix from filling memory.
_MAX_ROOTS = 8


def add_openapi(app: Flask, state: AppState, request: Callable[[], Request]) -> None:
    """Add the routes of the OpenAPI document and of its page to an app.

    In the mode ``protected``, the document requires a credential; the page is always public.

    :param request: returns the current request.
    :raises ConfigError: the extra ``[openapi]`` is missing, or the app already has a route at one of the URLs.
    """
    mode = state.settings.openapi
    check_apispec()
    _check_free(app)
    site = _Site(app, asks=mode == "protected")
    views = ((DESCRIPTION, site.description, mode == "public"), (PAGE, site.page, True), (ASSET, site.asset, True))
    for endpoint, content, public in views:
        view = _view(content, request, may_be_stored=public)
        # No score options: these are not model responses, and their numbers must not be rounded.
        setattr(view, MARK, Policy.build(public=public, scores=False))
        path = PATHS[endpoint].format(names=",".join(f"'{name}'" for name in _ASSETS))
        app.add_url_rule(path, endpoint, view, methods=["GET"])


def _check_free(app: Flask) -> None:
    # PolicyTable.check finds routes that the app adds later at these URLs.
    wanted = {PATHS[DESCRIPTION], PATHS[PAGE], f"{PATHS[PAGE]}/"}
    if taken := sorted(wanted & {rule.rule for rule in app.url_map.iter_rules()}):
        raise ConfigError([f"SECURE_ML_OPENAPI uses {taken[0]}, but this app already has a route there"])


@dataclass(frozen=True)
class _Content:
    """The serialized content of a response, with its entity tag."""

    body: bytes
    media_type: str
    etag: str
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, body: bytes, media_type: str, *headers: tuple[str, str]) -> _Content:
        return cls(body, media_type, sha256(body).hexdigest(), headers)


def _view(
    content: Callable[..., _Content], request: Callable[[], Request], *, may_be_stored: bool
) -> Callable[..., Response]:
    """Return a view that serves the content and handles conditional requests."""

    def view(**names: str) -> Response:
        current = request()
        found = content(current, **names)
        response = Response(found.body, mimetype=found.media_type, headers=list(found.headers))
        response.set_etag(found.etag)
        if may_be_stored:
            response.headers["Cache-Control"] = "no-cache"
        response.make_conditional(current)
        return response

    return view


class _Site:
    """The contents of the three routes.

    :param asks: the page asks for a credential before it fetches the document.
    """

    def __init__(self, app: Flask, *, asks: bool) -> None:
        self._app = app
        folder = files(__package__) / "static"
        self._assets = {name: _Content.of((folder / name).read_bytes(), kind) for name, kind in _ASSETS.items()}
        page = (folder / "page.html").read_text(encoding="utf-8")
        access = "protected" if asks else "public"
        header = ("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self._page = _Content.of(page.replace("{{access}}", access).encode(), "text/html", header)
        self._lock = process_lock()
        self._document: dict[str, Any] | None = None
        self._descriptions: dict[str, _Content] = {}

    def description(self, request: Request) -> _Content:
        """Return the OpenAPI document; its server URL is the prefix under which the app is mounted."""
        # The app's URL defaults would change the result of url_for.
        root = quote(request.script_root)
        found = self._descriptions.get(root)
        if found is None:
            found = self._described(root)
            if len(self._descriptions) < _MAX_ROOTS:
                self._descriptions[root] = found
        return found

    def _described(self, root: str) -> _Content:
        # Built at the first request: Flask does not accept further routes after it.
        with self._lock.get():
            if self._document is None:
                self._document = build_document(self._app)
        servers = {"servers": [{"url": root}]} if root else {}
        body = orjson.dumps(self._document | servers, option=orjson.OPT_APPEND_NEWLINE)
        return _Content.of(body, "application/json")

    def page(self, _request: Request) -> _Content:
        """Return the page."""
        return self._page

    def asset(self, _request: Request, name: str) -> _Content:
        """Return an asset of the page."""
        return self._assets[name]
