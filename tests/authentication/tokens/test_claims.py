"""Claims: validation, lookup by path, expiry, and immutability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from flask_secure_ml.authentication.tokens.claims import end_of, find, read_only, sound


@pytest.mark.parametrize("value", ["text", 1, 1.5, True, None])
def test_scalars_stay(value: Any) -> None:
    """Immutable values are kept as they are."""
    assert read_only(value) is value


def test_read_only() -> None:
    """Arrays become tuples, objects read-only mappings, at any depth; the original is not touched."""
    given = {"a": [1, {"b": [2]}], "c": {}}
    made = read_only(given)
    assert made == {"a": (1, {"b": (2,)}), "c": {}}
    assert isinstance(made["a"][1], Mapping)
    assert not hasattr(made["a"][1], "update")
    assert given == {"a": [1, {"b": [2]}], "c": {}}


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": 500, "iat": 100}, 500),
        ({"exp": 500, "iat": 100.5}, 500),
        ({"exp": 5_000, "iat": 100}, 1_100),
    ],
    ids=["by its word", "with a fraction", "by its age"],
)
def test_end_of(claims: dict[str, Any], expected: float) -> None:
    """A token ends at its exp, or when it is too old."""
    assert end_of(claims, 1_000) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("scp", "a", id="name"),
        pytest.param("realm_access.roles", ["r"], id="in an object"),
        pytest.param("resource_access.my.api.roles", ["c"], id="name with a dot inside"),
        pytest.param("kubernetes.io.pod.name", "web", id="name with a dot first"),
        pytest.param("https://ns.example/roles", ["n"], id="URL"),
        pytest.param("both.a", "whole name", id="the whole name first"),
        pytest.param("scp.a", None, id="into a string"),
        pytest.param("none.a", None, id="nothing there"),
        pytest.param("realm_access.none", None, id="nothing inside"),
        pytest.param("realm_access", {"roles": ["r"]}, id="object"),
        pytest.param("list.0", None, id="into a list"),
    ],
)
def test_find(path: str, expected: Any) -> None:
    """A path leads into objects; names that contain dots themselves are found."""
    claims = {
        "scp": "a",
        "realm_access": {"roles": ["r"]},
        "resource_access": {"my.api": {"roles": ["c"]}},
        "kubernetes.io": {"pod": {"name": "web"}},
        "https://ns.example/roles": ["n"],
        "both.a": "whole name",
        "both": {"a": "inside"},
        "list": ["x"],
    }
    assert find(claims, path) == expected


@pytest.mark.parametrize(
    "claims",
    [
        {"acr": 5},
        {"acr": ""},
        {"amr": "pwd"},
        {"amr": [1]},
        {"auth_time": "now"},
        {"auth_time": True},
        {"groups": [1]},
        {"groups": {"a": 1}},
        {"groups": ["x"] * 501},
        {"jti": None},
        {"client_id": None},
        {"roles": None},
        {"nbf": None},
    ],
    ids=str,
)
def test_claims_that_count_as_missing(claims: dict[str, Any]) -> None:
    """AT-10: a claim that only informs is left out if it is malformed, and one that is null is not there."""
    assert sound({"sub": "alice", **claims}) == {"sub": "alice"}


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"iat": None},
        {"iss": None},
        {"aud": None},
        {"scope": None},
        {"cnf": None},
        {"typ": None},
        {"token_use": None},
        {"nonce": None},
        {"events": None},
        {"roles": 5},
        {"groups": "one"},
        {"amr": ["pwd"]},
    ],
    ids=str,
)
def test_claims_that_stay(claims: dict[str, Any]) -> None:
    """MT-5, C1: null is not a valid value of a restricting claim; such claims are never ignored."""
    assert sound(claims) == claims
