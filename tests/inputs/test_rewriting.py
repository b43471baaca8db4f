"""Changes by a schema that have no effect, as reported by the check of configured policies."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import EXCLUDE, INCLUDE, Schema, fields, post_load

from flask_secure_ml.inputs import Base64Tensor, Categorical, Tensor, Text, Url
from flask_secure_ml.inputs.unseen_changes import changes, unseen_changes
from flask_secure_ml.policy.policy import Policy


class Leaf(Schema):
    text = Text(control="strip", bidi="strip", invisible="strip")
    again = fields.Nested("Leaf")


class Hooked(Schema):
    @post_load
    def done(self, data: Any, **_kwargs: Any) -> Any:
        return data


STRIPS = [f'text ({term}="strip")' for term in ("control", "bidi", "invisible")] + ['text (normalise="NFC")']


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param(Leaf(), STRIPS, id="text"),
        pytest.param(Hooked(), ["post_load"], id="hook"),
        pytest.param(Leaf(only=["text"], unknown=EXCLUDE), ["unknown fields are left out", *STRIPS], id="unknown"),
        pytest.param(
            Schema.from_dict({"a": Tensor((1,), maximum=1, outside="clip"), "b": Base64Tensor((1,))})(),
            ['a (outside="clip")'],
            id="clip",
        ),
        pytest.param(
            Schema.from_dict(
                {"a": Base64Tensor((1,), maximum=1, outside="clip"), "b": fields.Int(load_default=None)}
            )(),
            ['a (outside="clip")', "b (load_default)"],
            id="default",
        ),
        pytest.param(
            Schema.from_dict({"a": fields.List(fields.Nested(Leaf, unknown=EXCLUDE))})(),
            ["unknown fields are left out of a", *(f"a.{each}" for each in STRIPS)],
            id="nested",
        ),
        pytest.param(
            Schema.from_dict(
                {
                    "a": fields.Dict(fields.String(), Text(normalise="NFKC")),
                    "b": fields.Tuple([fields.Nested(Hooked)]),
                    "c": Url(["a.example"]),
                }
            )(),
            ['a (normalise="NFKC")', "b.post_load", "c (the IP addresses of its host)"],
            id="inner",
        ),
        pytest.param(
            Schema.from_dict(
                {
                    "a": Tensor((1,), maximum=1, outside="report"),
                    "b": Text(normalise=None, required=False),
                    "c": Categorical(["x"], codes=True),
                    "d": fields.Dict(),
                }
            )(unknown=INCLUDE),
            [],
            id="nothing",
        ),
    ],
)
def test_changes(schema: Schema, expected: list[str]) -> None:
    """Each option that changes values is reported with its position, once even for recursive schemas."""
    assert list(changes(schema)) == expected


def test_policies_are_named() -> None:
    """One sentence for each policy with such changes."""
    policies = {"/a": Policy(), "/b": Policy(body=Schema.from_dict({})()), "/c": Policy(body=Hooked())}
    (found,) = unseen_changes(policies)
    assert "'/c'" in found
    assert found.endswith(": post_load")
