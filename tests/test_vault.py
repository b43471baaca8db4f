"""Secrets in Vault, read by the real client from a server that speaks the key-value API, version 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from flask_secure_ml.secrets import Secret, SecretUnavailable, VaultValue, secret_ring
from flask_secure_ml.testing import FakeClock
from http_servers import QuietHandler, in_thread
from support import OLDER_SECRET, RANDOM_SECRET

pytest.importorskip("hvac")
PLACE = "secret/team/model#pepper"


class Vault(ThreadingHTTPServer):
    """Knows one secret; ``status`` makes it fail."""

    value = RANDOM_SECRET
    status = 200
    reads = 0
    token = "root"


class Handler(QuietHandler):
    server: Vault

    def do_GET(self) -> None:
        self.server.reads += 1
        known = self.path == "/v1/secret/data/team/model" and self.headers["X-Vault-Token"] == self.server.token
        response = {"data": {"data": {"pepper": self.server.value}, "metadata": {"version": 1}}}
        body = json.dumps(response if known else {"errors": ["denied"]}).encode()
        self.respond(self.server.status if known else 403, body, {"Content-Type": "application/json"})


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    with in_thread(Vault(("127.0.0.1", 0), Handler)) as server:
        monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("VAULT_TOKEN", "root")
        yield server


def test_reference_is_read_from_vault(vault: Vault) -> None:
    """vault:mount/path#field is one field of a secret; the environment has the address of Vault."""
    secret = Secret("vault:" + PLACE)
    assert not secret.literal
    assert secret.read() == RANDOM_SECRET.encode()
    assert RANDOM_SECRET not in repr(secret)


def test_value_is_kept_for_a_minute_and_then_read_again(vault: Vault) -> None:
    """A rotated secret is in use within a minute, and requests in between do not wait for Vault."""
    clock = FakeClock()
    value = VaultValue(PLACE, clock)
    assert [value.read() for _ in range(3)] == [RANDOM_SECRET.encode()] * 3
    assert vault.reads == 1
    vault.value = OLDER_SECRET
    clock.advance(60)
    assert value.read() == OLDER_SECRET.encode()


@pytest.mark.parametrize(
    ("fault", "reason"), [("down", "Vault does not respond"), ("denied", "Vault has no such secret for this app")]
)
def test_last_value_serves_for_an_hour(vault: Vault, fault: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """While Vault does not respond; then it is not used any more. The log has the reference, not the value."""
    clock = FakeClock()
    value = VaultValue(PLACE, clock)
    assert value.read() == RANDOM_SECRET.encode()
    if fault == "down":
        vault.status = 503
    else:
        vault.token = "another"
    clock.advance(3599)
    assert value.read() == RANDOM_SECRET.encode()
    assert f"the secrets at vault:secret/team/model are not up to date: {reason} (" in caplog.text
    assert RANDOM_SECRET not in caplog.text
    clock.advance(1)
    with pytest.raises(OSError, match=reason):
        value.read()


def test_vault_that_is_down_at_start(vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """The setting is accepted: a worker that starts in an outage must not take the server down. It is logged once."""
    vault.status = 503
    clock = FakeClock()
    value = VaultValue(PLACE, clock)
    for _ in range(3):
        with pytest.raises(OSError, match="does not respond") as caught:
            value.read()
    assert getattr(caught.value, "temporary", False)
    vault.status = 200
    clock.advance(12)
    assert value.read() == RANDOM_SECRET.encode()
    assert [each.getMessage() for each in caplog.records if each.name.startswith("flask")] == [
        "the secrets at vault:secret/team/model are not up to date: Vault does not respond (VaultDown)",
        "the secrets at vault:secret/team/model are up to date again",
    ]
    vault.status = 503
    ring = secret_ring("vault:" + PLACE)
    assert ring.check() == ()
    with pytest.raises(SecretUnavailable, match="vault:"):
        ring.read()


def test_value_is_checked_when_vault_responds(vault: Vault) -> None:
    """A value that could not be checked at start is checked at its first read."""
    vault.value = "hunter2" * 8
    with pytest.raises(ValueError, match="does not look random"):
        Secret("vault:" + PLACE, random=True).read()


def test_client_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the message has the install command."""
    monkeypatch.setitem(sys.modules, "hvac", None)
    with pytest.raises(ValueError, match=r"pip install 'flask-secure-ml\[vault\]'"):
        Secret("vault:" + PLACE).read()


@pytest.mark.parametrize("place", ["secret/other#pepper", "secret/team/model#other"], ids=["no secret", "no field"])
def test_unknown_place(vault: Vault, place: str) -> None:
    """The setting is rejected; no other value is used instead."""
    with pytest.raises(ValueError, match="cannot be read"):
        Secret("vault:" + place).read()
