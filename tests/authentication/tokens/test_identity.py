"""The caller that claims name, under the options of an issuer."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.authentication.tokens.claims import check_claims, sound
from flask_secure_ml.authentication.tokens.identity import client_of, plan_of, roles_of, scopes_of, subject_of
from flask_secure_ml.config.issuers import IssuerConfig
from flask_secure_ml.errors import NotAuthenticated

Claims = dict[str, Any]


def issuer(**options: Any) -> IssuerConfig:
    return IssuerConfig("https://issuer.example", "https://api.example", **options)


OPTIONAL = {"omits": frozenset({"client_id"})}


@pytest.mark.parametrize(
    ("options", "claims", "expected"),
    [
        ({}, {"client_id": "c", "azp": "a"}, "c"),
        (OPTIONAL, {"azp": "a"}, "a"),
        (OPTIONAL, {}, ""),
        ({"client_claims": ("cid",)}, {"cid": "c", "client_id": "x"}, "c"),
        ({"client_claims": ("azp", "appid")}, {"appid": "a"}, "a"),
        ({"client_claims": ("azp",), **OPTIONAL}, {"client_id": "x"}, ""),
    ],
    ids=str,
)
def test_client(options: Claims, claims: Claims, expected: str) -> None:
    """The first claim that is there, of those that the issuer names."""
    assert client_of(claims, issuer(**options)) == expected


@pytest.mark.parametrize(
    ("options", "claims"),
    [
        ({}, {}),
        ({}, {"azp": "a"}),
        ({}, {"client_id": 1}),
        (OPTIONAL, {"client_id": 1, "azp": "a"}),
        (OPTIONAL, {"azp": "a\n"}),
        ({"client_claims": ("cid",)}, {"client_id": "x"}),
        ({"client_claims": ("cid", "azp")}, {"cid": [], "azp": "a"}),
    ],
    ids=str,
)
def test_client_that_is_missing_or_wrong(options: Claims, claims: Claims) -> None:
    """AT-6: a client that is named wrongly is not replaced by another claim."""
    with pytest.raises(NotAuthenticated):
        client_of(claims, issuer(**options))


@pytest.mark.parametrize(
    ("options", "claims", "expected"),
    [
        ({}, {"sub": "alice"}, "alice"),
        ({"user_claims": ("oid", "sub")}, {"sub": "alice", "oid": "o"}, "o"),
        ({"user_claims": ("oid", "sub")}, {"sub": "alice"}, "alice"),
        ({"user_claims": ("kubernetes.io.pod.name",)}, {"kubernetes.io": {"pod": {"name": "web"}}}, "web"),
        ({"omits": frozenset({"sub"})}, {}, "batch"),
    ],
    ids=str,
)
def test_subject(options: Claims, claims: Claims, expected: str) -> None:
    """The first claim that is there; the client only where the subject may be missing."""
    assert subject_of(claims, issuer(**options), "batch") == expected


@pytest.mark.parametrize(
    ("options", "claims", "client"),
    [
        ({}, {}, "batch"),
        ({"user_claims": ("oid",)}, {"sub": "alice"}, "batch"),
        ({"omits": frozenset({"sub"})}, {"sub": 5}, "batch"),
        ({"omits": frozenset({"sub"})}, {"username": "alice"}, "batch"),
        ({"omits": frozenset({"sub"})}, {}, ""),
    ],
    ids=str,
)
def test_nobody(options: Claims, claims: Claims, client: str) -> None:
    """JB-11: a token without a usable subject has no caller."""
    with pytest.raises(NotAuthenticated):
        subject_of(claims, issuer(**options), client)


@pytest.mark.parametrize(
    ("paths", "claims", "expected"),
    [
        (("scp",), {"scp": "a b", "scope": "c"}, {"a", "b"}),
        (("scp",), {"scp": ["a", "b"]}, {"a", "b"}),
        (("scope", "permissions"), {"scope": "a", "permissions": ["b"]}, {"a", "b"}),
        (("scope", "permissions"), {"scope": "a"}, {"a"}),
        (("scope",), {"scope": None}, set()),
        (("scope",), {"scope": ""}, set()),
        (("ext.scopes",), {"ext": {"scopes": ["a"]}}, {"a"}),
        ((), {"scope": "a b", "scp": ["c"]}, {"a", "b"}),
    ],
    ids=str,
)
def test_scopes(paths: tuple[str, ...], claims: Claims, expected: set[str]) -> None:
    """C7: scopes are read from lists and other claims only if the issuer's options name them."""
    assert scopes_of(claims, issuer(scope_claims=paths)) == expected


@pytest.mark.parametrize(
    ("paths", "claims"),
    [
        ((), {"scope": ["a"]}),
        ((), {"scope": None}),
        (("scp",), {"scp": 5}),
        (("scp",), {"scp": ["a", 5]}),
        (("scp",), {"scp": ["a b"]}),
        (("scp",), {"scp": [""]}),
        (("scp",), {"scp": ["a"] * 501}),
        (("scp",), {"scp": {"a": True}}),
        (("scp",), {"scp": "a  b"}),
    ],
    ids=str,
)
def test_wrong_scopes(paths: tuple[str, ...], claims: Claims) -> None:
    """AT-7: a value that is not a list of scopes is rejected, and never causes an error."""
    with pytest.raises(NotAuthenticated):
        scopes_of(claims, issuer(scope_claims=paths))


def test_at_10_roles() -> None:
    """AT-10: the three claims together; a name that is there twice counts once; a string is one role."""
    assert roles_of({"roles": ["a", "b"], "groups": ["b"], "entitlements": ["c"]}, issuer()) == {"a", "b", "c"}
    assert roles_of({"roles": "a b"}, issuer()) == {"a b"}
    assert roles_of({"role": ["a"]}, issuer()) == frozenset()
    paths = ("realm_access.roles", "resource_access.api.roles")
    claims = {"realm_access": {"roles": ["r"]}, "resource_access": {"api": {"roles": ["c"]}}, "roles": ["x"]}
    assert roles_of(claims, issuer(role_claims=paths)) == {"r", "c"}


@pytest.mark.parametrize("roles", ["", "a\n", 5, [1], [""], ["x"] * 501, {"a": 1}], ids=str)
def test_wrong_roles(roles: Any) -> None:
    """AT-10: roles decide, so malformed ones are rejected."""
    with pytest.raises(NotAuthenticated):
        roles_of({"roles": roles}, issuer())


@pytest.mark.parametrize(
    ("options", "claims", "expected"),
    [
        ({}, {"plan": "gold"}, "default"),
        ({"plans": (("batch", "gold"),)}, {}, "gold"),
        ({"plans": (("other", "gold"),)}, {}, "default"),
        ({"plan_claim": "tier", "plans": (("1", "gold"),)}, {"tier": "1"}, "gold"),
        ({"plan_claim": "tier", "plans": (("1", "gold"),)}, {"tier": "gold"}, "default"),
        ({"plan_claim": "tier", "plans": (("1", "gold"),)}, {"tier": 1}, "default"),
        ({"plan_claim": "tier", "plans": (("1", "gold"),)}, {}, "default"),
        ({"plan_claim": "groups", "plans": (("a", "gold"), ("b", "free"))}, {"groups": ["b", "a"]}, "gold"),
        ({"plan_claim": "groups", "plans": (("a", "gold"),)}, {"groups": [{}, []]}, "default"),
    ],
    ids=str,
)
def test_plan(options: Claims, claims: Claims, expected: str) -> None:
    """A token does not name a plan: the configuration maps values to plans."""
    assert plan_of(claims, issuer(**options), "batch") == expected


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["", "a", "a b", "\n"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["roles", "io", "a.b", "aud"]), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = ("sub", "oid", "cid", "client_id", "aud", "scp", "permissions", "roles", "realm", "groups", "amr", "jti", "typ")


@given(claims=st.dictionaries(st.sampled_from([*NAMES, "realm.io", "exp", "acr", "auth_time", "username"]), JSON))
def test_any_claims_under_all_options(claims: Claims) -> None:
    """With any claims, a signed token has a caller or is rejected; no other error is raised."""
    options: dict[str, Any] = {
        "omits": frozenset({"typ", "jti", "client_id", "sub"}),
        "id_token_claims": frozenset({"nonce"}),
        "required_claims": (("realm.io", ("a", True, 1)), ("typ", ("a",))),
        "audience_claims": ("aud", "realm.aud", "client_id"),
        "scope_claims": ("scp", "permissions", "realm.a.b"),
        "role_claims": ("roles", "realm.roles", "realm.io.a.b"),
        "client_claims": ("cid", "realm.io"),
        "user_claims": ("oid", "sub", "realm.a.b"),
        "plan_claim": "realm.roles",
        "plans": (("a", "gold"),),
    }
    config = issuer(**options)
    usual = {"iat": 1_800_000_000, "exp": 1_800_000_300, "aud": "https://api.example"}
    checked = sound({**usual, **claims})
    assert plan_of(checked, config, "batch") in {"default", "gold"}
    for part in (
        lambda: check_claims(checked, config, typed=False, now=1_800_000_000, leeway=30),
        lambda: client_of(checked, config),
        lambda: subject_of(checked, config, "batch"),
        lambda: scopes_of(checked, config),
        lambda: roles_of(checked, config),
    ):
        # One after the other, so that none hides the next.
        with suppress(NotAuthenticated):
            part()
