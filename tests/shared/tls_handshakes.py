"""TLS handshakes: in memory between two contexts, and with a running server."""

from __future__ import annotations

import socket
import ssl

import pytest


def only_group(context: ssl.SSLContext, group: str) -> None:
    """Restrict a client to one key exchange group; skip the test if this Python cannot, as some builds of 3.11."""
    try:
        context.set_ecdh_curve(group)
    except ssl.SSLError:
        pytest.skip(f"this Python cannot choose {group}")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str:
    """Return the TLS version that two contexts negotiate.

    :raises ssl.SSLError: the negotiation fails, or the client does not trust the server.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=host)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        done = [_step(near), _step(far)]
        if all(done):
            break
    return str(near.version())


def _step(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def connect(port: int, context: ssl.SSLContext, host: str = "localhost") -> ssl.SSLSocket:
    """Return a connection to a server on loopback after the handshake.

    :raises OSError: the server closes the connection, or the negotiation fails.
    """
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise
