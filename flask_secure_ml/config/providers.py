"""Presets for identity providers: the issuer options that the tokens of a product need (``provider``).

A preset is data. To add one, add an entry to :data:`PROVIDERS`, a token to ``tests/corpus/providers/`` and a block to
``docs/howto/identity-providers.rst``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

_AUDIENCE, _ISSUER = "{audience}", "{issuer}"


@dataclass(frozen=True)
class Provider:
    """The preset of one product, and the requirements of its configuration.

    :param options: the options of an issuer. A path of claims may contain ``{audience}``.
    :param issuer: a pattern that the issuer must match, so that a preset is not used for another product.
    :param example: an issuer that matches.
    :param shared_audiences: patterns of audiences that tokens for other services also have; ``{issuer}`` is the
        issuer.
    :param distinctive_claims: any client can get a token for any audience here, so ``required_claims`` must contain
        one of these.
    :param callers: who can get tokens for the audience without being registered; reported without
        ``required_claims``.
    """

    options: Mapping[str, Any]
    issuer: str = ""
    example: str = ""
    shared_audiences: tuple[str, ...] = ()
    distinctive_claims: tuple[str, ...] = ()
    callers: str = ""

    def accepts(self, issuer: str) -> bool:
        """Return True if an issuer belongs to this product."""
        return not self.issuer or re.fullmatch(self.issuer, issuer) is not None

    def shares(self, audience: str, issuer: str) -> bool:
        """Return True if tokens for other services also have this audience."""
        return any(
            audience == issuer if pattern == _ISSUER else fnmatchcase(audience, pattern)
            for pattern in self.shared_audiences
        )


_DISCOVERED = {"discover": True, "algorithms": ["RS256"]}

_GITHUB_CLAIMS = ("sub", "repository", "repository_id", "repository_owner", "repository_owner_id", "job_workflow_ref")

PROVIDERS: Mapping[str, Provider] = {
    "auth0": Provider(
        {
            **_DISCOVERED,
            "header_types": ["JWT"],
            "omits": ["jti"],
            "scope_claims": ["scope", "permissions"],
            "client_claims": ["client_id", "azp"],
        },
        r"https://[^/]+/",
        "https://TENANT.auth0.com/",
        ("https://*/userinfo", "https://*/api/v2/"),
    ),
    "cognito": Provider(
        {
            **_DISCOVERED,
            "omits": ["typ"],
            "audience_claims": ["aud", "client_id"],
            "role_claims": ["cognito:groups"],
            "required_claims": {"token_use": ["access"]},
        },
        r"https://cognito-idp\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/[^/]+",
        "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_POOL",
    ),
    "duende": Provider({**_DISCOVERED, "omits": ["sub"], "scope_claims": ["scope"], "role_claims": ["role", "roles"]}),
    "entra-v1": Provider(
        {
            **_DISCOVERED,
            "header_types": ["JWT"],
            "omits": ["jti"],
            "scope_claims": ["scp"],
            "client_claims": ["appid"],
        },
        r"https://sts\.windows\.net/[^/]+/",
        "https://sts.windows.net/TENANT/",
        ("00000003-0000-0000-c000-000000000000", "https://graph.microsoft.com*"),
    ),
    "entra-v2": Provider(
        {
            **_DISCOVERED,
            "header_types": ["JWT"],
            "omits": ["jti"],
            "scope_claims": ["scp"],
            "client_claims": ["azp"],
        },
        r"https://[^/]+/[^/]+/v2\.0",
        "https://login.microsoftonline.com/TENANT/v2.0",
        ("00000003-0000-0000-c000-000000000000", "https://graph.microsoft.com*"),
    ),
    "firebase": Provider(
        {
            "algorithms": ["RS256"],
            "jwks_uri": "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com",
            "header_types": ["JWT"],
            "omits": ["jti", "client_id"],
        },
        r"https://securetoken\.google\.com/[^/]+",
        "https://securetoken.google.com/PROJECT",
        callers="every user of the project, including users that sign up themselves,",
    ),
    "github-actions": Provider(
        {
            "issuer": "https://token.actions.githubusercontent.com",
            "algorithms": ["RS256"],
            "discover": True,
            "header_types": ["JWT"],
            "omits": ["client_id"],
        },
        shared_audiences=("https://github.com/*", "sts.amazonaws.com", "api://AzureADTokenExchange"),
        distinctive_claims=_GITHUB_CLAIMS,
    ),
    "google": Provider(
        {
            "issuer": "https://accounts.google.com",
            "algorithms": ["RS256"],
            "jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
            "header_types": ["JWT"],
            "omits": ["jti"],
            "client_claims": ["azp"],
        },
        r"https://accounts\.google\.com",
        "https://accounts.google.com",
        distinctive_claims=("sub", "email", "azp", "hd"),
    ),
    "hydra": Provider({**_DISCOVERED, "header_types": ["JWT"], "scope_claims": ["scp", "scope"]}),
    "keycloak": Provider(
        {
            **_DISCOVERED,
            "header_types": ["JWT"],
            "id_token_claims": ["nonce"],
            "required_claims": {"typ": ["Bearer", "DPoP"]},
            "client_claims": ["azp", "client_id"],
            "role_claims": ["realm_access.roles", f"resource_access.{_AUDIENCE}.roles"],
        },
        r"https?://.+/realms/[^/]+",
        "https://HOST/realms/REALM",
        ("account",),
    ),
    "kubernetes": Provider(
        {"algorithms": ["RS256"], "omits": ["typ", "jti", "client_id"]},
        shared_audiences=(_ISSUER, "https://kubernetes.default*", "kubernetes.default*", "sts.amazonaws.com"),
        callers="every pod of the cluster",
    ),
    "okta": Provider(
        {**_DISCOVERED, "omits": ["typ"], "scope_claims": ["scp"], "client_claims": ["cid"]},
        r"https://[^/]+/oauth2/[^/]+",
        "https://HOST/oauth2/AUTHORIZATION-SERVER",
    ),
}


def with_preset(given: Mapping[str, Any], key_sources: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the options of an issuer merged with those of its provider; objects are merged by name.

    None means the default that the option has without a provider.

    :param key_sources: mutually exclusive options, each of which replaces the others.
    """
    provider = given.get("provider")
    preset = PROVIDERS.get(provider) if isinstance(provider, str) else None
    if preset is None:
        return given
    own_keys = any(given.get(name) for name in key_sources)
    options = {name: value for name, value in preset.options.items() if not (own_keys and name in key_sources)}
    merged = {name: _expanded(value, given.get("audience")) for name, value in options.items()}
    for name, value in given.items():
        of_preset = merged.pop(name, None)
        if isinstance(value, Mapping) and isinstance(of_preset, Mapping):
            merged[name] = {**of_preset, **value}
        elif value is not None or of_preset is None:
            merged[name] = value
    return MappingProxyType(merged)


def _expanded(value: Any, audience: Any) -> Any:
    """Return a list of paths with ``{audience}`` expanded for each audience."""
    if not isinstance(value, list):
        return value
    audiences = audience if isinstance(audience, (list, tuple)) else [audience]
    return [
        path.replace(_AUDIENCE, each)
        for path in value
        for each in (audiences if _AUDIENCE in path else [""])
        if isinstance(each, str)
    ]
