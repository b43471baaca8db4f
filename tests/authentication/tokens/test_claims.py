"""What is made of claims: who asked, which roles, until when; and that nobody can change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from flask_secure_ml.authentication.tokens.claims import client_of, end_of, read_only, roles_of
from flask_secure_ml.errors import NotAuthenticated


@pytest.mark.parametrize("value", ["text", 1, 1.5, True, None])
def test_scalars_stay(value: Any) -> None:
    """What cannot be changed stays what it is."""
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


@pytest.mark.parametrize("claims", [{"client_id": 1}, {"client_id": None, "azp": "a"}, {"azp": "a\n"}], ids=str)
def test_client_of_a_wrong_type(claims: dict[str, Any]) -> None:
    """AT-6: a client that is named wrongly is not replaced by another claim."""
    with pytest.raises(NotAuthenticated):
        client_of(claims)


def test_at_10_roles() -> None:
    """AT-10: the three claims together; a name that is there twice counts once."""
    assert roles_of({"roles": ["a", "b"], "groups": ["b"], "entitlements": ["c"]}) == {"a", "b", "c"}
    assert roles_of({"role": ["a"]}) == frozenset()
