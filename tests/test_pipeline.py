"""The loop: order by stage, one rejection ends it, recorders are independent."""

from __future__ import annotations

import logging

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from flask_secure_ml import Exchange, Pipeline, Policy, Stage
from flask_secure_ml.errors import RateLimited


def an_exchange(policy: Policy | None = None) -> Exchange:
    return Exchange("id", 0.0, 0.0, "127.0.0.1", "127.0.0.1", True, policy=policy)


class Step:
    def __init__(self, stage: Stage, trace: list[str], name: str, rejects: bool = False) -> None:
        self.stage = stage
        self.name = name
        self._trace = trace
        self._rejects = rejects

    def check(self, request: Request, exchange: Exchange) -> None:
        self._trace.append(self.name)
        if self._rejects:
            raise RateLimited(f"refused by {self.name}")


@pytest.fixture
def request_() -> Request:
    return Request(EnvironBuilder().get_environ())


def test_the_stage_decides_the_order(request_: Request) -> None:
    """Guards run by stage; within one stage in the order given. Then the policy is cleared."""
    trace: list[str] = []
    stages = [(Stage.COST, "d"), (Stage.TRANSPORT, "a"), (Stage.INPUT, "b"), (Stage.INPUT, "c")]
    exchange = an_exchange(Policy())
    Pipeline.build([Step(stage, trace, name) for stage, name in stages]).check(request_, exchange)
    assert trace == ["a", "b", "c", "d"]
    assert exchange.cleared is exchange.policy


def test_a_rejection_ends_the_walk(request_: Request) -> None:
    """No later guard runs and the policy is not cleared."""
    trace: list[str] = []
    guards = [Step(Stage.LIMIT, trace, "a", rejects=True), Step(Stage.COST, trace, "b")]
    exchange = an_exchange(Policy())
    with pytest.raises(RateLimited):
        Pipeline.build(guards).check(request_, exchange)
    assert trace == ["a"]
    assert (exchange.cleared, exchange.rejection and exchange.rejection.reason) == (None, "refused by a")


def test_recorders_run_independently(caplog: pytest.LogCaptureFixture) -> None:
    """A failing recorder is logged, and the next one runs."""
    seen: list[str] = []

    class Broken:
        def record(self, exchange: Exchange) -> None:
            raise OSError("disk full")

    class Note:
        def record(self, exchange: Exchange) -> None:
            seen.append(exchange.request_id)

    pipeline = Pipeline.build([], recorders=[Broken(), Note()])
    exchange = an_exchange()
    with caplog.at_level(logging.ERROR):
        pipeline.record(exchange)
    assert seen == ["id"]
    assert "disk full" in caplog.text


def test_the_principal_is_set_once() -> None:
    """A second writer is a fault of the code, not a change of the caller."""
    from flask_secure_ml import Principal

    exchange = an_exchange()
    exchange.principal = Principal("test", "ada")
    with pytest.raises(RuntimeError, match="already set"):
        exchange.principal = Principal("test", "bob")


def test_identity_is_issuer_and_subject() -> None:
    """The same subject at two issuers is two callers (ASVS 10.3.3)."""
    from flask_secure_ml import Principal

    ids = {Principal("jwt", "ada", issuer).id for issuer in ("https://a.example", "https://b.example")}
    assert len(ids) == 2
