"""Nonces that workers know from each other without a store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.authentication.tokens.nonces import Nonces
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.testing import FakeClock
from support import OLDER_SECRET, RANDOM_SECRET

NEW, OLD = Secret(RANDOM_SECRET), Secret(OLDER_SECRET)


@pytest.fixture
def nonces(clock: FakeClock) -> Nonces:
    return Nonces(SecretRing(NEW), clock)


@pytest.mark.parametrize(
    ("seconds", "good"),
    [(0, True), (299, True), (300, True), (599, True), (600, False), (86_400, False), (-300, False)],
)
def test_life(nonces: Nonces, clock: FakeClock, seconds: float, good: bool) -> None:
    """A nonce is good in its own period and the next, and not before it was given (DP-7)."""
    nonce = nonces.current()
    clock.advance(seconds)
    assert nonces.accepts(nonce) is good


def test_a_period_has_one_nonce(nonces: Nonces, clock: FakeClock) -> None:
    """The nonce changes with the period and not before."""
    found = []
    for _ in range(4):
        found.append(nonces.current())
        clock.advance(150)
    assert found[0] == found[1] != found[2] == found[3]


def test_period(clock: FakeClock) -> None:
    """The period is an argument."""
    nonces = Nonces(SecretRing(NEW), clock, period=10)
    nonce = nonces.current()
    clock.advance(20)
    assert not nonces.accepts(nonce)


def test_form(nonces: Nonces) -> None:
    """A nonce has only characters that RFC 9449 section 8.1 allows, and too many to be guessed."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{27}", nonces.current())


def test_workers_know_each_other(nonces: Nonces, clock: FakeClock) -> None:
    """A nonce of one worker is good at another with the same secret, and at none with another."""
    assert Nonces(SecretRing(NEW), clock).accepts(nonces.current())
    assert not Nonces(SecretRing(OLD), clock).accepts(nonces.current())


def test_rotation(nonces: Nonces, clock: FakeClock) -> None:
    """While a secret is rotated, the nonces of both are good and the newest makes new ones."""
    before = Nonces(SecretRing(OLD), clock)
    during = Nonces(SecretRing(NEW, OLD), clock)
    assert during.accepts(before.current())
    assert during.current() == nonces.current()
    assert not nonces.accepts(before.current())


def test_secret_file_is_read_again(tmp_path: Path, clock: FakeClock) -> None:
    """A changed secret takes effect without a restart, and one that is gone is 503."""
    path = tmp_path / "secret"
    path.write_text(RANDOM_SECRET)
    nonces = Nonces(SecretRing(Secret(f"file:{path}")), clock)
    first = nonces.current()
    path.write_text(OLDER_SECRET + "\n\n")
    assert nonces.current() != first
    path.unlink()
    for run in (nonces.current, lambda: nonces.accepts(first)):
        with pytest.raises(DependencyUnavailable) as caught:
            run()
        assert "Retry-After" in dict(caught.value.extra_headers)
        assert RANDOM_SECRET not in caught.value.reason


@given(text=st.text(max_size=40))
def test_invented(text: str) -> None:
    """A string that was not issued is not valid, whatever its characters."""
    assert not Nonces(SecretRing(NEW), FakeClock()).accepts(text)


@pytest.mark.parametrize("change", ["", "x", "swapped"])
def test_changed(nonces: Nonces, change: str) -> None:
    """Neither is a nonce that is cut, longer or in another case."""
    nonce = nonces.current()
    assert not nonces.accepts({"": nonce[:-1], "x": nonce + "x", "swapped": nonce.swapcase()}[change])
