"""The address that the demo serves on."""

from __future__ import annotations

import pytest

from example_app.server import Address, ServerError


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        pytest.param("", "http", "PORT must be a number", id="port-not-a-number"),
        pytest.param("", "0", "PORT must be a number", id="port-zero"),
        pytest.param("", "65536", "PORT must be a number", id="port-too-large"),
        pytest.param("192.0.2.1", "8443", "cannot listen on HOST", id="address-of-another-machine"),
        pytest.param("no-such-host.invalid", "8443", "cannot listen on HOST", id="unknown-host"),
    ],
)
def test_wrong_address(host: str, port: str, message: str) -> None:
    """An address that cannot be served is explained."""
    with pytest.raises(ServerError, match=message):
        Address.parse(host, port).check_free()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "https://127.0.0.1:8443"),
        ("0.0.0.0", "https://127.0.0.1:8443"),
        ("::", "https://[::1]:8443"),
        ("localhost", "https://localhost:8443"),
    ],
)
def test_url(host: str, url: str) -> None:
    """The printed address is one that this machine can reach."""
    assert Address.parse(host, "").url == url
