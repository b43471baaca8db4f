"""From SECURE_ML_STORE_URI to a store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.errors import ConfigError
from flask_secure_ml.stores import open_store
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.stores.sqlite import SqliteStore
from flask_secure_ml.testing import FakeClock
from support import MakeApp


def test_default_is_memory(protected: MakeApp) -> None:
    """An app without the setting keeps state to itself."""
    assert isinstance(protected().extensions["secure_ml"].store, MemoryStore)


@pytest.mark.parametrize("slashes", ["", "//"], ids=["sqlite:/path", "sqlite:///path"])
def test_file(protected: MakeApp, tmp_path: Path, slashes: str) -> None:
    """SECURE_ML_STORE_URI names the file; it exists after the start, next to that of the limits."""
    app = protected(STORE_URI=f"sqlite:{slashes}{tmp_path}/state.db")
    assert isinstance(app.extensions["secure_ml"].store, SqliteStore)
    assert {each.name for each in tmp_path.iterdir()} == {"state.db", "state.db-limits"}


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_server(protected: MakeApp, server: Any, admin: Any, scheme: str) -> None:
    """A server by either name."""
    store = protected(STORE_URI=f"{scheme}://127.0.0.1:{server.port}/3").extensions["secure_ml"].store
    assert store.put("a", "k", b"1")
    assert (store.get("a", "k"), admin.dbsize()) == (b"1", 0)


@pytest.mark.parametrize("form", ["unix://{}", "unix:{}", "unix://{}?db=0", "redis+unix://{}", "valkey+unix://{}"])
def test_socket(server: Any, admin: Any, form: str, clock: FakeClock) -> None:
    """A server on a Unix socket."""
    store = open_store(form.format(server.unix_socket_path), None, clock)
    assert store.put("a", "k", b"1")
    assert admin.hkeys("flask-secure-ml:{a}:records") == [b"k"]


def test_server_need_not_response_yet(protected: MakeApp) -> None:
    """An app starts while its store is down; requests are rejected until it responds."""
    assert protected(STORE_URI="redis://127.0.0.1:1/0").extensions["secure_ml"].store.shared


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        pytest.param("sqlite:state.db", "absolute path", id="relative path"),
        pytest.param("sqlite://state.db", "absolute path", id="a host"),
        pytest.param("sqlite::memory:", "absolute path", id="a database in memory"),
        pytest.param("sqlite:/no/such/folder/state.db", "the directory /no/such/folder does not exist", id="no folder"),
        pytest.param("sqlite:/", "SECURE_ML_STORE_URI", id="no file"),
        pytest.param("redis://:hunter2@host:port/0", "cannot be used (ValueError)", id="port that is no number"),
        pytest.param("redis://:hunter2#x@host/0", "cannot be used (ValueError)", id="password that is not escaped"),
        pytest.param("redis://:hunter2@host/0?tiemout=1", "cannot be used (TypeError)", id="unknown option"),
        pytest.param("rediss://:hunter2@[host/0", "cannot be used (ValueError)", id="half an IPv6 address"),
    ],
)
def test_address_that_can_never_work(protected: MakeApp, uri: str, told: str) -> None:
    """It stops the app, with a sentence that names the setting and never a password."""
    with pytest.raises(ConfigError) as caught:
        protected(STORE_URI=uri)
    assert "SECURE_ML_STORE_URI" in str(caught.value)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_file_that_is_something_else(clock: FakeClock, tmp_path: Path) -> None:
    """A file of another kind is not modified."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        open_store(f"sqlite:{path}", None, clock)
    assert path.read_bytes() == b"something else" * 100


def test_client_library_is_an_extra(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the message has the install command."""
    for name in ("redis", "redis_client"):
        monkeypatch.delitem(sys.modules, f"flask_secure_ml.stores.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"pip install \"flask-secure-ml\[redis\]\""):
        open_store("redis://localhost", None, clock)


@pytest.mark.parametrize(
    "option", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_ciphers=NULL", "ssl_cert_reqs="]
)
def test_options_that_weaken_tls(option: str, clock: FakeClock) -> None:
    """A URI cannot disable verification of the server, which gets the password."""
    with pytest.raises(ConfigError, match="SECURE_ML_STORE_URI cannot be used"):
        open_store(f"rediss://stores.example/0?{option}", None, clock)
