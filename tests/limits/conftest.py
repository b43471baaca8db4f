"""A real server for the counters of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from servers import valkey
from waits import HANG


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with valkey(tmp_path_factory.mktemp("counters")) as running:
        yield running


@pytest.fixture
def admin(server: Any) -> Iterator[Any]:
    """A client of the library itself, on a server that is empty when the test begins."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture
def address(server: Any, admin: Any) -> str:
    """The server, with a timeout that a busy machine does not reach."""
    return f"redis://127.0.0.1:{server.port}/0?socket_timeout={HANG}"
