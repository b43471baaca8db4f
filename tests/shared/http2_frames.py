"""One upload over HTTP/2, frame by frame (RFC 9113), to test how a server ends the stream of a rejected body."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8
END_STREAM, END_HEADERS = 1, 4
ACK, INITIAL_WINDOW_SIZE = 1, 4
NO_ERROR, CANCEL = 0, 8
WINDOW, PIECE = 65_535, 16_384


@dataclass(frozen=True)
class Ended:
    """A complete response, and how the stream ended.

    :param body: the body of the response.
    :param reset: the error code with which the server reset the stream; None if it read the whole body instead.
    """

    body: bytes
    reset: int | None


class _Upload:
    """The unsent rest of a body, and the flow-control window of the server (RFC 9113 section 6.9)."""

    def __init__(self, channel: ssl.SSLSocket, size: int) -> None:
        self._channel = channel
        self.left = size
        self._windows = [WINDOW, WINDOW]
        self._initial = WINDOW

    def opened(self, stream: int, size: int) -> None:
        self._windows[stream] += size

    def settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == INITIAL_WINDOW_SIZE:
                self._windows[1] += value - self._initial
                self._initial = value

    def send(self) -> None:
        while (piece := min(self.left, PIECE, *self._windows)) > 0:
            self.left -= piece
            self._windows = [window - piece for window in self._windows]
            self._channel.sendall(_frame(DATA, 0 if self.left else END_STREAM, 1, b" " * piece))


def upload(channel: ssl.SSLSocket, fields: Mapping[str, str], size: int) -> Ended:
    """Send a POST, and as much of its body as the server accepts.

    :param channel: a connection that has negotiated ``h2``.
    :param fields: the pseudo-header fields and headers, in lower case, without the length.
    :param size: the length of the body, in bytes.
    :raises ValueError: the stream or the connection ends without a complete response.
    """
    block = b"".join(_field(name, value) for name, value in {**fields, "content-length": str(size)}.items())
    channel.sendall(PREFACE + _frame(SETTINGS, 0, 0) + _frame(HEADERS, END_HEADERS, 1, block))
    sent = _Upload(channel, size)
    body, complete = b"", False
    for kind, flags, stream, payload in _frames(channel):
        if kind == GOAWAY or (kind == RST_STREAM and not complete):
            raise ValueError(f"the response is not complete: {payload!r}")
        if kind == RST_STREAM:
            return Ended(body, int.from_bytes(payload, "big"))
        if kind == SETTINGS and not flags & ACK:
            sent.settings(payload)
            channel.sendall(_frame(SETTINGS, ACK, 0))
        elif kind == WINDOW_UPDATE:
            sent.opened(stream, int.from_bytes(payload, "big"))
        elif kind == DATA:
            body += payload
        complete = complete or (kind in {DATA, HEADERS} and bool(flags & END_STREAM))
        sent.send()
        if complete and not sent.left:
            return Ended(body, None)
    raise ValueError("the connection is closed without a response or a reset")


def _field(name: str, value: str) -> bytes:
    """Return a header as a literal without indexing (RFC 7541 section 6.2.2)."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _frames(channel: ssl.SSLSocket) -> Iterator[tuple[int, int, int, bytes]]:
    received = bytearray()
    while piece := channel.recv(65_536):
        received += piece
        while len(received) >= 9 and len(received) >= (end := 9 + int.from_bytes(received[:3], "big")):
            kind, flags, stream = struct.unpack(">BBI", received[3:9])
            yield kind, flags, stream, bytes(received[9:end])
            del received[:end]
