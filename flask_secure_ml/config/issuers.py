"""The issuers of access tokens, and how tokens are verified (``SECURE_ML_TOKEN_ISSUERS``)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..describing import is_described_only
from ..policy.fields import Boolean, Choice, Choices, Integer, ListOf, Options, String
from ..policy.options import Claims, Scalar
from ..policy.schema import Check, Problem, option
from ..secrets import SecretRing, client_secret_ring, secret_ring
from .fields import SecretReference
from .issuer_fields import Audience, HeaderTypes, KeySet, Path, Paths, PlanMap, Relaxations, TokenTypes
from .providers import PROVIDERS, with_preset

ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
HMAC_BYTES: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Minimum length of the secret of each HMAC algorithm: the length of its digest (RFC 7518 section 3.2)."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
KEY_SOURCES = ("jwks_uri", "jwks_file", "jwks", "secret", "discover")
ROLE_CLAIMS = ("roles", "groups", "entitlements")
"""The claims that hold roles in RFC 9068 (section 2.2.3.1)."""

MAX_TOKEN_BYTES = 8192
"""Default maximum length of a token; servers limit a header line to about as many bytes."""

LONGEST_TOKEN = 65_536
"""Maximum value of ``max_token_bytes``."""

MAX_AGE = 86_400
LONGEST_AGE = 30 * 86_400
"""Maximum value of ``max_age`` in seconds; the revocation of a token is kept for longer."""


def check_issuer(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if the issuer is not an identifier (RFC 8414 section 2)."""
    if "#" in found.issuer:
        yield ("issuer",), "must not have a fragment (RFC 8414 section 2)"


def check_sources(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem unless there is exactly one source of keys, or introspection."""
    if len(found.key_sources) > 1 or not (found.key_sources or found.introspection_uri):
        named = f", not {' and '.join(found.key_sources)}" if found.key_sources else ""
        yield (), f"requires exactly one of {', '.join(KEY_SOURCES)}, or introspection_uri{named}"


def check_algorithms(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if algorithms and keys are incompatible."""
    if found.key_sources and not found.algorithms:
        yield ("algorithms",), 'is missing; name the algorithms of its tokens, such as ["RS256"]'
    if found.algorithms and not found.key_sources and found.introspection_uri:
        yield ("algorithms",), "requires keys, but this issuer only uses introspection"
    if found.key_sources and set(found.algorithms) & (ASYMMETRIC if found.secret else HMAC_BYTES.keys()):
        wanted = "a secret verifies only HMAC" if found.secret else "public keys cannot verify HMAC"
        yield ("algorithms",), f"is incompatible with {found.key_sources[0]}: {wanted}"


def check_secret_length(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if a secret is shorter than the digest of its algorithm."""
    needed = max((HMAC_BYTES.get(name, 0) for name in found.algorithms), default=0)
    if found.secret is not None and any(len(value) < needed for value in found.secret.check()):
        yield ("secret",), f"must have at least {needed} bytes for these algorithms (RFC 7518 section 3.2)"


def check_introspection(found: IssuerConfig) -> Iterator[Problem]:
    """Yield each missing option of introspection."""
    options = {name: getattr(found, name) for name in ("introspection_uri", "client_id", "client_secret")}
    if any(value is not None for value in options.values()):
        for name, value in options.items():
            if value is None:
                others = " and ".join(other for other in options if other != name)
                yield (name,), f"is missing; introspection requires it together with {others}"


def check_provider(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem for each requirement of the provider's preset that is not met."""
    provider = None if found.provider is None else PROVIDERS[found.provider]
    if provider is None:
        return
    if not provider.accepts(found.issuer):
        yield ("issuer",), f"is not an issuer of {found.provider}, such as {provider.example}"
    for each in found.audiences:
        if provider.shares(each, found.issuer):
            yield (
                ("audience",),
                f"{each!r} is also the audience of tokens for other services; use an audience of this API only",
            )
    if provider.distinctive_claims and not {name for name, _ in found.required_claims} & {*provider.distinctive_claims}:
        named = ", ".join(provider.distinctive_claims)
        why = f"{found.provider} issues tokens for any audience to any client"
        yield ("required_claims",), f"must restrict whose tokens are accepted by one of {named}: {why}"


def check_id_token_claims(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if ID tokens could pass as access tokens."""
    if found.id_token_claims and not {name for name, _ in found.required_claims} & {"typ", "token_use"}:
        examples = '{"typ": ["Bearer"]} or {"token_use": ["access"]}'
        yield ("id_token_claims",), f"requires required_claims that ID tokens do not meet, such as {examples}"


def check_plan_claim(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if a plan claim is set without plans."""
    if found.plan_claim is not None and not found.plans:
        yield ("plan_claim",), "requires plans, which maps values of the claim to plans"


def check_opaque(found: IssuerConfig) -> Iterator[Problem]:
    """Yield options that are only valid for introspection."""
    if found.introspection_uri is None:
        if "aud" in found.omits:
            yield ("omits",), 'may contain "aud" only for introspection; a JWT always needs an audience'
        if found.token_types:
            yield ("token_types",), "is only for introspection, but this issuer has no introspection_uri"


def check_jwks_token(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if the JWKS token could be sent to a URL that is not configured."""
    if found.jwks_token is not None and found.jwks_uri is None:
        yield ("jwks_token",), "requires jwks_uri, the only URL that it is sent to"


def check_proxy(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if the proxy cannot be used."""
    if found.proxy is not None:
        if not _is_http_origin(found.proxy):
            yield ("proxy",), 'must be an http: URL without user and path, such as "http://proxy.internal:3128"'
        if found.insecure_http:
            yield ("proxy",), "is only for https: URLs, but insecure_http is for loopback"


def _is_http_origin(url: str) -> bool:
    rest = url.removeprefix("http://")
    return rest != url and not set("/?#@") & set(rest.removesuffix("/")) and _allowed(f"https://{rest}", insecure=False)


def check_ca_file(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if the file has no usable certificates."""
    if found.ca_file is not None and not is_described_only():
        try:
            ssl.create_default_context(cafile=found.ca_file)
        except (OSError, ValueError) as error:
            yield ("ca_file",), f"cannot be used: {getattr(error, 'strerror', None) or type(error).__name__}"


def _check_url(name: str) -> Check:
    def check(found: IssuerConfig) -> Iterator[Problem]:
        url = getattr(found, name)
        if url is not None and (name != "issuer" or found.discover) and not _allowed(url, found.insecure_http):
            why = ", because its metadata is fetched from there (discover)" if name == "issuer" else ""
            yield (name,), f"must begin with https:{why} (or with http: on loopback if insecure_http is set)"

    return check


def _allowed(url: str, insecure: bool) -> bool:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        return False
    return usable and (parts.scheme == "https" or (insecure and parts.scheme == "http" and parts.hostname in LOOPBACK))


@dataclass(frozen=True)
class IssuerConfig:
    """One authorization server, and how its tokens are verified."""

    cross_checks: ClassVar[tuple[Check, ...]] = (
        check_issuer,
        check_sources,
        check_algorithms,
        check_secret_length,
        check_introspection,
        check_provider,
        check_id_token_claims,
        check_plan_claim,
        check_opaque,
        check_jwks_token,
        check_ca_file,
        check_proxy,
        _check_url("issuer"),
        _check_url("jwks_uri"),
        _check_url("introspection_uri"),
    )

    issuer: str = option(String(), help_text="The exact ``iss``.")
    audience: str | tuple[str, ...] = option(
        Audience(), help_text="The required ``aud``; if there are several, a token needs one of them."
    )
    algorithms: tuple[str, ...] = option(
        Choices(*sorted(ASYMMETRIC), *HMAC_BYTES), (), "The signature algorithms of its tokens; only if it has keys."
    )
    jwks_uri: str | None = option(String(), None, "The URL of its public keys.")
    jwks_file: str | None = option(String(), None, "A file with its public keys.")
    jwks: Mapping[str, Any] | None = option(KeySet(), None, "Its public keys as a JWK Set.")
    secret: SecretRing | None = option(
        SecretReference(secret_ring), None, "A reference to the HMAC secret, or a list of them, newest first."
    )
    discover: bool = option(Boolean(), False, "Read ``jwks_uri`` from the issuer's metadata (RFC 8414).")
    introspection_uri: str | None = option(String(), None, "The URL where opaque tokens are introspected (RFC 7662).")
    client_id: str | None = option(String(), None, "The client id of this app at the introspection endpoint.")
    client_secret: SecretRing | None = option(
        SecretReference(client_secret_ring),
        None,
        "A reference to the secret of ``client_id``, or a list, newest first.",
    )
    provider: str | None = option(
        Choice(*PROVIDERS),
        None,
        "The preset of this identity provider; options of this entry replace those of the preset.",
    )
    omits: frozenset[str] = option(
        Relaxations("typ", "jti", "client_id", "sub", "aud"),
        frozenset(),
        "Claims that its tokens may omit. Without ``sub``, the client's id is used. ``aud`` may only be omitted in "
        "introspection responses.",
    )
    header_types: frozenset[str] = option(
        HeaderTypes(), frozenset(), "Values of the header ``typ`` that are accepted in addition to ``at+jwt``."
    )
    token_types: frozenset[str] = option(
        TokenTypes(),
        frozenset(),
        "Values of ``token_type`` that introspection may return in addition to Bearer and DPoP.",
    )
    id_token_claims: frozenset[str] = option(
        Relaxations("nonce", "at_hash", "c_hash", "s_hash"),
        frozenset(),
        "Claims of ID tokens that its access tokens also have; requires ``required_claims`` that ID tokens do not "
        "meet.",
    )
    required_claims: tuple[tuple[str, tuple[Scalar, ...]], ...] = option(
        Claims(), (), "Claims that a token must have, each with its accepted values."
    )
    audience_claims: tuple[str, ...] = option(
        Paths("aud"), ("aud",), "The claims that contain the audience; the first that is present is used."
    )
    scope_claims: tuple[str, ...] = option(
        Paths("scp"),
        (),
        "The claims whose scopes are combined, each a space-separated string or a list; by default ``scope``, a "
        "string.",
    )
    role_claims: tuple[str, ...] = option(
        Paths("realm_access.roles"), ROLE_CLAIMS, "The claims whose roles are combined, each a string or a list."
    )
    client_claims: tuple[str, ...] = option(
        Paths("azp"),
        (),
        "The claims that contain the client; the first that is present is used. By default ``client_id``, or ``azp`` "
        "if "
        "``client_id`` may be omitted.",
    )
    user_claims: tuple[str, ...] = option(
        Paths("sub"), ("sub",), "The claims that contain the subject; the first that is present is used."
    )
    plan_claim: str | None = option(Path(), None, "The claim that determines the plan; by default the client.")
    plans: tuple[tuple[str, str], ...] = option(
        PlanMap(), (), "The plan for each value; the first match is used, and other values get the plan ``default``."
    )
    max_token_bytes: int = option(
        Integer(256, LONGEST_TOKEN, unit="bytes"),
        MAX_TOKEN_BYTES,
        "The maximum length of a token; servers also limit header lines.",
    )
    max_age: int = option(
        Integer(1, LONGEST_AGE, unit="seconds"), MAX_AGE, "The maximum number of seconds since ``iat``."
    )
    ca_file: str | None = option(
        String(), None, "The certificate authorities (PEM) to verify its URLs with, instead of those of the system."
    )
    jwks_token: SecretRing | None = option(
        SecretReference(client_secret_ring), None, "A reference to a bearer token for requests to ``jwks_uri``."
    )
    proxy: str | None = option(
        String(), None, "The ``http:`` URL of a proxy for its ``https:`` URLs; the proxy resolves host names."
    )
    private_network: bool = option(Boolean(), False, "Allow private and loopback IP addresses.")
    insecure_http: bool = option(Boolean(), False, "Allow ``http:`` URLs on loopback.")

    @property
    def audiences(self) -> tuple[str, ...]:
        """The accepted audiences."""
        return (self.audience,) if isinstance(self.audience, str) else self.audience

    @property
    def key_sources(self) -> tuple[str, ...]:
        """The names of the options that are sources of keys."""
        return tuple(name for name in KEY_SOURCES if getattr(self, name))


def _check_together(issuers: Mapping[int, IssuerConfig]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    introspecting: int | None = None
    for index, each in issuers.items():
        if seen.setdefault(each.issuer, index) != index:
            yield (index, "issuer"), f"is the same as in entry {seen[each.issuer]}; name each issuer once"
        if each.introspection_uri is not None and introspecting is not None:
            why = "an opaque token does not name its issuer"
            yield (
                (index, "introspection_uri"),
                f"is already set for entry {introspecting}; only one issuer can introspect, because {why}",
            )
        elif each.introspection_uri is not None:
            introspecting = index


class _Issuer(Options):
    """One entry, merged with the preset of its provider."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        whole = with_preset(value, KEY_SOURCES) if isinstance(value, Mapping) else value
        return super()._deserialize(whole, attr, data, **kwargs)


def issuers_field() -> ListOf:
    """Return the field of ``SECURE_ML_TOKEN_ISSUERS``."""
    found = ListOf(IssuerConfig, _check_together)
    found.inner = _Issuer(IssuerConfig)
    return found
