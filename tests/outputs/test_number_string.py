"""Scores that leave as strings: decimals, and fields with ``as_string``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from flask import Response, jsonify
from marshmallow import Schema, fields

from answering import LEAK, Serve, assert_withheld

SCORE = f"0.{LEAK}"


@dataclass
class Scored:
    label: str
    score: Decimal


WITH_DECIMALS = [
    pytest.param({"when": datetime(2024, 1, 1, tzinfo=UTC), "s": Decimal(SCORE)}, id="beside a date"),
    pytest.param({1: Decimal(SCORE)}, id="by number"),
    pytest.param({"id": UUID(int=1), "all": [{"s": Decimal(SCORE)}, (Decimal(SCORE),)]}, id="beside a UUID"),
    pytest.param({"best": Scored("cat", Decimal(SCORE))}, id="in a dataclass"),
    pytest.param({1: np.array([Decimal(SCORE)], object)}, id="in an array"),
]


@pytest.mark.parametrize("value", WITH_DECIMALS)
@pytest.mark.parametrize("make", [lambda value: value, jsonify], ids=["returned", "jsonify"])
def test_decimals_are_scores(value: Any, make: Callable[[Any], Any], serve: Serve) -> None:
    """Flask writes them as strings, and a string is a label, so they are numbers before it does."""
    for options in ({"label_only": True}, {"round": 1}):
        response = serve(lambda: make(value), scores=options)
        assert response.status_code == 200
        assert LEAK not in response.text


EXACT = Decimal(SCORE)
REJECTED = [
    pytest.param([EXACT, EXACT], {"label_only": True}, id="only scores"),
    pytest.param(EXACT, {"label_only": True}, id="one score"),
    pytest.param([[EXACT], [EXACT]], {"label_only": True}, id="rows"),
    pytest.param([{"label": "cat", "s": EXACT}, {"label": "dog", "s": EXACT}], {"top_k": 1}, id="objects"),
    pytest.param({"cat": [EXACT], "dog": [EXACT]}, {"top_k": 1}, id="lists by name"),
    pytest.param([Scored("cat", EXACT), Scored("dog", EXACT)], {"top_k": 1}, id="dataclasses"),
    pytest.param({"y": {float(SCORE): "cat"}}, {"label_only": True}, id="scores as keys"),
    pytest.param({float(SCORE): "cat"}, {"round": 1}, id="scores as keys of the top"),
]


@pytest.mark.parametrize(("value", "options"), REJECTED)
@pytest.mark.parametrize("make", [lambda value: value, jsonify], ids=["returned", "jsonify"])
def test_what_is_rejected_does_not_leave_as_text(
    value: Any, options: dict[str, Any], make: Callable[[Any], Any], serve: Serve
) -> None:
    """A response that cannot be masked is also rejected if its decimals are strings."""
    assert_withheld(serve(lambda: jsonify(value) if value is EXACT else make(value), scores=options))


class AsText(Schema):
    score = fields.Float(as_string=True)
    exact = fields.Decimal(as_string=True)
    count = fields.Integer(as_string=True)


@pytest.mark.parametrize("is_ready", [False, True], ids=["value", "written"])
def test_numbers_that_are_declared_as_texts(serve: Serve, *, is_ready: bool) -> None:
    """They are scores and stay strings; an integer is a label as a string too."""
    value = {"score": float(SCORE), "exact": Decimal(SCORE), "count": 123456}
    body = json.dumps({name: str(each) for name, each in value.items()})

    def view() -> Any:
        return Response(body, mimetype="application/json") if is_ready else value

    assert serve(view, response=AsText, scores={"label_only": True}).json == {"count": "123456"}
    rounded = serve(view, response=AsText, scores={"round": 1}).json
    assert rounded == {"score": "1.0", "exact": "1.0", "count": "123456"}


class Sly(str):
    __slots__ = ()

    def __str__(self) -> str:
        return LEAK


class Label(Schema):
    label = fields.String()


def test_a_text_that_turns_into_another_one(serve: Serve) -> None:
    """The examined characters are sent, not the object's own string conversion."""
    assert serve(lambda: {"label": Sly("cat")}, response=Label).json == {"label": "cat"}
