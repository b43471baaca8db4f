"""DPoP beyond the list of invalid proofs: replay, nonces in responses, outages, and generated proofs."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.errors import InvalidKeyTypeError
from joserfc.jwk import Key, RSAKey
from joserfc.jws import JWSRegistry

from flask_secure_ml.authentication.tokens.dpop import ProofChecker
from flask_secure_ml.authentication.tokens.nonces import Nonces
from flask_secure_ml.errors import DependencyUnavailable, InvalidProof, NonceRequired, SecureMLError
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.testing import FakeClock, make_dpop_proof, make_signing_key, sign_parts
from proofs import NOW, TOKEN, Seen, request_of
from support import RANDOM_SECRET

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
HEADER_NAMES = st.sampled_from(["typ", "alg", "jwk", "crit", "b64", "zip", "cty", "jku", "x5c", "x5u", "kid", "x"])
CLAIM_NAMES = st.sampled_from(["jti", "htm", "htu", "iat", "ath", "nonce", "exp", "nbf", "x"])
JWK_NAMES = st.sampled_from(["kty", "crv", "x", "y", "d", "k", "n", "e", "alg", "use", "key_ops", "kid", "x5c"])
JWK_VALUES = JSON | st.sampled_from(["EC", "RSA", "OKP", "oct", "P-256", "Ed25519", "AQAB", "AA", "", "sig", "enc"])
BASE64URL = string.ascii_letters + string.digits + "-_"
URIS = st.text(max_size=40) | st.text("htps:/@[]%.?#2Fe\\0", max_size=30).map(lambda rest: "https://localhost" + rest)

Check = Callable[..., str]
Proof = Callable[..., str]


class Down(Seen):
    """A store that cannot be reached."""

    def add(self, space: str, key: str, seconds: float) -> bool:
        raise DependencyUnavailable("the store is down")


@pytest.fixture
def key(signing_keys: Mapping[str, Key]) -> Key:
    return signing_keys["ES256"]


@pytest.fixture
def seen(clock: FakeClock) -> Seen:
    return Seen(clock)


@pytest.fixture
def nonces(clock: FakeClock) -> Nonces:
    return Nonces(SecretRing(Secret(RANDOM_SECRET)), clock)


@pytest.fixture
def checker(clock: FakeClock, seen: Seen) -> ProofChecker:
    return ProofChecker(("ES256", "Ed25519"), 60, clock, seen)


@pytest.fixture
def strict(clock: FakeClock, seen: Seen, nonces: Nonces) -> ProofChecker:
    """One that wants nonces."""
    return ProofChecker(("ES256",), 60, clock, seen, nonces)


@pytest.fixture
def check(checker: ProofChecker, exchange: Exchange) -> Check:
    """Check a proof for ``POST https://localhost/predict``."""
    return lambda proof: checker.check(request_of(proof), exchange, TOKEN)


@pytest.fixture
def proof(key: Key, clock: FakeClock) -> Proof:
    """Make a proof; keyword arguments override."""
    return lambda **options: make_dpop_proof(options.pop("key", key), TOKEN, now=clock.now(), **options)


def rejection(run: Callable[[], object]) -> SecureMLError:
    with pytest.raises(InvalidProof) as caught:
        run()
    return caught.value


# --- replay (DP-13) -----------------------------------------------------------------------------------------


def test_a_proof_is_good_once(check: Check, proof: Proof, key: Key) -> None:
    """The second use of a proof is rejected (DP-13)."""
    text = proof()
    assert check(text) == key.thumbprint()
    assert rejection(lambda: check(text)).reason == "the proof was used before"


def test_a_proof_by_another_key_is_not_stored(
    checker: ProofChecker, exchange: Exchange, proof: Proof, seen: Seen, key: Key
) -> None:
    """A caller with a token but without its key cannot fill the store with its own proofs (DP-13)."""

    def reject(thumbprint: str) -> None:
        assert thumbprint == key.thumbprint()
        raise InvalidProof("of another key")

    for _ in range(3):
        with pytest.raises(InvalidProof):
            checker.check(request_of(proof()), exchange, TOKEN, reject)
    assert seen.calls == []


def test_a_jti_is_good_once(check: Check, proof: Proof) -> None:
    """So is another proof with the same jti, even one for another request (DP-13)."""
    check(proof(claims={"jti": "one"}))
    again = proof(claims={"jti": "one", "htu": "https://localhost/predict?again"})
    assert rejection(lambda: check(again)).reason == "the proof was used before"


def test_a_jti_belongs_to_its_key(check: Check, proof: Proof, signing_keys: Mapping[str, Key]) -> None:
    """A caller cannot use up the jti of another caller."""
    other = signing_keys["Ed25519"]
    check(proof(claims={"jti": "one"}))
    assert check(proof(key=other, claims={"jti": "one"})) == other.thumbprint()


def test_workers_share_what_was_used(clock: FakeClock, seen: Seen, proof: Proof, exchange: Exchange) -> None:
    """A proof that one worker took is rejected by the next one over the same store (DP-13)."""
    workers = [ProofChecker(("ES256",), 60, clock, seen) for _ in range(2)]
    request = request_of(proof())
    workers[0].check(request, exchange, TOKEN)
    assert rejection(lambda: workers[1].check(request, exchange, TOKEN)).reason == "the proof was used before"


@pytest.mark.parametrize("ahead", [0, 5])
def test_a_proof_is_remembered_as_long_as_it_is_good(
    check: Check, proof: Proof, clock: FakeClock, key: Key, ahead: float
) -> None:
    """At no second of its life is a proof taken again, also one of a client whose clock is ahead."""
    text = proof(claims={"iat": NOW + ahead})
    check(text)
    reasons = set()
    for _ in range(80):
        clock.advance(1)
        reasons.add(rejection(lambda: check(text)).reason)
    assert reasons == {"the proof was used before", "the proof is too old"}


def test_only_a_digest_is_stored(check: Check, proof: Proof, seen: Seen) -> None:
    """The store has a digest of fixed length in the space of DPoP, for a time that is bounded."""
    check(proof(claims={"jti": "a jti " * 80}))
    ((space, stored, seconds),) = seen.calls
    assert space == "dpop"
    assert len(stored) == 64
    assert set(stored) <= set("0123456789abcdef")
    assert 65 <= seconds <= 75


def test_a_rejected_proof_uses_up_nothing(check: Check, proof: Proof, key: Key) -> None:
    """A party that knows a jti but cannot sign cannot block the proof that has it."""
    text = proof()
    forged = text.rpartition(".")[0] + "." + proof().rpartition(".")[2]
    assert "signature" in rejection(lambda: check(forged)).reason
    assert check(text) == key.thumbprint()


def test_without_the_store_nothing_passes(clock: FakeClock, proof: Proof, exchange: Exchange) -> None:
    """While it cannot be told whether a proof was used, the response is 503."""
    checker = ProofChecker(("ES256",), 60, clock, Down(clock))
    with pytest.raises(DependencyUnavailable):
        checker.check(request_of(proof()), exchange, TOKEN)


@pytest.mark.parametrize("fault", [ValueError("bad numbers"), InvalidKeyTypeError("bad key")])
def test_what_the_library_cannot_verify_is_rejected(
    check: Check, proof: Proof, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """A signature on which the library gives up is a wrong one, not a 500."""

    def give_up(*_: object) -> bool:
        raise fault

    monkeypatch.setattr(JWSRegistry.algorithms["ES256"], "verify", give_up)
    text = proof()
    assert rejection(lambda: check(text)).reason == "the signature does not verify with jwk"


# --- settings -----------------------------------------------------------------------------------------------


def test_max_age(clock: FakeClock, seen: Seen, proof: Proof, exchange: Exchange, key: Key) -> None:
    """A proof is valid for the configured time (DP-8)."""
    checker = ProofChecker(("ES256",), 300, clock, seen)
    old, older = proof(claims={"iat": NOW - 300}), proof(claims={"iat": NOW - 301})
    assert checker.check(request_of(old), exchange, TOKEN) == key.thumbprint()
    assert rejection(lambda: checker.check(request_of(older), exchange, TOKEN)).reason == "the proof is too old"


def test_leeway(clock: FakeClock, seen: Seen, proof: Proof, exchange: Exchange, key: Key) -> None:
    """A client's clock may be ahead by the configured leeway (DP-8)."""
    checker = ProofChecker(("ES256",), 60, clock, seen, leeway=20)
    assert checker.check(request_of(proof(claims={"iat": NOW + 20})), exchange, TOKEN) == key.thumbprint()
    late = request_of(proof(claims={"iat": NOW + 21}))
    assert rejection(lambda: checker.check(late, exchange, TOKEN)).reason == "the proof is from the future"


def test_algorithms(clock: FakeClock, seen: Seen, proof: Proof, exchange: Exchange) -> None:
    """An algorithm that is not on the list is rejected (DP-4)."""
    checker = ProofChecker(("RS256",), 60, clock, seen)
    assert "alg" in rejection(lambda: checker.check(request_of(proof()), exchange, TOKEN)).reason


@pytest.mark.parametrize("algorithm", ["HS256", "none", "RSA-OAEP"])
def test_algorithms_must_be_asymmetric(clock: FakeClock, seen: Seen, algorithm: str) -> None:
    """Algorithms with which anyone could sign are an error at start (DP-4)."""
    with pytest.raises(ValueError, match="asymmetric"):
        ProofChecker(("ES256", algorithm), 60, clock, seen)


def test_external_must_be_an_address(clock: FakeClock, seen: Seen) -> None:
    """An address that no proof could name is found at start."""
    with pytest.raises(ValueError, match="http or https"):
        ProofChecker(("ES256",), 60, clock, seen, external="ftp://models.example")


def test_large_keys_fit(clock: FakeClock, seen: Seen, exchange: Exchange) -> None:
    """The header of a proof may be longer than the 512 bytes that JOSE libraries allow for."""
    key = RSAKey.generate_key(4096, {"alg": "PS256"})
    text = make_dpop_proof(key, TOKEN, now=NOW)
    assert len(text.split(".")[0]) > 700
    checker = ProofChecker(("PS256",), 60, clock, seen)
    assert checker.check(request_of(text), exchange, TOKEN) == key.thumbprint()


def test_keys_of_clients_are_not_mixed_up(check: Check, proof: Proof) -> None:
    """Each of many clients, in turn and again, has its own thumbprint (DP-10)."""
    clients = [make_signing_key("ES256", kid=None) for _ in range(5)]
    for client in clients * 2:
        assert check(proof(key=client)) == client.thumbprint()


def test_thumbprint_of_the_standard(check: Check, clock: FakeClock) -> None:
    """The thumbprint is over the required members alone, in the order of RFC 7638 section 3."""
    key = make_signing_key("Ed25519", kid="a name that does not count")
    plain = {name: value for name, value in key.as_dict(private=False).items() if name in {"crv", "kty", "x"}}
    text = make_dpop_proof(key, TOKEN, now=NOW, header={"jwk": plain})
    assert check(text) == key.thumbprint()
    assert check(make_dpop_proof(key, TOKEN, now=NOW)) == key.thumbprint()


# --- nonces (DP-7) ------------------------------------------------------------------------------------------


def test_a_proof_without_nonce_gets_one(strict: ProofChecker, proof: Proof, exchange: Exchange, nonces: Nonces) -> None:
    """The rejection carries the nonce, and with it the next proof is good (DP-7, DP-14)."""
    error = rejection(lambda: strict.check(request_of(proof()), exchange, TOKEN))
    assert isinstance(error, NonceRequired)
    assert exchange.reply_headers == {"DPoP-Nonce": nonces.current()}
    strict.check(request_of(proof(nonce=exchange.reply_headers["DPoP-Nonce"])), exchange, TOKEN)
    assert exchange.reply_headers == {}


def test_an_older_nonce_is_renewed(
    strict: ProofChecker, proof: Proof, exchange: Exchange, nonces: Nonces, clock: FakeClock
) -> None:
    """A proof with the nonce of the last period is good, and the response has the new one (RFC 9449 section 8.2)."""
    old = nonces.current()
    clock.advance(300)
    strict.check(request_of(proof(nonce=old)), exchange, TOKEN)
    assert exchange.reply_headers == {"DPoP-Nonce": nonces.current()} != {"DPoP-Nonce": old}


@pytest.mark.parametrize("text", [None, "", "garbage", "a.b.c"])
def test_a_malformed_proof_gets_a_nonce(
    strict: ProofChecker, exchange: Exchange, nonces: Nonces, text: str | None
) -> None:
    """Whatever else is wrong, the client needs no third request."""
    error = rejection(lambda: strict.check(request_of(text), exchange, TOKEN))
    assert not isinstance(error, NonceRequired)
    assert exchange.reply_headers == {"DPoP-Nonce": nonces.current()}


def test_no_nonce_without_a_secret(check: Check, proof: Proof, exchange: Exchange) -> None:
    """A server without nonces gives none, and does not look at one (DP-7)."""
    check(proof(nonce="of another server"))
    rejection(lambda: check("garbage"))
    assert exchange.reply_headers == {}


def test_without_the_secret_nothing_passes(clock: FakeClock, seen: Seen, proof: Proof, exchange: Exchange) -> None:
    """A nonce secret that cannot be read is 503, not a pass and not a 500."""
    checker = ProofChecker(("ES256",), 60, clock, seen, Nonces(SecretRing(Secret("env:NO_SUCH_SECRET")), clock))
    with pytest.raises(DependencyUnavailable):
        checker.check(request_of(proof()), exchange, TOKEN)


# --- proofs that nobody thought of --------------------------------------------------------------------------


def taken(check: Check, text: str) -> bool:
    """Return True if a proof is accepted; any error other than a rejection is raised to the test."""
    try:
        check(text)
    except InvalidProof:
        return False
    return True


@given(at=st.integers(0, 10_000), char=st.sampled_from(BASE64URL + ".= ,"))
def test_any_change(check: Check, proof: Proof, at: int, char: str) -> None:
    """A proof with one other character is rejected."""
    text = proof()
    at %= len(text)
    changed = text[:at] + char + text[at + 1 :]
    assert taken(check, changed) is (changed == text)


@given(at=st.integers(0, 10_000), size=st.integers(1, 20), inserted=st.text(BASE64URL + ".", max_size=3))
def test_any_splice(check: Check, proof: Proof, at: int, size: int, inserted: str) -> None:
    """A proof with a part missing or exchanged is rejected too."""
    text = proof()
    at %= len(text)
    changed = text[:at] + inserted + text[at + size :]
    assert taken(check, changed) is (changed == text)


@given(text=st.text(st.characters(max_codepoint=255), max_size=60) | st.text(BASE64URL + "..", max_size=60))
def test_any_header_value(check: Check, text: str) -> None:
    """No string is accepted."""
    assert not taken(check, text)


@given(
    header=st.dictionaries(HEADER_NAMES, JSON, max_size=3),
    claims=st.dictionaries(CLAIM_NAMES, JSON, max_size=3),
)
def test_any_signed_members(check: Check, proof: Proof, header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Invalid types of members in a correctly signed proof are rejected, unless the member has no meaning."""
    meaningless = header.keys() <= {"kid", "x"} and claims.keys() <= {"x", "nonce"}
    if "Infinity" in json.dumps([header, claims]).replace('"Infinity"', ""):
        assert not taken(check, proof(header=header, claims=claims))
    else:
        assert taken(check, proof(header=header, claims=claims)) or not meaningless


@given(
    base=st.sampled_from(["ES256", "Ed25519", "RS256"]),
    changes=st.dictionaries(JWK_NAMES, JWK_VALUES, min_size=1, max_size=3),
)
def test_any_key(
    clock: FakeClock,
    seen: Seen,
    exchange: Exchange,
    signing_keys: Mapping[str, Key],
    base: str,
    changes: dict[str, Any],
) -> None:
    """A jwk with changed members is the same key, or rejected."""
    key = signing_keys[base]
    checker = ProofChecker(("ES256", "Ed25519", "RS256"), 60, clock, seen)
    text = make_dpop_proof(key, TOKEN, now=NOW, header={"jwk": {**key.as_dict(private=False), **changes}})
    try:
        assert checker.check(request_of(text), exchange, TOKEN) == key.thumbprint()
    except InvalidProof:
        return


@given(
    header=st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()),
    payload=st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_any_signed_bytes(check: Check, key: Key, header: bytes, payload: bytes) -> None:
    """A signature over arbitrary bytes is not a proof."""
    assert not taken(check, sign_parts(key, header, payload))


@given(uri=URIS)
def test_any_uri(check: Check, proof: Proof, uri: str) -> None:
    """No URI breaks the comparison, and one that names another host is rejected."""
    good = taken(check, proof(claims={"htu": uri}))
    assert not good or uri.lower().startswith("https://localhost")
