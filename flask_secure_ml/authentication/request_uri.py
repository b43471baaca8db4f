"""The URI of a request, and that of a DPoP proof, in a form in which they can be compared (RFC 3986 section 6.2).

What WSGI passes on is the decoded path, so paths are compared as bytes, each decoded exactly once. The path of the
request is taken as it is, because that is what the routes see; dot segments are resolved only in what the proof says.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# urlsplit() drops tabs and line ends and lets anything else pass, so the characters are looked at first.
_URI = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

NormalUri = tuple[str, bytes]
"""Scheme and authority, and the decoded path."""


def normal_uri(uri: str) -> NormalUri:
    """Return the normal form of an absolute URI; its query and fragment are ignored (RFC 9449 section 4.3).

    Letter case of scheme and host, default port, percent-encoding, dot segments and an empty path make no difference
    (RFC 3986 sections 6.2.2 and 6.2.3).

    :raises ValueError: it is not an ``http`` or ``https`` URI with a host and no user.
    """
    if not _URI.fullmatch(uri):
        raise ValueError("not a URI")
    parts = urlsplit(uri)
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc or "@" in parts.netloc:
        raise ValueError("not an http or https URI with a host and no user")
    path = parts.path.replace("%2e", ".").replace("%2E", ".") or "/"
    return _origin(parts.scheme, parts.netloc), unquote_to_bytes(_without_dots(path))


class RequestUris:
    """Says under which URI a client reached this app.

    :param external: the address of the app's root as clients know it, such as ``https://models.example.com/v1``. Then
        the ``Host`` header is not looked at, and a path in it stands for where the app is mounted. Without it, host
        and scheme are those of the request.
    :raises ValueError: it is not an ``http`` or ``https`` URI.
    """

    def __init__(self, external: str | None = None) -> None:
        self._external = None if external is None else normal_uri(external)

    def of(self, environ: WSGIEnvironment) -> NormalUri:
        """Return the normal form of the URI of a request."""
        origin, mount = self._external or (_origin_of(environ), b"")
        mount = mount.rstrip(b"/") or environ.get("SCRIPT_NAME", "").encode("latin-1").rstrip(b"/")
        path = environ.get("PATH_INFO", "").encode("latin-1")
        return origin, mount + (path if path.startswith(b"/") else b"/" + path)


def _origin_of(environ: WSGIEnvironment) -> str:
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return _origin(environ["wsgi.url_scheme"], host)


def _origin(scheme: str, authority: str) -> str:
    bare = authority.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ":")).removesuffix(":")
    return f"{scheme}://{bare}"


def _without_dots(path: str) -> str:
    """Resolve the dot segments of an absolute path (RFC 3986 section 5.2.4)."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
