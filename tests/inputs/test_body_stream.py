"""Reading a body: reads from the server's stream, and restoring it for the next reader."""

from __future__ import annotations

from io import BytesIO

import pytest

from bodies import CHUNKED, TERMINATED, a_request
from flask_secure_ml.inputs.body_stream import declared_length, put_back, read

MIB = 1_048_576


class Recording(BytesIO):
    """A stream that returns at most some bytes per read, and records the reads."""

    def __init__(self, body: bytes, most: int) -> None:
        super().__init__(body)
        self.most = most
        self.asked: list[int] = []

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        self.asked.append(size)
        return super().read(min(size, self.most))


def read_from(stream: Recording, length: int | None, limit: int = 100 * MIB) -> bytes:
    return read(a_request(None, None, stream, **(TERMINATED if length is None else {})), length, limit)


@pytest.mark.parametrize("most", [1, 3, 100])
def test_short_reads_are_continued(most: int) -> None:
    """A server may return less than requested, for a declared length and for a chunked body."""
    body = bytes(range(50))
    assert read_from(Recording(body, most), 50) == body
    assert read_from(Recording(body, most), None) == body


def test_a_declared_body_is_one_read() -> None:
    """That saves a copy, and it is not read beyond its length."""
    stream = Recording(bytes(3 * MIB), 10 * MIB)
    assert len(read_from(stream, 2 * MIB)) == 2 * MIB
    assert stream.asked == [2 * MIB]


def test_larger_bodies_are_read_in_blocks() -> None:
    """A server that allocates the requested size allocates little."""
    stream = Recording(bytes(5 * MIB), 10 * MIB)
    assert len(read_from(stream, 5 * MIB)) == 5 * MIB
    assert max(stream.asked) <= MIB


def test_a_stream_that_has_ended_is_not_asked_again() -> None:
    stream = Recording(b"", 10)
    assert read_from(stream, None, 10) == b""
    assert stream.asked == [11]
    assert read_from(Recording(b"", 10), 0) == b""


def test_the_next_reader_gets_a_body_of_known_length() -> None:
    request = a_request(b"", None, **CHUNKED)
    put_back(request, b"abc")
    assert request.environ["CONTENT_LENGTH"] == "3"
    assert {"HTTP_TRANSFER_ENCODING", "wsgi.input_terminated"}.isdisjoint(request.environ)
    assert request.get_data() == b"abc"


@pytest.mark.parametrize("coding", ["Chunked", " chunked "])
def test_a_coding_is_chunked_in_any_case(coding: str) -> None:
    assert declared_length({"HTTP_TRANSFER_ENCODING": coding, "wsgi.input_terminated": True}) is None
    assert declared_length({"HTTP_TRANSFER_ENCODING": " ", "CONTENT_LENGTH": "3"}) == 3
