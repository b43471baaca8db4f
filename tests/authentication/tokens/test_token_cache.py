"""The token cache: what is checked again on a hit, and what is never cached."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import Key

from flask_secure_ml.authentication.throttle import Calls
from flask_secure_ml.authentication.tokens.authenticator import TokenCache
from flask_secure_ml.authentication.tokens.jwks import HttpKeys
from flask_secure_ml.authentication.tokens.jwt import JwtVerifier, TrustedIssuer
from flask_secure_ml.authentication.tokens.sources import FileKeys
from flask_secure_ml.config import Settings
from flask_secure_ml.config.issuers import IssuerConfig
from flask_secure_ml.errors import DependencyUnavailable, NotAuthenticated
from flask_secure_ml.fetch import FetchError
from flask_secure_ml.refresh import Attempt
from flask_secure_ml.testing import FakeClock, make_key_set, make_signing_key

Counted = Callable[..., tuple[JwtVerifier, list[str]]]


@pytest.fixture
def counted(
    tmp_path: Path, clock: FakeClock, signing_keys: Mapping[str, Key], monkeypatch: pytest.MonkeyPatch
) -> Counted:
    """A verifier, and the tokens whose signature it verified."""

    def make(size: int = 10) -> tuple[JwtVerifier, list[str]]:
        (tmp_path / "jwks").write_text(make_key_set(signing_keys["RS256"]))
        config = IssuerConfig("https://issuer.example", "https://api.example", ("RS256",), jwks_file="x")
        keys = FileKeys(str(tmp_path / "jwks"), ("RS256",))
        verifier = JwtVerifier({config.issuer: TrustedIssuer(config, keys)}, clock, cache_size=size)
        seen: list[str] = []
        real = verifier._verify

        def note(token: str, calls: Calls) -> Any:
            seen.append(token)
            return real(token, calls)

        monkeypatch.setattr(verifier, "_verify", note)
        return verifier, seen

    return make


def test_known_token_is_not_verified_again(counted: Counted, token: Any) -> None:
    """The signature of a token is verified once."""
    verifier, seen = counted()
    text = token()
    assert verifier.verify(text) is verifier.verify(text)
    assert seen == [text]


def test_size_zero_turns_it_off(counted: Counted, token: Any) -> None:
    """Without a cache every token is verified every time."""
    verifier, seen = counted(0)
    text = token()
    verifier.verify(text)
    verifier.verify(text)
    assert seen == [text, text]


def test_setting(token: Any, clock: FakeClock, signing_keys: Mapping[str, Key]) -> None:
    """SECURE_ML_TOKEN_CACHE_SIZE is the size."""
    issuer = {
        "issuer": "https://issuer.example",
        "audience": "https://api.example",
        "algorithms": ["RS256"],
        "jwks": json.loads(make_key_set(signing_keys["RS256"])),
    }
    settings = Settings.load({"SECURE_ML_TOKEN_ISSUERS": [issuer], "SECURE_ML_TOKEN_CACHE_SIZE": 2})
    verifier = JwtVerifier.from_settings(settings, clock)
    for _ in range(5):
        verifier.verify(token())
    assert len(verifier._cache) == 2


@pytest.mark.parametrize(
    ("seconds", "good"),
    [
        pytest.param(299, True, id="before exp"),
        pytest.param(329, True, id="leeway"),
        pytest.param(330, False, id="over"),
    ],
)
def test_never_beyond_its_end(counted: Counted, token: Any, clock: FakeClock, seconds: int, good: bool) -> None:
    """A remembered token ends when it would have ended; past exp it is verified again."""
    verifier, seen = counted()
    text = token()
    verifier.verify(text)
    clock.advance(seconds)
    if good:
        verifier.verify(text)
    else:
        with pytest.raises(NotAuthenticated):
            verifier.verify(text)
    assert len(seen) == (1 if seconds < 300 else 2)


def test_clock_that_was_set_back(counted: Counted, token: Any, clock: FakeClock) -> None:
    """Before its time, a cached token is treated like a new one."""
    verifier, _ = counted()
    text = token()
    verifier.verify(text)
    clock.advance(-31)
    with pytest.raises(NotAuthenticated):
        verifier.verify(text)


@pytest.mark.parametrize(
    "claims",
    [pytest.param({"iat": 1_799_999_000}, id="nbf"), pytest.param({"nbf": 1_799_999_000}, id="iat")],
)
def test_later_of_the_two_begins(counted: Counted, token: Any, clock: FakeClock, claims: dict[str, Any]) -> None:
    """A remembered token is not valid before iat and nbf, less the leeway."""
    verifier, seen = counted()
    text = token(claims={"iat": clock.now(), "nbf": clock.now(), **claims})
    verifier.verify(text)
    clock.advance(-30)
    verifier.verify(text)
    assert len(seen) == 1
    clock.advance(-1)
    with pytest.raises(NotAuthenticated):
        verifier.verify(text)


def test_c12_removed_key(counted: Counted, token: Any, tmp_path: Path) -> None:
    """C12: a remembered token is rejected as soon as its key is gone."""
    verifier, _ = counted()
    text = token()
    verifier.verify(text)
    (tmp_path / "jwks").write_text(make_key_set(make_signing_key("RS256", kid="RS256")))
    with pytest.raises(NotAuthenticated, match="401"):
        verifier.verify(text)


def test_read_again_but_unchanged(counted: Counted, token: Any, tmp_path: Path) -> None:
    """A key set that was rewritten without changes does not invalidate the cache."""
    verifier, seen = counted()
    text = token()
    verifier.verify(text)
    content = (tmp_path / "jwks").read_text()
    (tmp_path / "jwks").write_text(content + "\n")
    verifier.verify(text)
    verifier.verify(text)
    assert len(seen) == 1


def test_invalid_tokens_are_not_remembered(counted: Counted, token: Any) -> None:
    """A caller without a valid token cannot fill the memory."""
    verifier, _ = counted()
    for number in range(20):
        with pytest.raises(NotAuthenticated):
            verifier.verify(token(header={"kid": f"invented-{number}"}))
    assert len(verifier._cache) == 0


def test_bounded() -> None:
    """The token that was put in first is forgotten first, and the text of a token is nowhere in it."""
    cache: TokenCache[int] = TokenCache(2)
    for number in range(3):
        cache.put(f"token-{number}", number)
    assert [cache.get(f"token-{number}") for number in range(3)] == [None, 1, 2]
    assert "token" not in str(vars(cache))
    cache.put("token-2", 9)
    assert (cache.get("token-1"), cache.get("token-2"), len(cache)) == (1, 9, 2)


def test_within_the_leeway_it_is_not_remembered(counted: Counted, token: Any, clock: FakeClock) -> None:
    """After its exp a token is verified every time, and its cache entry is removed."""
    verifier, seen = counted()
    text = token()
    verifier.verify(text)
    clock.advance(300)
    for _ in range(2):
        verifier.verify(text)
    assert len(verifier._cache) == 0
    assert len(seen) == 3


def test_token_that_ended_is_forgotten(counted: Counted, token: Any, clock: FakeClock) -> None:
    """Expired entries do not take memory."""
    verifier, _ = counted()
    text = token()
    verifier.verify(text)
    clock.advance(1_000)
    with pytest.raises(NotAuthenticated):
        verifier.verify(text)
    assert len(verifier._cache) == 0


class Published:
    """A fake server with the keys of an issuer."""

    def __init__(self, *keys: Key) -> None:
        self.body = make_key_set(*keys).encode()
        self.fetches = 0

    def get(self, uri: str, attempt: Attempt) -> bytes:
        self.fetches += 1
        if not self.body:
            raise FetchError("down")
        return self.body


@pytest.fixture
def published(signing_keys: Mapping[str, Key]) -> Published:
    return Published(signing_keys["RS256"])


@pytest.fixture
def remote(published: Published, clock: FakeClock) -> JwtVerifier:
    config = IssuerConfig("https://issuer.example", "https://api.example", ("RS256",), jwks_uri="https://x")
    keys = HttpKeys("https://x", ("RS256",), clock, max_age=100, cooldown=60, get=published.get)
    return JwtVerifier({config.issuer: TrustedIssuer(config, keys)}, clock)


def test_c12_remembered_token_and_a_fresh_copy_of_the_keys(
    remote: JwtVerifier, published: Published, token: Any, clock: FakeClock, signing_keys: Mapping[str, Key]
) -> None:
    """C12: a cached token is valid while its key is published, also with a new one, and no longer."""
    text = token(claims={"exp": clock.now() + 3_600})
    verified = remote.verify(text)
    published.body = make_key_set(signing_keys["RS256"], make_signing_key(kid="new")).encode()
    clock.advance(100)
    assert remote.verify(text) is verified
    published.body = make_key_set(make_signing_key(kid="new")).encode()
    clock.advance(100)
    with pytest.raises(NotAuthenticated):
        remote.verify(text)
    assert published.fetches == 3


def test_j2_remembered_token_while_the_issuer_is_down(
    remote: JwtVerifier, published: Published, token: Any, clock: FakeClock
) -> None:
    """J2: a remembered token outlives an outage no longer than the last good set."""
    text = token(claims={"iat": clock.now() + 29, "exp": clock.now() + 86_429})
    remote.verify(text)
    published.body = b""
    clock.advance(86_399)
    remote.verify(text)
    clock.advance(1)
    with pytest.raises(DependencyUnavailable):
        remote.verify(text)


def test_threads(counted: Counted, token: Any) -> None:
    """With many threads, each gets the result of its own token, and the cache never exceeds its size."""
    verifier, _ = counted(5)
    texts = {token(claims={"sub": f"user-{number}"}): f"user-{number}" for number in range(12)}
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            for text, subject in texts.items():
                if verifier.verify(text).principal.subject != subject or len(verifier._cache) > 5:
                    wrong.append(subject)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert wrong == []
    assert len(verifier._cache) == 5


def test_headers_are_bounded_too(counted: Counted, token: Any) -> None:
    """Invented headers push one another out."""
    verifier, _ = counted()
    for number in range(600):
        with pytest.raises(NotAuthenticated):
            verifier.verify(token(header={"kid": f"invented-{number}"}))
    assert verifier._header.cache_info().currsize == 256
