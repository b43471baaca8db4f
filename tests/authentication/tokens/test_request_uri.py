"""URIs in the form in which they are compared; see ``tests/corpus/dpop/uri.json`` for whole proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.authentication.tokens.dpop import RequestUris, normal_uri

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

BASE = {"wsgi.url_scheme": "https", "SERVER_NAME": "192.0.2.7", "SERVER_PORT": "8443", "HTTP_HOST": "api.example"}


def environ(**changes: Any) -> WSGIEnvironment:
    return {**BASE, **changes}


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/b/c/./../../g", b"/a/g"),
        ("/mid/content=5/../6", b"/mid/6"),
        ("/..", b"/"),
        ("/../..", b"/"),
        ("/.", b"/"),
        ("/a/..", b"/"),
        ("/a/b/..", b"/a/"),
        ("/a/b/.", b"/a/b/"),
        ("/a//../b", b"/a/b"),
        ("/a/...", b"/a/..."),
        ("/%7Ea/%2e%2e/%41", b"/A"),
        ("/a%2F..%2Fb", b"/a/../b"),
        ("/%e2%82%ac", "/\u20ac".encode()),
        ("", b"/"),
    ],
)
def test_paths(path: str, normal: bytes) -> None:
    """Dot segments and escapes are resolved as RFC 3986 sections 5.2.4 and 6.2.2 say, in this order."""
    assert normal_uri("https://h" + path) == ("https://h", normal)


@pytest.mark.parametrize(
    ("given_environ", "expected"),
    [
        pytest.param(environ(PATH_INFO="/a"), ("https://api.example", b"/a"), id="host"),
        pytest.param(environ(PATH_INFO="/a", HTTP_HOST=""), ("https://192.0.2.7:8443", b"/a"), id="no-host"),
        pytest.param(
            environ(PATH_INFO="/a", HTTP_HOST="", SERVER_PORT="443"), ("https://192.0.2.7", b"/a"), id="default-port"
        ),
        pytest.param(environ(), ("https://api.example", b"/"), id="no-path"),
        pytest.param(environ(PATH_INFO="*"), ("https://api.example", b"/*"), id="asterisk"),
        pytest.param(environ(SCRIPT_NAME="/m/", PATH_INFO="/a"), ("https://api.example", b"/m/a"), id="mount"),
        pytest.param(environ(PATH_INFO="/\xc3\xa9"), ("https://api.example", b"/\xc3\xa9"), id="utf-8"),
    ],
)
def test_requests(given_environ: WSGIEnvironment, expected: tuple[str, bytes]) -> None:
    """The URI of a request is that of its server variables (PEP 3333)."""
    assert RequestUris().of(given_environ) == expected


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_the_host_header_means_nothing_beside_external(path: str) -> None:
    """With the address of the app configured, neither host nor scheme of the request count (DP-6)."""
    uris = RequestUris("https://models.example" + path)
    expected = ("https://models.example", path.rstrip("/").encode() + b"/a")
    for host in ("models.example", "attacker.example", "", "models.example, attacker.example"):
        assert uris.of({**environ(HTTP_HOST=host, PATH_INFO="/a"), "wsgi.url_scheme": "http"}) == expected


@given(path=st.binary(max_size=30))
def test_every_path_can_be_named(path: bytes) -> None:
    """A client that escapes every byte but the slashes names exactly the path that the routes see."""
    clean = b"/" + path.replace(b".", b"")
    uri = normal_uri("https://api.example" + quote(clean))
    assert uri == RequestUris().of(environ(PATH_INFO=clean.decode("latin-1")))


@given(text=st.text(max_size=60) | st.text("htps:/@[]%.?#2Fe\\", max_size=30).map(lambda rest: "https:" + rest))
def test_any_text(text: str) -> None:
    """Any string is a valid URI or not, without other errors."""
    try:
        origin, path = normal_uri(text)
    except ValueError:
        return
    assert origin.startswith(("http://", "https://"))
    assert path.startswith(b"/")
