"""A real Valkey for all tests of this folder, and a store of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_secure_ml.stores import SharedStore, open_store
from flask_secure_ml.testing import FakeClock
from servers import valkey
from waits import HANG


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("valkey")
    with valkey(folder, unix_socket_path=folder / "socket") as running:
        yield running


@pytest.fixture
def admin(server: Any) -> Iterator[Any]:
    """A client of the library itself, on a server that is empty and open when the test begins and ends."""
    with redis.Redis(unix_socket_path=str(server.unix_socket_path)) as client:
        client.flushall()
        yield client
        client.acl_setuser("default", enabled=True, reset_passwords=True, nopass=True)
        client.acl_deluser("model")


@pytest.fixture
def address(server: Any, admin: Any) -> str:
    """The server, with a timeout that a busy machine does not reach: the usual one has tests of its own."""
    return f"valkey://127.0.0.1:{server.port}/0?socket_timeout={HANG}"


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the state is; empty at the start of each test."""
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'state.db'}"
    return str(request.getfixturevalue("address"))


@pytest.fixture
def store(uri: str, clock: FakeClock) -> SharedStore:
    return open_store(uri, None, clock)
