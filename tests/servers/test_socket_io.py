"""Socket.IO over TLS under gunicorn: no event of a stranger reaches its handler, by any of its transports.

The app has a public route for every path, as a single-page app has. gthread serves WebSockets by simple-websocket,
which takes the socket from the environ; the worker of gevent-websocket switches protocols before the app is called.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from certificates import Certificate
from servers import Served, gunicorn, wait_until
from support import caller

WORKERS = {
    "simple-websocket": ("threading", ["--worker-class", "gthread", "--threads", "8"]),
    "gevent-websocket": ("gevent", ["--worker-class", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"]),
}
POLLING = "/socket.io/?EIO=4&transport=polling"
WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"

HANDSHAKE = "\r\n".join(
    (
        f"GET {WEBSOCKET} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "\r\n",
    )
)
# A client reads nothing, not what it expects, or an end of the connection.
LOST = (WebSocketException, OSError, ValueError)


class Site:
    """One running server, and the events that reached a handler."""

    def __init__(self, served: Served, events: Path) -> None:
        self.served = served
        self._events = events
        self._context = ssl.create_default_context(cafile=served.trusted)
        # After a rejected handshake on a connection that stays open, the client waits for ever if it took a session
        # ticket of TLS 1.3, which may come at any time, for data.
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2

    @property
    def events(self) -> list[str]:
        return self._events.read_text().splitlines() if self._events.exists() else []

    @contextmanager
    def connected(self, path: str, **headers: str) -> Iterator[ClientConnection]:
        uri = f"wss://localhost:{self.served.port}{path}"
        with connect(uri, ssl=self._context, additional_headers=headers, open_timeout=10, close_timeout=1) as client:
            yield client


@pytest.fixture(scope="module", params=WORKERS)
def site(
    request: pytest.FixtureRequest, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("socket_io")
    mode, options = WORKERS[request.param]
    environ = os.environ | {"ASYNC_MODE": mode, "EVENTS": str(folder / "events")}
    with gunicorn(folder, certificate, environ, *options, app="socket_io_app:create_app()") as served:
        yield Site(served, folder / "events")


@contextmanager
def added(site: Site, *events: str) -> Iterator[None]:
    """Check which events reach a handler meanwhile."""
    before = site.events
    yield
    # A handler runs beside the request that brought its event.
    wait_until(lambda: len(site.events) >= len(before) + len(events), "an event reached no handler")
    assert site.events == [*before, *events]


def emit(client: ClientConnection, value: int) -> list[int]:
    """Connect to the default namespace, send an event, and return the result of its handler."""
    client.recv(10)
    client.send("40")
    client.recv(10)
    client.send(f'421["predict",{value}]')
    found: list[int] = json.loads(str(client.recv(10)).removeprefix("431"))
    return found


def probe(client: ClientConnection) -> None:
    client.send("2probe")
    client.recv(10)


def test_polling(site: Site) -> None:
    """An anonymous client gets 401 for each request, also with another client's session."""
    with added(site):
        assert site.served.call("GET", POLLING)[0] == 401
        assert site.served.call("GET", POLLING, headers=caller("bad"))[0] == 401
    status, _, body = site.served.call("GET", POLLING, headers=caller("ada"))
    assert status == 200
    session = json.loads(body[1:])["sid"]
    with added(site):
        for packet in ("40", '42["predict",7]'):
            assert site.served.call("POST", f"{POLLING}&sid={session}", packet)[0] == 401
    with added(site, "ada 7"):
        for packet in ("40", '42["predict",7]'):
            assert site.served.call("POST", f"{POLLING}&sid={session}", packet, caller("ada"))[0] == 200


def test_websocket(site: Site) -> None:
    """A caller with a credential gets through; a stranger's connection ends before its first event."""
    with added(site, "ada 7"):
        for headers in ({}, caller("bad")):
            with pytest.raises(LOST), site.connected(WEBSOCKET, **headers) as client:
                emit(client, 8)
        with site.connected(WEBSOCKET, **caller("ada")) as client:
            assert emit(client, 7) == [8]


def test_a_rejected_websocket_says_why(site: Site) -> None:
    """The handshake fails with 401; where the server has switched protocols already, the close code is 1008."""
    with pytest.raises((InvalidStatus, ConnectionClosed)) as raised, site.connected(WEBSOCKET) as client:
        client.recv(10)
    error = raised.value
    if isinstance(error, InvalidStatus):
        assert error.response.status_code == 401
    else:
        assert isinstance(error, ConnectionClosed)
        assert error.rcvd is not None
        assert error.rcvd.code == 1008


def test_a_rejected_handshake_ends_the_connection(site: Site) -> None:
    """A client that waits for its end does not occupy a thread; a close frame has the same effect."""
    response = site.served.raw(HANDSHAKE.encode()).lower()
    assert b"\r\nconnection: close\r\n" in response or b"\x88\x02\x03\xf0" in response


def test_upgrading_the_session_of_somebody_else(site: Site) -> None:
    """A session id is not a credential."""
    body = site.served.call("GET", POLLING, headers=caller("ada"))[2]
    path = f"{WEBSOCKET}&sid={json.loads(body[1:])['sid']}"
    with added(site), pytest.raises(LOST), site.connected(path) as client:
        probe(client)


@pytest.mark.parametrize("path", ["/page", "//socket.io/", "/x/../socket.io/", "/Socket.io/"])
def test_a_websocket_at_a_public_route(site: Site, path: str) -> None:
    """The route for every path opens no connection beneath; a rejected one runs no handler."""
    with added(site), pytest.raises(LOST), site.connected(f"{path}?EIO=4&transport=websocket") as client:
        emit(client, 9)


def test_routes_beside_it(site: Site) -> None:
    """Ordinary requests still work."""
    assert json.loads(site.served.call("GET", "/page")[2]) == {"path": "page", "websocket": False}


def test_requests_to_upgrade_without_a_websocket(site: Site) -> None:
    """gevent's server then passes the bare connection as the body; its end is not awaited."""
    for media_type in ("text/plain", "application/json"):
        headers = {"Connection": "upgrade", "Content-Type": media_type}
        assert site.served.call("GET", "/page", headers=headers)[0] == 200


TARGETS = (
    *("/socket.io/", "/socket.io", "//socket.io/", "/./socket.io/", "/x/../socket.io/", "/socket.io/../socket.io/"),
    *("/%73ocket.io/", "/socket%2eio/", "/socket.io%2f", "/%2fsocket.io/", "/socket.io/%00", "/socket.io;a/"),
    *("http://localhost/socket.io/", "https://evil//socket.io/", "socket.io/", "*", "/socket.io/#", "/SOCKET.IO/"),
)


def test_targets_on_the_wire(site: Site) -> None:
    """However a server reads a request target, no stranger gets a session of Engine.IO."""
    with added(site):
        for target in TARGETS:
            line = f"GET {target}?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            received = site.served.raw(line.encode())
            assert received.startswith((b"HTTP/1.1 200", b"HTTP/1.1 308", b"HTTP/1.1 4")), target
            assert b'"sid"' not in received, target
