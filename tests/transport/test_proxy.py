"""The proxy middleware: which forwarded headers are trusted."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from flask_secure_ml import Exchange
from flask_secure_ml.config.fields import NetworkList
from flask_secure_ml.exchange import exchange_of
from flask_secure_ml.testing import FakeClock
from flask_secure_ml.transport.forwarded import HOP_FAMILIES, HOP_HEADERS, PROXY_HEADERS
from flask_secure_ml.transport.proxy import ExchangeOpener

TRUSTED = ["10.0.0.0/8", "2001:db8::/32"]


def opened(peer: str | None, trusted: list[str] | None = None, /, **headers: str) -> tuple[Exchange, dict[str, Any]]:
    """Open the exchange of one request; keywords are header names with underscores."""
    environ = EnvironBuilder(base_url="http://api.example").get_environ()
    environ.pop("REMOTE_ADDR", None)
    if peer is not None:
        environ["REMOTE_ADDR"] = peer
    environ.update({f"HTTP_{name.upper()}": value for name, value in headers.items()})
    exchange = ExchangeOpener(NetworkList().deserialize(TRUSTED if trusted is None else trusted), FakeClock()).open(
        environ
    )
    if exchange_of(environ) is not exchange:
        raise LookupError("the exchange is not in the environ")
    return exchange, environ


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        pytest.param("192.0.2.1", "198.51.100.7", "192.0.2.1", id="untrusted peer"),
        pytest.param("10.0.0.1", "198.51.100.7", "198.51.100.7", id="one proxy"),
        pytest.param("10.0.0.1", "198.51.100.7, 10.0.0.2", "198.51.100.7", id="two proxies"),
        pytest.param("10.0.0.1", "6.6.6.6, 198.51.100.7", "198.51.100.7", id="client lies before the proxy"),
        pytest.param("10.0.0.1", "10.6.6.6, 198.51.100.7, 10.0.0.2", "198.51.100.7", id="client claims to be a proxy"),
        pytest.param("10.0.0.1", "", "10.0.0.1", id="empty chain"),
        pytest.param("10.0.0.1", "unknown", "10.0.0.1", id="no address"),
        pytest.param("10.0.0.1", "' OR 1=1, 10.0.0.2", "10.0.0.2", id="garbage behind a proxy"),
        pytest.param("10.0.0.1", "198.51.100.7:4711", "198.51.100.7", id="with a port"),
        pytest.param("10.0.0.1", "[2001:470::7]:443", "2001:470::7", id="IPv6 with a port"),
        pytest.param("2001:db8::1", "2001:470::7", "2001:470::7", id="IPv6 proxy"),
        pytest.param("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7", id="IPv4 inside IPv6"),
        pytest.param("::ffff:192.0.2.1", "", "192.0.2.1", id="IPv4 inside IPv6, untrusted"),
        pytest.param("10.0.0.1", "fe80::1%sml_x", "fe80::1", id="IPv6 with a scope"),
        pytest.param("10.0.0.1", ", ,198.51.100.7,", "198.51.100.7", id="empty entries"),
    ],
)
def test_the_client_address(peer: str, chain: str, client: str) -> None:
    """The first address from our side that is not a trusted proxy, never one that the client sent before it."""
    exchange, environ = opened(peer, x_forwarded_for=chain)
    assert (exchange.peer, exchange.client) == (peer.removeprefix("::ffff:"), client)
    assert environ["REMOTE_ADDR"] == client
    assert environ.get("HTTP_X_FORWARDED_FOR", client) == client


@pytest.mark.parametrize(
    ("peer", "proto", "secure"),
    [
        pytest.param("192.0.2.1", "https", False, id="untrusted peer"),
        pytest.param("10.0.0.1", "https", True, id="trusted"),
        pytest.param("10.0.0.1", "HTTPS", True, id="upper case"),
        pytest.param("10.0.0.1", "http", False, id="clear text at the edge"),
        pytest.param("10.0.0.1", "https, http", False, id="nearest proxy says clear text"),
        pytest.param("10.0.0.1", "httpsx", False, id="garbled"),
    ],
)
def test_the_scheme(peer: str, proto: str, secure: bool) -> None:
    """TLS counts only by the word of the nearest trusted proxy."""
    exchange, environ = opened(peer, x_forwarded_proto=proto)
    assert exchange.secure is secure
    assert environ["wsgi.url_scheme"] == ("https" if secure else "http")


def test_the_host() -> None:
    """A trusted proxy may set the host; an invalid host name is dropped."""
    assert opened("10.0.0.1", x_forwarded_host="model.example:444")[1]["HTTP_HOST"] == "model.example:444"
    assert opened("10.0.0.1", x_forwarded_host="a/../b")[1]["HTTP_HOST"] == "api.example"
    assert opened("192.0.2.1", x_forwarded_host="evil.example")[1]["HTTP_HOST"] == "api.example"


@pytest.mark.parametrize("name", sorted(HOP_HEADERS))
@pytest.mark.parametrize("peer", ["10.0.0.1", "192.0.2.1"])
def test_other_hop_headers_are_removed(peer: str, name: str) -> None:
    """Even from a trusted proxy: this release does not use them, so inner code must not either."""
    assert name not in opened(peer, **{name.removeprefix("HTTP_"): "x"})[1]


@pytest.mark.parametrize("family", HOP_FAMILIES)
@pytest.mark.parametrize("peer", ["10.0.0.1", "192.0.2.1"])
def test_unknown_members_of_a_family_are_removed(peer: str, family: str) -> None:
    """Whatever follows the beginning, also names that we do not know."""
    environ = opened(peer, **{family.removeprefix("HTTP_") + "_SOMETHING_NEW": "root"})[1]
    assert not [key for key in environ if key.startswith(family)]


def test_irrelevant_hop_headers_settle_nothing() -> None:
    """A trusted proxy that names no client is the client, and no header is made up for it."""
    exchange, environ = opened("10.0.0.1", via="1.1 proxy", x_forwarded_prefix="/admin")
    assert exchange.client == "10.0.0.1"
    assert not environ.keys() & PROXY_HEADERS


def test_a_unix_socket_is_trusted_only_when_named() -> None:
    """A peer without an address is a Unix socket."""
    assert opened(None, x_forwarded_for="198.51.100.7")[0].client == ""
    assert opened(None, ["unix"], x_forwarded_for="198.51.100.7")[0].client == "198.51.100.7"


def test_request_ids() -> None:
    """A trusted proxy's id is kept when it is harmless; else there is a fresh one of 128 bits."""
    assert opened("10.0.0.1", x_request_id="edge-0123456789")[0].request_id == "edge-0123456789"
    for peer, given in (("192.0.2.1", "edge-0123456789"), ("10.0.0.1", "x\r\ny"), ("10.0.0.1", "short")):
        made = opened(peer, x_request_id=given)[0].request_id
        assert len(made) == 32
        assert made != given
