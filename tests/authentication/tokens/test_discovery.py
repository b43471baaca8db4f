"""Metadata of the issuer (RFC 8414): where they are looked for, and which are believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flask_secure_ml.authentication.tokens.jwks import Discovery, metadata_uris
from flask_secure_ml.fetch import FetchError, Response
from flask_secure_ml.refresh import Attempt
from flask_secure_ml.testing import FakeClock

ISSUER = "https://as.example/tenant"
FIRST = "https://as.example/.well-known/oauth-authorization-server/tenant"
SECOND = "https://as.example/tenant/.well-known/openid-configuration"
KEYS = "https://keys.example/jwks"


class Web:
    """Serves some documents, and records the requested URLs."""

    def __init__(self, media_type: str = "application/json", status: int = 200, **documents: Any) -> None:
        self.media_type = media_type
        self.status = status
        self.documents = documents
        self.asked: list[str] = []
        self.timeouts: list[float] = []

    def request(self, uri: str, *, timeout: float) -> Response:
        self.timeouts.append(timeout)
        self.asked.append(uri)
        name = {FIRST: "first", SECOND: "second", KEYS: "keys"}.get(uri, "")
        if name not in self.documents:
            return Response(404, b"")
        document = self.documents[name]
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        return Response(self.status, raw, "" if name == "keys" else self.media_type)


def attempt() -> Attempt:
    return Attempt(FakeClock(), 2, 6, 4, object())


GOOD = {"issuer": ISSUER, "jwks_uri": KEYS}


@pytest.mark.parametrize(
    ("issuer", "places"),
    [
        pytest.param(ISSUER, [FIRST, SECOND], id="AS-3 with a path"),
        pytest.param(
            "https://as.example",
            [
                "https://as.example/.well-known/oauth-authorization-server",
                "https://as.example/.well-known/openid-configuration",
            ],
            id="AS-3 without",
        ),
        pytest.param(
            "https://as.example:8443/",
            [
                "https://as.example:8443/.well-known/oauth-authorization-server",
                "https://as.example:8443/.well-known/openid-configuration",
            ],
            id="AS-3 slash and port",
        ),
    ],
)
def test_places(issuer: str, places: list[str]) -> None:
    """AS-3: the well-known text goes before the path, and then, as OpenID has it, after it."""
    assert list(metadata_uris(issuer)) == places


def test_first_place() -> None:
    """The standard place is enough."""
    web = Web(first=GOOD, keys=b"the keys")
    assert Discovery(ISSUER, web.request).key_set("", attempt()) == b"the keys"
    assert web.asked == [FIRST, KEYS]


def test_second_place() -> None:
    """AS-3: OpenID's location is tried if the standard one has no usable metadata."""
    web = Web(second=GOOD, keys=b"the keys")
    assert Discovery(ISSUER, web.request).key_set("", attempt()) == b"the keys"
    assert web.asked == [FIRST, SECOND, KEYS]


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({**GOOD, "issuer": ISSUER + "/"}, id="AS-1 slash"),
        pytest.param({**GOOD, "issuer": ISSUER.upper()}, id="AS-1 case"),
        pytest.param({**GOOD, "issuer": "https://evil.example"}, id="AS-1 another issuer"),
        pytest.param({"jwks_uri": KEYS}, id="AS-1 no issuer"),
        pytest.param({**GOOD, "jwks_uri": "http://keys.example/jwks"}, id="AS-2 clear text"),
        pytest.param({**GOOD, "jwks_uri": "file:///etc/passwd"}, id="AS-2 file"),
        pytest.param({**GOOD, "jwks_uri": "https://u:p@keys.example/"}, id="AS-2 user"),
        pytest.param({**GOOD, "jwks_uri": "https://keys.example:x/"}, id="AS-2 port"),
        pytest.param({**GOOD, "jwks_uri": 5}, id="AS-2 number"),
        pytest.param({"issuer": ISSUER}, id="no keys"),
        pytest.param([GOOD], id="list"),
        pytest.param(b'{"issuer": "https://a", "issuer": "' + ISSUER.encode() + b'"}', id="issuer twice"),
        pytest.param(b"<html>", id="AS-4 HTML"),
    ],
)
def test_metadata_that_are_not_believed(metadata: Any) -> None:
    """AS-1, AS-2, AS-4: such metadata are rejected, and no URL in them is requested."""
    web = Web(first=metadata, keys=b"the keys")
    with pytest.raises(FetchError):
        Discovery(ISSUER, web.request).key_set("", attempt())
    assert web.asked == [FIRST, SECOND]


@pytest.mark.parametrize("media_type", ["", "text/html", "application/jwt", "application/json-seq"])
def test_media_type(media_type: str) -> None:
    """AS-4: metadata are application/json."""
    web = Web(media_type, first=GOOD, keys=b"the keys")
    with pytest.raises(FetchError, match="not application/json"):
        Discovery(ISSUER, web.request).key_set("", attempt())
    assert KEYS not in web.asked


@pytest.mark.parametrize("status", [204, 206, 302, 401, 500])
def test_status(status: int) -> None:
    """AS-4: metadata require the status 200."""
    web = Web(status=status, first=GOOD, second=GOOD, keys=b"the keys")
    with pytest.raises(FetchError, match=str(status)):
        Discovery(ISSUER, web.request).key_set("", attempt())
    assert KEYS not in web.asked


def test_issuer_with_a_query() -> None:
    """RFC 8414 section 2: such an issuer has no metadata, which is an error at start."""
    with pytest.raises(ValueError, match="query"):
        Discovery("https://as.example/?tenant=1", Web().request)


def test_clear_text_on_loopback() -> None:
    """With insecure_http the key set may be http: too."""
    web = Web(first={**GOOD, "jwks_uri": "http://127.0.0.1/jwks"})
    with pytest.raises(FetchError):
        Discovery(ISSUER, web.request, clear_text=True).key_set("", attempt())
    assert web.asked == [FIRST, "http://127.0.0.1/jwks"]


def test_fault_of_the_standard_place_is_told() -> None:
    """The log says what is wrong where the metadata should be."""
    with pytest.raises(FetchError, match="does not match the configured issuer"):
        Discovery(ISSUER, Web(first={"issuer": "x"}).request).key_set("", attempt())


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        pytest.param({"issuer": f"{ISSUER}/"}, f"names the issuer '{ISSUER}/'", id="slash"),
        pytest.param({"issuer": "\u202e\n" * 200}, "names the issuer '" + r"\u202e\n" * 100 + "'", id="long"),
        pytest.param({"issuer": 5}, "names no issuer", id="number"),
        pytest.param([], "names no issuer", id="list"),
    ],
)
def test_another_issuer_is_named(metadata: Any, named: str) -> None:
    """A trailing slash is the most common mistake. The logged issuer is truncated and escaped."""
    with pytest.raises(FetchError) as caught:
        Discovery(ISSUER, Web(first=metadata).request).key_set("", attempt())
    assert str(caught.value) == f"the metadata does not match the configured issuer: it {named}"
