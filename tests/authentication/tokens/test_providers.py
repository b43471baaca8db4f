"""Every token of ``tests/corpus/providers`` under its provider's preset, and tokens that every preset rejects.

The claims are those that the providers document, signed with a key of the test.
"""

from __future__ import annotations

import ast
import base64
import hmac
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import Key

from certificates import make_certificate
from flask_secure_ml.authentication.tokens.jwt import JwtVerifier
from flask_secure_ml.config import Settings
from flask_secure_ml.config.issuers import KEY_SOURCES
from flask_secure_ml.config.providers import PROVIDERS
from flask_secure_ml.errors import ConfigError, NotAuthenticated
from flask_secure_ml.principal import Principal
from flask_secure_ml.testing import FakeClock, make_key_set, make_signing_key, sign_parts

CORPUS = Path(__file__).parents[2] / "corpus" / "providers"
Case = dict[str, Any]
Build = Callable[..., JwtVerifier]
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(CORPUS.glob("*.json"))}


def tokens(*, genuine: bool) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}: {case['id']}")
        for name, file in FILES.items()
        for case in file["tokens"]
        if ("principal" in case) is genuine
    ]


@pytest.fixture(scope="session")
def key() -> Key:
    return make_signing_key("RS256", kid="current")


@pytest.fixture
def build(clock: FakeClock, key: Key) -> Build:
    """Build a verifier for the issuer of a file of the corpus, with the key of the test."""

    def make(provider: str, **options: Any) -> JwtVerifier:
        entry = {"provider": provider, **FILES[provider]["issuer"], "jwks": json.loads(make_key_set(key)), **options}
        return JwtVerifier.from_settings(Settings.load({"SECURE_ML_TOKEN_ISSUERS": [entry], "TESTING": True}), clock)

    return make


def signed(case: Case, key: Key, header: Case | None = None, **claims: Any) -> str:
    """Return the token of a case; a claim that is ``...`` is left out."""
    head = {"alg": "RS256", "kid": "current", **case["header"], **(header or {})}
    body = {name: value for name, value in {**case["claims"], **claims}.items() if value is not ...}
    return sign_parts(key, json.dumps(head).encode(), json.dumps(body).encode())


def outcome(verifier: JwtVerifier, token: str) -> Principal | str:
    try:
        return verifier.verify(token).principal
    except NotAuthenticated as error:
        return error.reason


def test_every_preset_has_tokens() -> None:
    """A new preset needs a file of the corpus; each file has a genuine token, and one that is rejected."""
    assert FILES.keys() == PROVIDERS.keys()
    assert {name for name, _ in (each.values for each in tokens(genuine=True))} == PROVIDERS.keys()
    assert {name for name, _ in (each.values for each in tokens(genuine=False))} == PROVIDERS.keys()


@pytest.mark.parametrize(("provider", "case"), tokens(genuine=True))
def test_genuine_tokens(build: Build, key: Key, provider: str, case: Case) -> None:
    """A token as the provider issues it names its caller, client, scopes and roles."""
    principal = outcome(build(provider), signed(case, key))
    assert isinstance(principal, Principal), principal
    found = {
        "subject": principal.subject,
        "client_id": principal.client_id,
        "scopes": sorted(principal.scopes),
        "roles": sorted(principal.roles),
    }
    expected = case["principal"]
    assert found == {**expected, "scopes": sorted(expected["scopes"]), "roles": sorted(expected["roles"])}
    assert principal.issuer == case["claims"]["iss"]


@pytest.mark.parametrize(("provider", "case"), tokens(genuine=False))
def test_c6_jb_16_other_tokens(build: Build, key: Key, provider: str, case: Case) -> None:
    """C6, JB-16: ID tokens, refresh tokens and tokens for others are rejected, though the same key signed them."""
    assert isinstance(outcome(build(provider), signed(case, key)), str)


@pytest.mark.parametrize(("provider", "case"), tokens(genuine=False))
def test_other_tokens_are_whole(build: Build, key: Key, provider: str, case: Case) -> None:
    """No token in that list is rejected for its signature or times, which would make the test pointless."""
    reason = str(outcome(build(provider), signed(case, key)))
    assert "signature" not in reason
    assert "expired" not in reason
    assert "alg" not in reason


AUDIENCES: dict[str, dict[str, Any]] = {"cognito": {"client_id": "other"}}


def attacks(provider: str, case: Case, key: Key) -> Iterator[tuple[str, str]]:
    """Yield the name of an attack, and the token."""
    now = case["claims"]["iat"]
    yield "expired", signed(case, key, iat=now - 7200, exp=now - 3600, nbf=now - 7200)
    yield "issued in the future", signed(case, key, iat=now + 600, exp=now + 3600)
    yield "without exp", signed(case, key, exp=...)
    yield "without iat", signed(case, key, iat=...)
    yield "lives too long", signed(case, key, exp=now + 90_000)
    yield "another issuer", signed(case, key, iss="https://evil.example")
    yield "an issuer with a slash more", signed(case, key, iss=case["claims"]["iss"] + "/")
    yield "without iss", signed(case, key, iss=...)
    other = AUDIENCES.get(provider, {"aud": "https://other.example"})
    nothing: dict[str, Any] = dict.fromkeys(other, ...)
    yield "another audience", signed(case, key, **other)
    yield "without an audience", signed(case, key, **nothing)
    yield "an empty audience", signed(case, key, aud=[])
    yield (
        "the audience in another claim",
        signed(case, key, **nothing, azp="https://models.example.com"),
    )
    yield "an ID token by nonce and at_hash", signed(case, key, {"typ": "JWT"}, nonce="n", at_hash="h")
    yield "an ID token by token_use", signed(case, key, token_use="id")
    yield "a logout token", signed(case, key, {"typ": "logout+jwt"}, events={})
    yield "a DPoP proof", signed(case, key, {"typ": "dpop+jwt"})
    yield "bound to an unknown thing", signed(case, key, {"crit": ["exp"]})
    yield "an unknown key", signed(case, key, {"kid": "other"})
    yield "a key of its own", signed(case, make_signing_key("RS256", kid="current"))
    yield "a key in its header", signed(case, key, {"jwk": key.as_dict(private=False)})
    yield "no signature", signed(case, key).rpartition(".")[0] + "."
    for name in ("none", "None", "nOnE"):
        yield f"alg {name}", signed(case, key, {"alg": name})
        yield f"alg {name} without a signature", signed(case, key, {"alg": name}).rpartition(".")[0] + "."
    public: Any = key.public_key
    for kind, raw in (
        ("PEM", public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        ("DER", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        ("JWK", json.dumps(key.as_dict(private=False)).encode()),
    ):
        head, body, _ = signed(case, key, {"alg": "HS256"}).split(".")
        digest = hmac.digest(raw, f"{head}.{body}".encode(), "sha256")
        forged = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        yield f"HS256 with the public key in {kind}", f"{head}.{body}.{forged}"


@pytest.mark.parametrize(("provider", "case"), tokens(genuine=True))
def test_a1_a2_attacks(build: Build, key: Key, provider: str, case: Case) -> None:
    """A1, A2, C1 to C6: a preset does not relax the validation of tokens."""
    verifier = build(provider)
    assert isinstance(outcome(verifier, signed(case, key)), Principal)
    accepted = [what for what, token in attacks(provider, case, key) if isinstance(outcome(verifier, token), Principal)]
    assert accepted == []


def settled(provider: str) -> list[str]:
    """Return the options of a preset that decide which tokens are accepted, and as whose."""
    return [name for name in PROVIDERS[provider].options if name not in {*KEY_SOURCES, "issuer", "algorithms"}]


@pytest.mark.parametrize(
    ("provider", "option"), [(provider, option) for provider in PROVIDERS for option in settled(provider)]
)
def test_every_option_is_needed(build: Build, key: Key, provider: str, option: str) -> None:
    """Without one of the options of a preset, a token of the corpus has another outcome: it relaxes no more."""

    def outcomes(**options: Any) -> list[str]:
        try:
            verifier = build(provider, **options)
        except ConfigError as error:
            return list(error.problems)
        return [repr(outcome(verifier, signed(case, key))) for case in FILES[provider]["tokens"]]

    assert outcomes(**{option: None}) != outcomes()


@pytest.mark.parametrize(
    ("provider", "options", "problem"),
    [
        ("google", {"required_claims": None}, "required_claims: must restrict whose tokens are accepted"),
        ("google", {"required_claims": {"email_verified": True}}, "required_claims: must restrict whose"),
        ("github-actions", {"required_claims": {"event_name": "push"}}, "required_claims: must restrict whose"),
        ("github-actions", {"audience": "https://github.com/acme"}, "audience: 'https://github.com/acme' is also"),
        ("kubernetes", {"audience": "https://kubernetes.default.svc"}, "audience: "),
        ("kubernetes", {"audience": ["x", "https://kubernetes.default.svc.cluster.local"]}, "audience: "),
        (
            "kubernetes",
            {"audience": "https://a", "issuer": "https://a"},
            "audience: 'https://a' is also the audience of tokens for other",
        ),
        ("keycloak", {"audience": "account"}, "audience: 'account' is also the audience of tokens for other services"),
        ("auth0", {"issuer": "https://tenant.auth0.com"}, "issuer: is not an issuer of auth0, such as https://TENANT"),
        ("okta", {"issuer": "https://dev-000001.okta.com"}, "issuer: is not an issuer of okta"),
        ("entra-v1", {"issuer": "https://login.microsoftonline.com/t/v2.0"}, "issuer: is not an issuer of entra-v1"),
        ("entra-v2", {"issuer": "https://sts.windows.net/t/"}, "issuer: is not an issuer of entra-v2"),
        (
            "firebase",
            {"issuer": "https://securetoken.google.com.evil.example/x"},
            "issuer: is not an issuer of firebase",
        ),
        ("cognito", {"issuer": "https://cognito-idp.evil.example/eu-west-1_a"}, "issuer: is not an issuer of cognito"),
        ("keycloak", {"required_claims": None}, "id_token_claims: requires required_claims"),
        *((name, {"audience": None}, "audience: must be") for name in PROVIDERS),
    ],
    ids=str,
)
def test_entries_that_would_let_others_in(build: Build, provider: str, options: dict[str, Any], problem: str) -> None:
    """An audience shared with others, an issuer of another form, or a multi-tenant issuer are start-up errors."""
    with pytest.raises(ConfigError) as caught:
        build(provider, **options)
    assert any(line.startswith(f"SECURE_ML_TOKEN_ISSUERS[0].{problem}") for line in caught.value.problems)


def test_an_unknown_provider(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt provider is an error that names the known ones."""
    monkeypatch.setitem(FILES, "keycloack", FILES["keycloak"])
    with pytest.raises(ConfigError, match=r"provider: must be one of 'auth0', .*'okta', not 'keycloack'"):
        build("keycloack", algorithms=["RS256"])


def test_own_options_win(build: Build, key: Key) -> None:
    """An explicit option overrides the preset's; required claims are added to those of the preset."""
    case = FILES["keycloak"]["tokens"][0]
    verifier = build("keycloak", role_claims=["realm_access.roles"], required_claims={"azp": "web"})
    principal = outcome(verifier, signed(case, key))
    assert isinstance(principal, Principal)
    assert principal.roles == {"offline_access", "default-roles-acme"}
    assert isinstance(outcome(verifier, signed(case, key, azp="other")), str)
    assert isinstance(outcome(verifier, signed(case, key, typ="ID")), str)


def test_roles_of_each_audience(build: Build, key: Key) -> None:
    """The preset for Keycloak has the client roles of every audience, and of no other client."""
    case = FILES["keycloak"]["tokens"][0]
    clients = {name: {"roles": [name]} for name in ("models-api", "scores.api", "billing")}
    verifier = build("keycloak", audience=["models-api", "scores.api"])
    principal = outcome(verifier, signed(case, key, resource_access=clients, realm_access=...))
    assert isinstance(principal, Principal)
    assert principal.roles == {"models-api", "scores.api"}


PAGE = Path(__file__).parents[3] / "docs" / "howto" / "identity-providers.rst"
BLOCK = re.compile(r"^   app\.config\[\"SECURE_ML_TOKEN_ISSUERS\"\] = (\[\n(?:       .*\n|   \]\n)+)", re.MULTILINE)
DOCUMENTED = [ast.literal_eval(textwrap.dedent("   " + each)) for each in BLOCK.findall(PAGE.read_text())]


@pytest.mark.parametrize("entries", DOCUMENTED, ids=lambda entries: str(entries[0]["provider"]))
def test_documented_entries(entries: list[dict[str, Any]], tmp_path: Path) -> None:
    """A block of the page can be copied; only the files of a pod are not on this machine."""
    (tmp_path / "token").write_text("a-token-of-this-pod")
    here = {"ca_file": str(make_certificate(tmp_path).certificate), "jwks_token": f"file:{tmp_path / 'token'}"}
    local = [{name: here.get(name, value) for name, value in entry.items()} for entry in entries]
    [found] = Settings.load({"SECURE_ML_TOKEN_ISSUERS": local}).token_issuers
    assert found.provider == entries[0]["provider"]


def test_every_preset_is_documented() -> None:
    """A new preset needs a block on the page, and the table of its options."""
    assert {entries[0]["provider"] for entries in DOCUMENTED} == PROVIDERS.keys()
    assert set(re.findall(r"^\.\. secure-ml-provider:: (\S+)$", PAGE.read_text(), re.MULTILINE)) == PROVIDERS.keys()
