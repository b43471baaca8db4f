"""Attacks on the signature, the size and the keys that no JSON file can hold."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from flask_secure_ml.authentication.tokens.authenticator import AccessTokens, BearerAuthenticator
from flask_secure_ml.authentication.tokens.jwt import JwtVerifier, TrustedIssuer
from flask_secure_ml.authentication.tokens.sources import FileKeys
from flask_secure_ml.config import Settings
from flask_secure_ml.config.issuers import IssuerConfig
from flask_secure_ml.errors import NotAuthenticated, UnusableCredential
from flask_secure_ml.testing import FakeClock, make_key_set, make_signing_key, make_token, sign_parts

ISSUER, AUDIENCE = "https://issuer.example", "https://api.example"
Ask = Callable[..., Any]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def public_forms(key: Key) -> dict[str, bytes]:
    """The public key in every form in which an attacker has it."""
    public: Any = key.public_key
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    jwk = json.dumps(key.as_dict(private=False)).encode()
    return {"pem": pem, "pem without newline": pem.rstrip(), "der": der, "jwk": jwk}


@pytest.mark.parametrize("form", ["pem", "pem without newline", "der", "jwk"])
@pytest.mark.parametrize("kind", [pytest.param("RS256", id="A2"), pytest.param("ES256", id="A3")])
def test_public_key_as_hmac_secret(ask: Ask, signing_keys: Mapping[str, Key], token: Ask, kind: str, form: str) -> None:
    """A2, A3: a token signed by HMAC with the public key is rejected."""
    body = token(kind).split(".")[1]
    signed = b64(json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": kind}).encode()) + "." + body
    mac = hmac.digest(public_forms(signing_keys[kind])[form], signed.encode(), hashlib.sha256)
    assert ask(bearer(f"{signed}.{b64(mac)}")).status == 401


def test_an_altered_token_is_a_guess(jwt: JwtVerifier, token: Ask, clock: FakeClock) -> None:
    """A1: if any character of an expired genuine token is changed, its sender is counted."""
    text = token("ES256", claims={"iat": clock.now() - 900, "exp": clock.now() - 600})
    with pytest.raises(UnusableCredential):
        jwt.verify(text)
    for position, character in enumerate(text):
        altered = text[:position] + ("A" if character != "A" else "B") + text[position + 1 :]
        with pytest.raises(NotAuthenticated) as caught:
            jwt.verify(altered)
        assert type(caught.value) is NotAuthenticated, position


WITHOUT_A_KEY: dict[str, dict[str, Any]] = {
    "unknown kid": {"header": {"kid": "unknown"}},
    "unknown issuer": {"claims": {"iss": "https://unknown.example"}},
    "no issuer": {"claims": {"iss": ...}},
    "alg that the issuer does not use": {"header": {"alg": "PS512"}},
    "no alg": {"header": {"alg": "none"}},
    "another type": {"header": {"typ": "dpop+jwt"}},
    "embedded key": {"header": {"jwk": {"kty": "oct"}}},
    "right but for its signature": {},
}


@pytest.mark.parametrize("options", WITHOUT_A_KEY.values(), ids=WITHOUT_A_KEY)
def test_every_rejection_costs_a_signature(
    jwt: JwtVerifier, token: Ask, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timing does not reveal a missing issuer, key or algorithm, or the signature that was sent."""
    jwt.verify(token("RS256"))
    verified: list[bytes] = []
    algorithm = JWSRegistry.algorithms["RS256"]
    verify = algorithm.verify

    def noting(signed: bytes, signature: bytes, key: Any) -> bool:
        verified.append(signature)
        return verify(signed, signature, key)

    monkeypatch.setattr(algorithm, "verify", noting)
    signature = b"\x01" * 256
    with pytest.raises(NotAuthenticated):
        jwt.verify(f"{token('RS256', **options).rpartition('.')[0]}.{b64(signature)}")
    assert verified == [signature]


def numbers(r: int, s: int, size: int = 32) -> bytes:
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(numbers(0, 0), id="r = s = 0"),
        pytest.param(numbers(P256_ORDER, P256_ORDER), id="r = s = n"),
        pytest.param(numbers(1, 1), id="r = s = 1"),
        pytest.param(numbers(0, 0, 48), id="P-384 length"),
        pytest.param(b"\x00" * 63, id="too short"),
        pytest.param(b"\x00", id="one byte"),
    ],
)
def test_a5_psychic_signature(ask: Ask, token: Ask, signature: bytes) -> None:
    """A5: signatures that broken ECDSA verifiers take for any message are rejected."""
    assert ask(bearer(token("ES256").rpartition(".")[0] + "." + b64(signature))).status == 401


def test_a5_der_signature(ask: Ask, token: Ask, signing_keys: Mapping[str, Key]) -> None:
    """A5: a true signature in DER instead of the form of RFC 7518 section 3.4 is rejected."""
    signed = token("ES256").rpartition(".")[0]
    private: Any = signing_keys["ES256"].private_key
    assert ask(bearer(f"{signed}.{b64(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))}")).status == 401


@pytest.mark.parametrize("kind", ["RS256", "ES256", "Ed25519"])
def test_a6_at_4_changed_signature(ask: Ask, token: Ask, kind: str) -> None:
    """A6, AT-4: cut, lengthened, or changed in bits that base64 does not use: only the right text is accepted."""
    text = token(kind)
    last = CHARACTERS.index(text[-1])
    changed = [text[:-1], text[:-2], text + "A", text + "AA", text + "AAAA", text[:-1] + CHARACTERS[last ^ 1]]
    changed += [text.rpartition(".")[0] + ".", text[: text.rindex(".") + 2]]
    assert ask(bearer(text)).status == 200
    assert [ask(bearer(each)).status for each in changed] == [401] * len(changed)


@pytest.mark.parametrize("part", [0, 1], ids=["header", "payload"])
def test_jb_5_changed_part(ask: Ask, token: Ask, part: int) -> None:
    """JB-5: one changed byte in header or payload breaks the token."""
    parts = token().split(".")
    raw = base64.urlsafe_b64decode(parts[part] + "=" * (-len(parts[part]) % 4))
    parts[part] = b64(raw.replace(b'", "', b'","', 1))
    assert ask(bearer(".".join(parts))).reason == "the signature does not verify"


def test_h1_jb_14_key_in_header_causes_no_connection(ask: Ask, token: Ask) -> None:
    """H1: addresses in the header are never fetched."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        forged: dict[str, Any] = {
            "issuer": "https://issuer.example",
            "audience": "https://api.example",
            "now": 1_800_000_000,
        }
        for name in ("jku", "x5u"):
            assert ask(bearer(token(header={name: address}))).status == 200
            own = make_signing_key("RS256", kid="RS256")
            assert ask(bearer(make_token(own, header={name: address}, **forged))).status == 401
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_h1_own_key_in_header(ask: Ask, member: str) -> None:
    """H1, A9: a token that contains its key, or refers to it, is rejected."""
    own = make_signing_key("ES256", kid="ES256")
    public = own.as_dict(private=False)
    brought = {"jwk": public, "x5c": ["MIIB"]}.get(member, "https://attacker.example/keys")
    text = make_token(
        own,
        issuer="https://issuer.example",
        audience="https://api.example",
        now=1_800_000_000,
        header={member: brought},
    )
    assert ask(bearer(text)).status == 401


@pytest.mark.parametrize("size", [8_193, 65_536, 5_000_000])
def test_large_token_is_not_parsed(ask: Ask, token: Ask, size: int) -> None:
    """T5: a token over the cap is rejected by its length alone."""
    head, body, signature = token().split(".")
    text = f"{head}.{body}{'A' * (size - len(head + body + signature) - 2)}.{signature}"
    assert ask(bearer(text)).reason == "the token has more than 8192 characters"


def test_largest_token(ask: Ask, token: Ask) -> None:
    """A token just under the cap is accepted."""
    text = token(claims={"note": "x" * 5_000})
    assert 7_000 < len(text) <= 8_192
    assert ask(bearer(text)).status == 200


@pytest.mark.parametrize("depth", [33, 1_500])
@pytest.mark.parametrize("part", ["header", "payload"])
def test_h7_deep_nesting(ask: Ask, signing_keys: Mapping[str, Key], part: str, depth: int) -> None:
    """H7: deep nesting in header or payload is a rejection, not a recursion error."""
    deep = b'{"alg":"RS256","typ":"at+jwt","kid":"RS256","x":' + b"[" * depth + b"]" * depth + b"}"
    plain = b'{"alg":"RS256","typ":"at+jwt","kid":"RS256"}'
    text = sign_parts(signing_keys["RS256"], *((deep, b"{}") if part == "header" else (plain, deep)))
    assert ask(bearer(text)).reason.startswith(f"the {part} is not strict JSON")


@pytest.mark.parametrize("size", [257, 300, 5_000])
def test_h2_jb_13_very_long_kid(ask: Ask, token: Ask, size: int) -> None:
    """H2, JB-13: a very long kid is rejected before any look-up."""
    assert ask(bearer(token(header={"kid": "k" * size}))).reason.startswith("kid is not")


def authenticator(path: Path, clock: FakeClock, *keys: Key) -> BearerAuthenticator:
    path.write_text(make_key_set(*keys))
    config = IssuerConfig("https://issuer.example", "https://api.example", ("RS256",), jwks_file=str(path))
    return over(JwtVerifier({config.issuer: TrustedIssuer(config, FileKeys(str(path), ("RS256",)))}, clock))


def over(verifier: JwtVerifier) -> BearerAuthenticator:
    return BearerAuthenticator(AccessTokens([verifier]))


def test_h2_kid_missing_with_two_keys(
    ask_with: Ask, token: Ask, tmp_path: Path, clock: FakeClock, signing_keys: Mapping[str, Key]
) -> None:
    """H2: without a kid, two keys that fit are one too many."""
    both = authenticator(tmp_path / "jwks", clock, signing_keys["RS256"], make_signing_key(kid="2"))
    assert ask_with(both, bearer(token())).status == 200
    assert ask_with(both, bearer(token(header={"kid": ...}))).status == 401


def test_jb_1_allow_list_stands_beside_the_keys(
    ask_with: Ask, token: Ask, tmp_path: Path, clock: FakeClock, signing_keys: Mapping[str, Key]
) -> None:
    """JB-1: an algorithm that the issuer may not use is rejected, also when there is a key for it."""
    path = tmp_path / "jwks"
    path.write_text(make_key_set(signing_keys["RS256"]))
    config = IssuerConfig("https://issuer.example", "https://api.example", ("ES256",), jwks_file=str(path))
    narrow = over(JwtVerifier({config.issuer: TrustedIssuer(config, FileKeys(str(path), ("RS256",)))}, clock))
    assert ask_with(narrow, bearer(token())).reason == "alg is not allowed for this issuer"


def test_c12_rotation(
    ask_with: Ask, token: Ask, tmp_path: Path, clock: FakeClock, signing_keys: Mapping[str, Key]
) -> None:
    """C12: the old key verifies while it is published, and not after."""
    old, new = signing_keys["RS256"], make_signing_key(kid="new")
    source = authenticator(tmp_path / "jwks", clock, old, new)
    text = token()
    assert ask_with(source, bearer(text)).status == 200
    (tmp_path / "jwks").write_text(make_key_set(new))
    assert ask_with(source, bearer(text)).status == 401


@pytest.mark.parametrize("content", [None, "", "{", '{"keys": []}', '{"keys": 1}'])
def test_unusable_file_is_503(ask_with: Ask, token: Ask, tmp_path: Path, clock: FakeClock, content: str | None) -> None:
    """Tokens cannot be verified if the key file is missing, damaged or empty."""
    source = authenticator(tmp_path / "jwks", clock, make_signing_key())
    (tmp_path / "jwks").unlink()
    if content is not None:
        (tmp_path / "jwks").write_text(content)
    response = ask_with(source, bearer(token()))
    assert (response.status, response.retry_after) == (503, "60")


def test_jb_11_principal_of_a_token(ask: Ask, token: Ask) -> None:
    """JB-11: the identity is issuer and subject; the claims are read-only."""
    principal = ask(bearer(token(scope="predict metrics", claims={"tier": "gold"}))).principal
    assert (principal.kind, principal.issuer, principal.subject) == ("jwt", "https://issuer.example", "alice")
    assert (principal.client_id, principal.scopes) == ("tests", frozenset({"predict", "metrics"}))
    assert principal.claims["tier"] == "gold"
    assert (principal.token_id, principal.issued) == (principal.claims["jti"], 1_800_000_000.0)
    with pytest.raises(TypeError):
        principal.claims["tier"] = "silver"


def test_from_settings(
    ask_with: Ask, token: Ask, tmp_path: Path, signing_keys: Mapping[str, Key], clock: FakeClock
) -> None:
    """The configured issuers and the leeway are used."""
    path = tmp_path / "jwks"
    path.write_text(make_key_set(signing_keys["RS256"]))
    issuer = {
        "issuer": "https://issuer.example",
        "audience": "https://api.example",
        "algorithms": ["RS256"],
        "jwks_file": str(path),
    }
    settings = Settings.load({"SECURE_ML_TOKEN_ISSUERS": [issuer], "SECURE_ML_TOKEN_LEEWAY": 5})
    made = over(JwtVerifier.from_settings(settings, clock))
    assert ask_with(made, bearer(token(claims={"exp": clock.now() - 4}))).status == 200
    assert ask_with(made, bearer(token(claims={"exp": clock.now() - 5}))).status == 401


def test_a9_key_of_the_header_is_no_key(ask_with: Ask, token: Ask, tmp_path: Path, clock: FakeClock) -> None:
    """A9: without a key of the issuer no token is accepted, whatever key it contains."""
    others = authenticator(tmp_path / "jwks", clock, make_signing_key(kid="another"))
    assert ask_with(others, bearer(token())).reason == "the issuer has no such key for this alg"
    own = make_signing_key("RS256", kid="own")
    text = make_token(own, issuer=ISSUER, audience=AUDIENCE, now=clock.now(), header={"kid": ...})
    assert ask_with(others, bearer(text)).reason == "the signature does not verify"


def test_jb_10_same_name_of_a_key_at_two_issuers(ask: Ask, other_key: Key, clock: FakeClock) -> None:
    """JB-10: the keys of one issuer verify its own tokens only, also when both call their keys the same."""
    own, foreign = (
        make_token(other_key, issuer=issuer, audience=AUDIENCE, now=clock.now())
        for issuer in ("https://other.example", ISSUER)
    )
    assert ask(bearer(own)).status == 200
    assert ask(bearer(foreign)).reason == "the signature does not verify"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a.b.c", True, id="signed"),
        pytest.param("a.b.c.d.e", True, id="JB-6 AT-9 encrypted"),
        pytest.param("a..c", True, id="detached"),
        pytest.param("opaque", False, id="opaque"),
        pytest.param("v2.opaque", False, id="opaque with a dot"),
        pytest.param("a.b.c.d", False, id="four parts"),
        pytest.param("", False, id="empty"),
    ],
)
def test_form(jwt: JwtVerifier, text: str, expected: bool) -> None:
    """A token in the form of a JWT is never handed to the verifier of opaque ones."""
    assert jwt.accepts(text) is expected


def test_claims_cannot_be_changed(jwt: JwtVerifier, token: Ask) -> None:
    """Changes by a view to the claims of one request cannot affect the next, down to the last list."""
    text = token(claims={"roles": ["user"], "address": {"country": "de", "lines": [{"a": 1}]}, "cnf": {"jkt": "x"}})
    verified = jwt.verify(text)
    claims: Any = verified.principal.claims
    assert claims["roles"] == ("user",)
    changes: list[Callable[[], object]] = [
        lambda: claims["roles"].append("admin"),
        lambda: claims["address"].update(country="fr"),
        lambda: claims["address"]["lines"][0].update(a=2),
        lambda: verified.confirmation.update(jkt="y"),
    ]
    for change in changes:
        with pytest.raises((AttributeError, TypeError)):
            change()
    assert jwt.verify(text) == verified
