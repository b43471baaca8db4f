"""Configured issuers: sources of keys, errors that stop the app, and claims that tokens may lack."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from joserfc.jwk import Key, OctKey, RSAKey

from flask_secure_ml.authentication.tokens.jwks import HttpKeys
from flask_secure_ml.authentication.tokens.jwt import JwtVerifier
from flask_secure_ml.authentication.tokens.sources import SecretKeys, key_source
from flask_secure_ml.config import Settings
from flask_secure_ml.config.issuers import IssuerConfig
from flask_secure_ml.errors import ConfigError, DependencyUnavailable, NotAuthenticated
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.testing import FakeClock, make_key_set, make_signing_key, make_token
from support import OLDER_SECRET, RANDOM_SECRET

ISSUER, AUDIENCE = "https://issuer.example", "https://api.example"
Make = Callable[..., JwtVerifier]


@pytest.fixture
def verifier(clock: FakeClock) -> Make:
    """Build a verifier for one issuer; ``settings`` are further settings."""

    def make(settings: Mapping[str, Any] | None = None, **members: Any) -> JwtVerifier:
        issuer = {"issuer": ISSUER, "audience": AUDIENCE, **members}
        values = {"SECURE_ML_TOKEN_ISSUERS": [issuer], "TESTING": True, **(settings or {})}
        return JwtVerifier.from_settings(Settings.load(values), clock)

    return make


def outcome(verifier: JwtVerifier, token: str) -> str:
    try:
        return verifier.verify(token).principal.subject
    except NotAuthenticated as error:
        return error.reason


def key_set(*keys: Key) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(make_key_set(*keys))
    return found


def hmac_key(secret: str, algorithm: str = "HS256") -> Key:
    return OctKey.import_key(secret.encode(), {"alg": algorithm})


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_hmac(verifier: Make, token: Any, clock: FakeClock, algorithm: str) -> None:
    """An HMAC issuer verifies with its secret, and with no other."""
    secret = RANDOM_SECRET + OLDER_SECRET
    hmac = verifier(algorithms=[algorithm], secret=secret)
    good, bad = (
        make_token(hmac_key(text, algorithm), issuer=ISSUER, audience=AUDIENCE, now=clock.now())
        for text in (secret, secret[:-1] + "x")
    )
    assert outcome(hmac, good) == "alice"
    assert outcome(hmac, bad) == "the signature does not verify"


def test_hmac_rotation(verifier: Make, tmp_path: Path, clock: FakeClock) -> None:
    """Every secret of the ring verifies; a file that changes counts at once, also for remembered tokens."""
    path = tmp_path / "secret"
    path.write_text(RANDOM_SECRET)
    ring = verifier(algorithms=["HS256"], secret=[f"file:{path}", OLDER_SECRET])
    new, old = (
        make_token(hmac_key(text), issuer=ISSUER, audience=AUDIENCE, now=clock.now())
        for text in (RANDOM_SECRET, OLDER_SECRET)
    )
    assert [outcome(ring, each) for each in (new, old)] == ["alice", "alice"]
    path.write_text(RANDOM_SECRET[::-1])
    assert [outcome(ring, each) for each in (new, old)] == ["the signature does not verify", "alice"]


def test_hmac_secret_that_is_gone(verifier: Make, tmp_path: Path, clock: FakeClock) -> None:
    """Without its secret the issuer's tokens can be neither accepted nor rejected."""
    path = tmp_path / "secret"
    path.write_text(RANDOM_SECRET)
    gone = verifier(algorithms=["HS256"], secret=f"file:{path}")
    text = make_token(hmac_key(RANDOM_SECRET), issuer=ISSUER, audience=AUDIENCE, now=clock.now())
    path.unlink()
    with pytest.raises(DependencyUnavailable, match="503") as caught:
        gone.verify(text)
    assert RANDOM_SECRET not in caught.value.reason


def test_inline_keys(verifier: Make, token: Any, signing_keys: Mapping[str, Key]) -> None:
    """A key set may be in the configuration."""
    inline = verifier(algorithms=["RS256"], jwks=key_set(signing_keys["RS256"]))
    assert outcome(inline, token()) == "alice"
    assert outcome(inline, token("ES256")) == "alg is not allowed for this issuer"


def weak_rsa(key: Key) -> dict[str, Any]:
    modulus = base64.urlsafe_b64encode((2**1023 + 1).to_bytes(128, "big")).rstrip(b"=").decode()
    return {**dict(key.as_dict(private=False)), "n": modulus}


@pytest.mark.parametrize("place", ["jwks", "jwks_file"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(weak_rsa, "1024 bits", id="A8 RSA-1024"),
        pytest.param(lambda key: key.as_dict(private=True), "it is secret", id="A8 private key"),
        pytest.param(lambda _: {"kty": "oct", "k": "AAAA"}, "it is secret", id="A8 symmetric key"),
        pytest.param(lambda key: {**key.as_dict(private=False), "e": "AQ"}, "exponent", id="A8 e=1"),
        pytest.param(lambda key: {**key.as_dict(private=False), "n": 5}, "strings", id="A8 damaged"),
    ],
)
def test_unsound_keys_stop_the_app(
    verifier: Make, tmp_path: Path, signing_keys: Mapping[str, Key], place: str, spoil: Any, words: str
) -> None:
    """A8: a weak, secret or damaged key in the configuration is an error, even with good ones."""
    spoilt = {"keys": [*key_set(signing_keys["ES256"])["keys"], {**spoil(signing_keys["RS256"]), "kid": "spoilt"}]}
    (tmp_path / "jwks").write_text(json.dumps(spoilt))
    source = {"jwks": spoilt} if place == "jwks" else {"jwks_file": str(tmp_path / "jwks")}
    with pytest.raises(ConfigError, match=words) as caught:
        verifier(algorithms=["RS256", "ES256"], **source)
    assert f"the keys of {ISSUER}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), ("{", "not JSON"), ('{"keys": []}', "no usable key"), ('{"keys": 1}', "not an object")],
)
def test_unusable_file_stops_the_app(verifier: Make, tmp_path: Path, content: str | None, words: str) -> None:
    """A key file that cannot be used at start is a mistake to mend."""
    if content is not None:
        (tmp_path / "jwks").write_text(content)
    with pytest.raises(ConfigError, match=words):
        verifier(algorithms=["RS256"], jwks_file=str(tmp_path / "jwks"))


def test_keys_for_others_do_not_stop_the_app(verifier: Make, token: Any, signing_keys: Mapping[str, Key]) -> None:
    """A key for encryption, or for an algorithm that is not in use, is left alone."""
    mixed = key_set(signing_keys["RS256"], signing_keys["ES384"])
    mixed["keys"].append({**signing_keys["PS256"].as_dict(private=False), "use": "enc", "kid": "enc"})
    assert outcome(verifier(algorithms=["RS256"], jwks=mixed), token()) == "alice"


@pytest.mark.parametrize(
    ("omits", "header", "claims", "expected"),
    [
        pytest.param([], {}, {"jti": ...}, "the claim jti is missing", id="AT-6 jti"),
        pytest.param(["jti"], {}, {"jti": ...}, "alice", id="jti may be missing"),
        pytest.param(["jti"], {}, {"jti": 5}, "the claim jti is missing", id="jti of a wrong type"),
        pytest.param([], {}, {"client_id": ...}, "the claim client_id", id="AT-6 client_id"),
        pytest.param(["client_id"], {}, {"client_id": ...}, "alice", id="client_id may be missing"),
        pytest.param(["jti"], {}, {"client_id": ...}, "the claim client_id", id="another may be missing"),
        pytest.param(["client_id"], {}, {"client_id": 5}, "the claim client_id", id="client_id of a wrong type"),
        pytest.param(["client_id"], {}, {"client_id": None}, "alice", id="client_id null is missing"),
        pytest.param([], {}, {"client_id": None}, "the claim client_id", id="AT-6 client_id null"),
        pytest.param(["client_id"], {}, {"client_id": ..., "azp": 5}, "the claim azp", id="azp of a wrong type"),
        pytest.param([], {"typ": ...}, {}, "typ is not at+jwt", id="AT-1 typ"),
        pytest.param([], {"typ": "JWT"}, {}, "typ is not at+jwt", id="AT-1 JWT"),
        pytest.param(["typ"], {"typ": ...}, {}, "alice", id="typ may be missing"),
        pytest.param(["typ"], {"typ": "JWT"}, {}, "alice", id="typ may be JWT"),
        pytest.param(["typ"], {"typ": "at+jwt"}, {}, "alice", id="typ may be there"),
        pytest.param(["typ"], {"typ": "dpop+jwt"}, {}, "typ is that of another", id="JB-16 DPoP proof"),
        pytest.param(["typ"], {"typ": "logout+jwt"}, {}, "typ is that of another", id="JB-16 logout token"),
        pytest.param(["typ"], {"typ": "JWT"}, {"nonce": "n"}, "has nonce", id="JB-16 C6 ID token"),
        pytest.param(["typ"], {"typ": ...}, {"at_hash": "h"}, "has at_hash", id="JB-16 C6 ID token by its hash"),
        pytest.param(["typ"], {"typ": ...}, {"events": {}}, "has events", id="JB-16 logout token by its events"),
        pytest.param(["typ"], {"typ": ...}, {"token_use": "id"}, "token_use", id="C6 token_use"),
        pytest.param([], {}, {"token_use": "refresh"}, "token_use", id="C6 refresh token"),
        pytest.param(["typ"], {"typ": "JWT"}, {"typ": "Bearer"}, "alice", id="claim typ"),
        pytest.param(["typ"], {"typ": "JWT"}, {"typ": "DPoP"}, "alice", id="claim typ of a bound token"),
        pytest.param(["typ"], {"typ": "JWT"}, {"typ": "ID"}, "the claim typ", id="JB-16 C6 ID token by its claim typ"),
        pytest.param(["typ"], {"typ": ...}, {"typ": "Refresh"}, "the claim typ", id="JB-16 C6 refresh token by claim"),
        pytest.param(["typ"], {"typ": "JWT"}, {"typ": None}, "the claim typ", id="claim typ of a wrong type"),
        pytest.param([], {}, {"typ": "anything"}, "alice", id="claim typ beside a header that says it"),
        pytest.param(["typ"], {"typ": "application/jwt"}, {}, "alice", id="JB-15 typ may be JWT in full"),
        pytest.param(["typ"], {"typ": None}, {}, "typ is that of another", id="AT-1 typ null"),
        pytest.param(["typ"], {"typ": "id_token"}, {}, "typ is that of another", id="JB-16 typ of an ID token"),
        pytest.param([], {}, {"nonce": "n"}, "alice", id="an access token may have a nonce"),
    ],
)
def test_relaxations(
    verifier: Make,
    token: Any,
    signing_keys: Mapping[str, Key],
    omits: list[str],
    header: dict[str, Any],
    claims: dict[str, Any],
    expected: str,
) -> None:
    """Claims that an issuer's tokens may lack are listed one by one; all others are still required."""
    members: dict[str, Any] = {"omits": omits} if omits else {}
    relaxed = verifier(algorithms=["RS256"], jwks=key_set(signing_keys["RS256"]), **members)
    assert expected in outcome(relaxed, token(header=header, claims=claims))


@pytest.mark.parametrize(
    ("age", "lifetime", "expected"),
    [
        pytest.param(0, 600, "alice", id="fresh"),
        pytest.param(629, 600, "alice", id="within the leeway"),
        pytest.param(631, 700, "the lifetime of the token", id="C3 too old"),
        pytest.param(0, 601, "the lifetime of the token", id="C1 lives too long"),
    ],
)
def test_max_age(
    verifier: Make,
    token: Any,
    clock: FakeClock,
    signing_keys: Mapping[str, Key],
    age: int,
    lifetime: int,
    expected: str,
) -> None:
    """max_age bounds how long ago a token was issued, and how long it may live."""
    short = verifier(algorithms=["RS256"], jwks=key_set(signing_keys["RS256"]), max_age=600)
    issued = clock.now() - age
    assert outcome(short, token(claims={"iat": issued, "exp": issued + lifetime})).startswith(expected)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param(
            {"roles": ["admin"], "groups": ["a"], "entitlements": ["b"]}, {"admin", "a", "b"}, id="AT-10 lists"
        ),
        pytest.param({}, set(), id="none"),
        pytest.param({"roles": []}, set(), id="empty"),
    ],
)
def test_roles(
    verifier: Make, token: Any, signing_keys: Mapping[str, Key], claims: dict[str, Any], expected: set[str]
) -> None:
    """AT-10: roles, groups and entitlements become the roles of the principal."""
    made = verifier(algorithms=["RS256"], jwks=key_set(signing_keys["RS256"]))
    assert made.verify(token(claims=claims)).principal.roles == expected


@pytest.mark.parametrize(
    "claims",
    [
        {"roles": ""},
        {"roles": 5},
        {"roles": [""]},
        {"roles": ["a\n"]},
        {"roles": ["x"] * 501},
        {"entitlements": {"a": 1}},
    ],
    ids=str,
)
def test_wrongly_typed_roles(
    verifier: Make, token: Any, signing_keys: Mapping[str, Key], claims: dict[str, Any]
) -> None:
    """AT-10: roles are strings, or the token is invalid."""
    made = verifier(algorithms=["RS256"], jwks=key_set(signing_keys["RS256"]))
    assert "the claim" in outcome(made, token(claims=claims))


@pytest.mark.parametrize(
    "claims", [{"groups": [1]}, {"auth_time": "now"}, {"auth_time": True}, {"acr": 5}, {"amr": "pwd"}], ids=str
)
def test_claims_that_only_inform(
    verifier: Make, token: Any, signing_keys: Mapping[str, Key], claims: dict[str, Any]
) -> None:
    """AT-10: a malformed one is ignored, and is not there for the policies that need it."""
    made = verifier(algorithms=["RS256"], jwks=key_set(signing_keys["RS256"]))
    principal = made.verify(token(claims=claims)).principal
    assert not claims.keys() & principal.claims.keys()
    assert principal.roles == frozenset()


@pytest.mark.parametrize(
    ("cnf", "expected"), [(..., None), (None, {}), ({}, {}), ({"jkt": "x"}, {"jkt": "x"}), ("x", "x"), (0, {})]
)
def test_binding_is_handed_on(
    verifier: Make, token: Any, signing_keys: Mapping[str, Key], cnf: Any, expected: Any
) -> None:
    """MT-5: with any cnf, a token never counts as unbound."""
    made = verifier(algorithms=["RS256"], jwks=key_set(signing_keys["RS256"]))
    assert made.verify(token(claims={"cnf": cnf})).confirmation == expected


def test_sources(clock: FakeClock, tmp_path: Path, signing_keys: Mapping[str, Key]) -> None:
    """The times of the settings are used for keys behind an address."""
    settings = Settings.load({"SECURE_ML_JWKS_CACHE_SECONDS": 7, "SECURE_ML_JWKS_COOLDOWN": 5})
    sources: list[dict[str, Any]] = [{"jwks_uri": "https://i/jwks"}, {"discover": True}]
    for source in sources:
        keys = key_source(IssuerConfig("https://i", "a", ("RS256",), **source), settings, clock)
        assert isinstance(keys, HttpKeys)
        assert (keys._keys._fresh, keys._cooldown) == (7, 5)


def test_rsa_and_ed25519_names(verifier: Make, token: Any, signing_keys: Mapping[str, Key]) -> None:
    """JB-19: the fully specified name works, and a key of one name does not verify the other."""
    named = verifier(algorithms=["Ed25519", "EdDSA"], jwks=key_set(signing_keys["Ed25519"], signing_keys["EdDSA"]))
    assert [outcome(named, token(name)) for name in ("Ed25519", "EdDSA")] == ["alice", "alice"]
    crossed = token("Ed25519", header={"alg": "EdDSA"})
    assert outcome(named, crossed) == "the issuer has no such key for this alg"


def test_weak_key_is_never_made_by_the_factory() -> None:
    """The factory of the tests makes keys that this package accepts."""
    key = make_signing_key("RS256")
    assert isinstance(key, RSAKey)
    assert key.public_key.key_size == 2048


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param({"client_id": "c", "azp": "a"}, "c", id="client_id first"),
        pytest.param({"client_id": ..., "azp": "a"}, "a", id="azp else"),
        pytest.param({"client_id": ...}, "", id="neither"),
    ],
)
def test_client(
    verifier: Make, token: Any, signing_keys: Mapping[str, Key], claims: dict[str, Any], expected: str
) -> None:
    """If client_id may be missing, OpenID Connect's azp names the client."""
    relaxed = verifier(algorithms=["RS256"], jwks=key_set(signing_keys["RS256"]), omits=["client_id"])
    assert relaxed.verify(token(claims=claims)).principal.client_id == expected


def public_form(key: Key, encoding: str) -> bytes:
    public: Any = key.public_key
    form = "OpenSSH" if encoding == "OpenSSH" else "SubjectPublicKeyInfo"
    made = public.public_bytes(getattr(serialization.Encoding, encoding), getattr(serialization.PublicFormat, form))
    return bytes(made)


@pytest.mark.parametrize(
    ("algorithms", "secret", "words"),
    [
        pytest.param(["HS256", "HS512"], RANDOM_SECRET + OLDER_SECRET, "one algorithm", id="JB-3 two algorithms"),
        pytest.param(["HS512"], RANDOM_SECRET, "64 bytes", id="A7 JB-8 shorter than the digest"),
        pytest.param(["HS256"], "secret", "32 bytes", id="A7 JB-8 short"),
        pytest.param(["HS256"], "password" * 8, "random", id="A7 JB-8 typed by a person"),
        pytest.param(["HS256"], ["env:NOT_SET"], "NOT_SET", id="A7 not set"),
    ],
)
def test_secret_that_stops_the_app(verifier: Make, algorithms: list[str], secret: Any, words: str) -> None:
    """A7, JB-8: a secret that can be guessed, or is for several algorithms, is a mistake to mend."""
    with pytest.raises(ConfigError, match=words) as caught:
        verifier(algorithms=algorithms, secret=secret)
    assert "password" not in str(caught.value)
    assert RANDOM_SECRET not in str(caught.value)


@pytest.mark.parametrize("encoding", ["PEM", "DER", "OpenSSH"])
def test_a2_public_key_as_secret(
    verifier: Make, signing_keys: Mapping[str, Key], tmp_path: Path, encoding: str
) -> None:
    """A2: a public key is not a secret."""
    (tmp_path / "secret").write_bytes(public_form(signing_keys["RS256"], encoding))
    with pytest.raises(ConfigError, match="public key"):
        verifier(algorithms=["HS256"], secret=f"file:{tmp_path / 'secret'}")


@pytest.mark.parametrize("content", [RANDOM_SECRET, "short", ""])
def test_secret_that_became_unusable(verifier: Make, tmp_path: Path, clock: FakeClock, content: str) -> None:
    """A7: the length is checked whenever the file changes; until it is mended, tokens are neither right nor wrong."""
    path, secret = tmp_path / "secret", RANDOM_SECRET + OLDER_SECRET
    path.write_text(secret)
    made = verifier(algorithms=["HS512"], secret=f"file:{path}")
    text = make_token(hmac_key(secret, "HS512"), issuer=ISSUER, audience=AUDIENCE, now=clock.now())
    assert outcome(made, text) == "alice"
    path.write_text(content)
    with pytest.raises(DependencyUnavailable) as caught:
        made.verify(text)
    assert caught.value.extra_headers == (("Retry-After", "60"),)


@pytest.mark.parametrize("header", [{"kid": "any"}, {"kid": ...}], ids=["kid", "no kid"])
def test_kid_of_hmac(verifier: Make, clock: FakeClock, header: dict[str, Any]) -> None:
    """JB-13: a secret has no name, so a token's kid has no effect."""
    text = make_token(hmac_key(RANDOM_SECRET), issuer=ISSUER, audience=AUDIENCE, now=clock.now(), header=header)
    assert outcome(verifier(algorithms=["HS256"], secret=RANDOM_SECRET), text) == "alice"


def test_jb_3_secret_is_for_one_algorithm() -> None:
    """JB-3: a secret never provides a key for another algorithm."""
    keys = SecretKeys(SecretRing(Secret(RANDOM_SECRET + OLDER_SECRET)), ["HS384"])
    assert [len(keys.candidates(None, name)) for name in ("HS256", "HS384", "HS512", "RS256")] == [0, 1, 0, 0]


def test_other_family_at_an_hmac_issuer(verifier: Make, token: Any, clock: FakeClock) -> None:
    """JB-1, A2: an issuer with a secret takes neither signatures nor another digest."""
    made = verifier(algorithms=["HS256"], secret=RANDOM_SECRET + OLDER_SECRET)
    key = hmac_key(RANDOM_SECRET + OLDER_SECRET, "HS512")
    longer = make_token(key, issuer=ISSUER, audience=AUDIENCE, now=clock.now())
    assert [outcome(made, each) for each in (token(), longer)] == ["alg is not allowed for this issuer"] * 2


@pytest.mark.parametrize("keys", [{"keys": [{"n": {1, 2}}]}, {"keys": [object()]}], ids=["set", "object"])
def test_inline_keys_that_are_no_json(verifier: Make, keys: Any) -> None:
    """A key set in Python configuration may contain JSON types only."""
    with pytest.raises(ConfigError, match="not a JSON value"):
        verifier(algorithms=["RS256"], jwks=keys)


def test_problems_of_all_issuers(clock: FakeClock, tmp_path: Path, signing_keys: Mapping[str, Key]) -> None:
    """Every issuer whose keys are not sound is named at once."""
    (tmp_path / "weak").write_text(json.dumps({"keys": [weak_rsa(signing_keys["RS256"])]}))
    usual = {"audience": AUDIENCE, "algorithms": ["RS256"]}
    issuers = [
        {"issuer": f"https://{name}.example", "jwks_file": str(tmp_path / name), **usual} for name in ("weak", "no")
    ]
    with pytest.raises(ConfigError) as caught:
        JwtVerifier.from_settings(Settings.load({"SECURE_ML_TOKEN_ISSUERS": issuers}), clock)
    assert len(caught.value.problems) == 2
    assert "https://weak.example: signing key 1 cannot be used: its modulus has 1024 bits" in caught.value.problems[0]
    assert "https://no.example" in caught.value.problems[1]


def test_issuer_that_cannot_be_discovered(verifier: Make) -> None:
    """RFC 8414 section 2: an issuer with a query has no metadata."""
    with pytest.raises(ConfigError, match="query"):
        verifier(algorithms=["RS256"], issuer="https://issuer.example/?tenant=1", discover=True)


def test_encryption_cannot_be_agreed(verifier: Make, signing_keys: Mapping[str, Key]) -> None:
    """AT-9: there is no setting for encrypted tokens, so a signed one is always as agreed."""
    for member in ("encrypted", "encryption", "decryption_key"):
        with pytest.raises(ConfigError):
            verifier(algorithms=["RS256"], jwks=key_set(signing_keys["RS256"]), **{member: True})
