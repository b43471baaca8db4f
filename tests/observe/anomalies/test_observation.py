"""Observations from a log line and from an exchange are the same."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema

from flask_secure_ml import protect
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.observe.anomalies import Observation, observation_in, observation_of
from flask_secure_ml.observe.anomalies.observation import target_of
from flask_secure_ml.observe.request_log import entry
from support import HTTPS, MakeApp, caller

LINE: dict[str, Any] = {"time": "2026-01-05T10:00:00.250+00:00", "client": "2001:db8::7", "status": 401}


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


class Both:
    """Notes the same request twice."""

    def __init__(self) -> None:
        self.seen: list[tuple[Observation, Observation | None]] = []

    def record(self, exchange: Exchange) -> None:
        self.seen.append((observation_of(exchange), observation_in(entry(exchange))))


def test_an_exchange_and_its_line(protected: MakeApp) -> None:
    """Both give the same observation."""
    both = Both()
    app: Flask = protected(
        parts={"recorders": [both]}, PLANS={"default": {"requests": ["60/minute"], "quotas": ["100/day"]}}
    )
    predict = protect(body=Rows, cost="instances")(lambda payload: "ok")
    app.add_url_rule("/predict", "predict", predict, methods=["POST"])
    client = app.test_client()
    client.post("/predict", base_url=HTTPS, headers=caller("ada"), json={"instances": [[1, 2], [3, 4], [5, 6]]})
    client.get("/nowhere", base_url=HTTPS, headers=caller("ada"))
    client.get("/nowhere", base_url=HTTPS)
    (used, used_line), (unknown, unknown_line), (anonymous, anonymous_line) = both.seen
    assert used_line is not None
    assert (used.rows, used.status, used.target) == (3, 200, 0)
    assert used.size > len('{"instances":[[1,2],[3,4],[5,6]]}')
    assert used == used_line
    assert unknown == unknown_line
    assert anonymous == anonymous_line
    assert unknown.target == anonymous.target != 0
    assert (unknown.principal != "", anonymous.principal, anonymous.network) == (True, "", "127.0.0.1")


def test_a_line() -> None:
    """The smallest one."""
    assert observation_in(LINE) == Observation(1767607200.25, "", "2001:db8::", 401, target_of(401, None, ""))


@pytest.mark.parametrize(
    "changed",
    [{"event": "stream_end"}, {"status": "200"}, {"client": None}, {"time": "yesterday"}, {"time": 7}, {"time": None}],
)
def test_no_line_of_a_request(changed: dict[str, Any]) -> None:
    """It is skipped."""
    assert observation_in(LINE | changed) is None


def test_numbers_that_no_request_has() -> None:
    """They are bounded, so that no sum of them fails."""
    seen = observation_in(LINE | {"rows": 10**400, "bytes_in": -5, "http.response.body.size": "x"})
    assert seen is not None
    assert (seen.rows, seen.size) == (2**53, 0)
