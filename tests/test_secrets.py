"""References to secrets: their sources, invalid values, and that values are never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_secure_ml import ConfigError, SecureML
from flask_secure_ml.secrets import Secret, SecretRing, client_secret_ring, secret_ring
from support import OLDER_SECRET, RANDOM_SECRET


@pytest.mark.parametrize("reference", ["env:", "file:", "vault:", "vault:x", "vault:x/y", "vault:/y#z", "vault:x#z"])
def test_incomplete_references(reference: str) -> None:
    """A reference without its place is a mistake, not a literal."""
    with pytest.raises(ValueError, match=r"must (name|have)|requires a name"):
        Secret(reference)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """env:NAME is read when it is used."""
    secret = Secret("env:THE_SECRET")
    monkeypatch.setenv("THE_SECRET", RANDOM_SECRET)
    assert secret.read() == RANDOM_SECRET.encode()
    assert RANDOM_SECRET not in repr(secret)


def test_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A mounted secret is rotated by replacing the file."""
    path = tmp_path / "secret"
    path.write_text(RANDOM_SECRET + "\n")
    secret = Secret(f"file:{path}")
    assert secret.read() == RANDOM_SECRET.encode()
    (tmp_path / "new").write_text(OLDER_SECRET)
    (tmp_path / "new").replace(path)
    assert secret.read() == OLDER_SECRET.encode()
    assert OLDER_SECRET not in repr(secret)


def test_short_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than 32 bytes are rejected; the message names the reference, not the value."""
    monkeypatch.setenv("SHORT", "correct horse")
    for reference, words in (("env:SHORT", "has 13"), (f"file:{tmp_path}/none", "cannot be read")):
        with pytest.raises(ValueError, match=words) as caught:
            Secret(reference).read()
        assert "horse" not in str(caught.value)


def test_variable_that_is_not_set() -> None:
    """The message names the variable."""
    with pytest.raises(ValueError, match="environment variable NO_SUCH_SECRET is not set"):
        Secret("env:NO_SUCH_SECRET").read()


def test_secret_that_is_lost_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once when it becomes unusable and once when it is back; at start it is an error instead."""
    path = tmp_path / "secret"
    secret = Secret(f"file:{path}", random=True)
    with pytest.raises(ValueError, match="cannot be read"):
        secret.read()
    assert caplog.records == []
    for content, usable in ((RANDOM_SECRET, True), ("short", False), ("hunter2" * 8, False), (OLDER_SECRET, True)):
        path.write_text(content)
        for _ in range(3):
            if usable:
                secret.read()
            else:
                with pytest.raises(ValueError, match=r"must have|random"):
                    secret.read()
    assert [each.getMessage() for each in caplog.records] == [
        f"file:{path} cannot be used: file:{path} must have at least 32 bytes and has 5",
        f"file:{path} can be used again",
    ]


def test_ring_is_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first secret is for new values; all of them verify old ones."""
    monkeypatch.setenv("NEW", RANDOM_SECRET)
    monkeypatch.setenv("OLD", OLDER_SECRET)
    ring = secret_ring(["env:NEW", "env:OLD"])
    assert ring.newest() == RANDOM_SECRET.encode()
    assert ring.read() == (RANDOM_SECRET.encode(), OLDER_SECRET.encode())
    assert RANDOM_SECRET not in repr(ring)
    assert not ring.literal


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param([], "one reference", id="empty list"),
        pytest.param([RANDOM_SECRET] * 5, "at most 4", id="too many"),
        pytest.param([5], "must be a reference", id="number in the list"),
        pytest.param({"a": 1}, "must be a reference", id="object"),
        pytest.param("", "must be a reference", id="empty text"),
        pytest.param("secret" * 8, "does not look random", id="a word again and again"),
        pytest.param("a" * 64, "does not look random", id="one letter"),
        pytest.param("a-string-secret-at-least-256-bits-long", "does not look random", id="a well-known example"),
        pytest.param("hunter2", "at least 32 bytes", id="a password"),
    ],
)
def test_rings_that_are_rejected(value: Any, words: str) -> None:
    """JB-8, A7: a typed password is not a key; the message does not quote it."""
    with pytest.raises(ValueError, match=words) as caught:
        secret_ring(value)
    assert not any(part in str(caught.value) for part in ("hunter2", "secretsecret", "aaaa", "a-string", RANDOM_SECRET))


def test_a_client_secret_may_be_shorter() -> None:
    """Another party chose it, so only its length is looked at."""
    assert client_secret_ring("client-secret-16").newest() == b"client-secret-16"
    with pytest.raises(ValueError, match="at least 16"):
        client_secret_ring("too-short")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("API_KEY_PEPPER", RANDOM_SECRET, id="pepper"),
        pytest.param("API_KEY_PEPPER", ["env:GOOD", RANDOM_SECRET], id="older pepper"),
        pytest.param("DPOP_NONCE_SECRET", RANDOM_SECRET, id="nonce"),
        pytest.param("STORE_PASSWORD", RANDOM_SECRET, id="store"),
        pytest.param(
            "TOKEN_ISSUERS",
            [{"issuer": "https://a", "audience": "b", "algorithms": ["HS256"], "secret": RANDOM_SECRET}],
            id="HMAC",
        ),
        pytest.param(
            "TOKEN_ISSUERS",
            [
                {
                    "issuer": "https://a",
                    "audience": "b",
                    "introspection_uri": "https://a/i",
                    "client_id": "c",
                    "client_secret": RANDOM_SECRET,
                }
            ],
            id="client",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["DEBUG", "TESTING", ""])
def test_a_literal_is_for_debug_and_testing_only(
    name: str, value: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anywhere else it is a start-up error, which does not repeat it."""
    monkeypatch.setenv("GOOD", OLDER_SECRET)
    app = Flask("literal")
    app.config[f"SECURE_ML_{name}"] = value
    if mode:
        app.config[mode] = True
        SecureML(app)
        return
    with pytest.raises(ConfigError, match="never the secret itself") as caught:
        SecureML(app)
    assert RANDOM_SECRET not in str(caught.value)


def test_repr_of_a_ring_names_references_only() -> None:
    """The repr, which debuggers and logs show, has no values."""
    assert repr(SecretRing(Secret("env:A"), Secret(RANDOM_SECRET))) == (
        "SecretRing(Secret('env:A'), Secret('a literal secret'))"
    )
