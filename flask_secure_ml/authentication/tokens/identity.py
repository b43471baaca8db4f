"""The caller of a token: subject, client, scopes, roles and plan, from the claims that the issuer's options name.

Each function raises ``NotAuthenticated`` with the name of the claim that is missing or wrong, never with its value.
"""

from __future__ import annotations

import re
from typing import Any

from ...config.issuers import IssuerConfig
from ...errors import NotAuthenticated
from ...policy.options import SCOPE_TOKEN
from .claims import MAX_ROLES, Claims, check_string, find, first, is_list_of_strings, is_string

DEFAULT_PLAN = "default"
_SCOPES = re.compile(rf"{SCOPE_TOKEN.pattern}(?: {SCOPE_TOKEN.pattern})*")


def scopes_of(claims: Claims, issuer: IssuerConfig) -> frozenset[str]:
    """Return the scopes in ``scope`` (RFC 8693 section 4.2), or in all ``scope_claims`` of the issuer."""
    if not issuer.scope_claims:
        return frozenset(_split("scope", claims.get("scope", "")))
    found = ((path, find(claims, path)) for path in issuer.scope_claims)
    return frozenset(scope for path, value in found if value is not None for scope in _listed(path, value))


def _split(name: str, value: Any) -> list[str]:
    if value == "" and isinstance(value, str):
        return []
    if not isinstance(value, str) or not _SCOPES.fullmatch(value):
        raise NotAuthenticated(f"the claim {name} is not one space-delimited string")
    return value.split(" ")


def _listed(path: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        return _split(path, value)
    if len(value) > MAX_ROLES or not all(isinstance(each, str) and SCOPE_TOKEN.fullmatch(each) for each in value):
        raise NotAuthenticated(f"the claim {path} is not a list of at most {MAX_ROLES} scopes")
    return value


def roles_of(claims: Claims, issuer: IssuerConfig) -> frozenset[str]:
    """Return the roles in all ``role_claims``; a string is one role (RFC 9068 section 2.2.3.1)."""
    found = ((path, find(claims, path)) for path in issuer.role_claims)
    return frozenset(role for path, value in found if value is not None for role in _roles(path, value))


def _roles(path: str, value: Any) -> list[str]:
    roles = [value] if is_string(value) else value
    if not is_list_of_strings(roles):
        raise NotAuthenticated(f"the claim {path} is not a list of at most {MAX_ROLES} printable strings")
    return list(roles)


def client_of(claims: Claims, issuer: IssuerConfig) -> str:
    """Return the client, or an empty string if it is missing and the issuer may omit it.

    By default it is ``client_id``; if that may be missing, ``azp`` of OpenID Connect is the fallback.
    """
    optional = "client_id" in issuer.omits
    path, value = first(claims, issuer.client_claims or (("client_id", "azp") if optional else ("client_id",)))
    if not path and optional:
        return ""
    return check_string(path or " or ".join(issuer.client_claims or ("client_id",)), value)


def subject_of(claims: Claims, issuer: IssuerConfig, client: str) -> str:
    """Return the subject, or the client id if the client acts on its own behalf (RFC 9068 section 2.2).

    If clients can choose their ids, one could choose the id of a user. Therefore ``sub`` may be missing only if the
    issuer's options allow it.
    """
    path, value = first(claims, issuer.user_claims)
    if path or "sub" not in issuer.omits:
        return check_string(path or " or ".join(issuer.user_claims), value)
    if "username" in claims:
        # A reassignable user name is not an identity, and the client is not the user.
        raise NotAuthenticated("the token is for a user and has no sub")
    return client or check_string("sub or client_id", None)


def plan_of(claims: Claims, issuer: IssuerConfig, client: str) -> str:
    """Return the plan for the client or the value of ``plan_claim``, or else the default plan."""
    if not issuer.plans:
        return DEFAULT_PLAN
    value = client if issuer.plan_claim is None else find(claims, issuer.plan_claim)
    values = value if isinstance(value, list) else [value]
    return next((plan for each, plan in issuer.plans if each in values), DEFAULT_PLAN)
