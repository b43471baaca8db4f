"""Plans, route limits, quotas and the throttle, over the embedded storage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from marshmallow import Schema, fields, post_load

from flask_secure_ml import ConfigError, protect, public
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.limits.engine import key_for
from flask_secure_ml.principal import network_of
from support import HTTPS, MakeApp, NameAuthenticator, caller


class Rows(Schema):
    instances = Tensor(shape=(None, 2), dtype="float64")


class Items(Schema):
    instances = fields.Raw(allow_none=True)


def statuses(app: Flask, count: int, path: str = "/x", name: str = "ada") -> list[int]:
    client = app.test_client()
    return [client.get(path, base_url=HTTPS, headers=caller(name)).status_code for _ in range(count)]


def test_the_default_plan(protected: MakeApp) -> None:
    """Every principal has the default plan, over all routes together, also unknown ones; callers do not share."""
    app = protected(PLANS={"default": {"requests": ["3/hour"]}})
    app.add_url_rule("/x", view_func=lambda: "ok")
    assert statuses(app, 2) + statuses(app, 2, "/nowhere") == [200, 200, 404, 429]
    assert statuses(app, 1, name="bob") == [200]


def test_429_says_when_to_come_back(protected: MakeApp) -> None:
    """Retry-After in whole seconds, on 429 only, within the window."""
    app = protected(PLANS={"default": {"requests": ["1/minute"]}})
    client = app.test_client()
    first, second = (client.get("/x", base_url=HTTPS, headers=caller()) for _ in range(2))
    assert "Retry-After" not in first.headers
    assert second.json["code"] == "rate_limited"  # type: ignore[index]
    assert 1 <= int(second.headers["Retry-After"]) <= 60


def test_plans_of_principals(protected: MakeApp) -> None:
    """A principal's own plan holds; one that is not configured is rejected rather than unlimited."""
    plans = {"default": {"requests": ["1/hour"]}, "gold": {"requests": ["2/hour"]}}
    gold = protected(parts={"authenticators": [NameAuthenticator("gold")]}, PLANS=plans)
    lost = protected(parts={"authenticators": [NameAuthenticator("lost")]}, PLANS=plans)
    assert statuses(gold, 3) == [404, 404, 429]
    assert statuses(lost, 1) == [500]


def test_route_limits(protected: MakeApp) -> None:
    """limits= counts per route and caller, beside the plan; the same function on two routes counts apart."""
    app = protected()
    view = protect(limits=["1/hour"])(lambda: "ok")
    app.add_url_rule("/a", endpoint="a", view_func=view)
    app.add_url_rule("/b", endpoint="b", view_func=view)
    assert statuses(app, 2, "/a") == [200, 429]
    assert statuses(app, 1, "/a", "bob") == statuses(app, 1, "/b") == [200]


def test_public_routes_are_limited_by_address(protected: MakeApp) -> None:
    """An anonymous caller is its network address."""
    app = protected(PLANS={"default": {"requests": ["1/hour"]}})
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    client = app.test_client()

    def status(address: str) -> int:
        return client.get("/open", base_url=HTTPS, environ_overrides={"REMOTE_ADDR": address}).status_code

    assert [status("192.0.2.1"), status("192.0.2.1"), status("192.0.2.2")] == [200, 429, 200]
    assert [status("2001:db8::1"), status("2001:db8::2"), status("2001:db8:0:1::1")] == [200, 429, 200]


def test_exactly_the_limit_under_threads(protected: MakeApp) -> None:
    """Eight threads cannot pass more than the limit (STANDARDS RL-11)."""
    app = protected(PLANS={"default": {"requests": ["50/hour"]}})
    app.add_url_rule("/x", view_func=lambda: "ok")
    with ThreadPoolExecutor(8) as pool:
        found = [status for part in pool.map(lambda _: statuses(app, 10), range(16)) for status in part]
    assert found.count(200) == 50
    assert found.count(429) == 110


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window-counter", "gcra"])
def test_quota_in_rows(protected: MakeApp, strategy: str) -> None:
    """cost= charges the rows of one field; a rejected body costs nothing; one above the quota never fits."""
    app = protected(PLANS={"default": {"quotas": ["10/day"]}}, RATELIMIT_STRATEGY=strategy)

    @app.post("/predict")
    @protect(body=Rows, cost="instances")
    def predict(payload: dict[str, object]) -> str:
        return "ok"

    client = app.test_client()
    responses = [
        client.post("/predict", base_url=HTTPS, headers=caller(), json={"instances": [[0, 1]] * rows})
        for rows in (6, 5, 11, 4, 1)
    ]
    assert [response.status_code for response in responses] == [200, 429, 413, 200, 429]
    assert responses[1].json["code"] == "quota_exceeded"  # type: ignore[index]
    assert responses[1].json["type"].endswith("#quota-exceeded")  # type: ignore[index]
    assert int(responses[1].headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("body", "price"),
    [
        pytest.param({"instances": [1, 2, 3]}, 3, id="a list"),
        pytest.param({"instances": 7}, 1, id="a scalar"),
        pytest.param({"instances": None}, 0, id="null"),
        pytest.param({}, 0, id="absent"),
    ],
)
def test_the_price(protected: MakeApp, body: dict[str, object], price: int) -> None:
    """Rows of a list, one for a scalar, nothing for nothing."""
    app = protected(PLANS={"default": {"quotas": ["3/day"]}})

    @app.post("/predict")
    @protect(body=Items, cost="instances")
    def predict(payload: dict[str, object]) -> str:
        return "ok"

    client = app.test_client()
    found = [client.post("/predict", base_url=HTTPS, headers=caller(), json=body).status_code for _ in range(4)]
    assert found.count(200) == (3 // price if price else 4)


class Renamed(Schema):
    instances = fields.List(fields.Integer(), attribute="rows")


class Nested(Schema):
    instances = fields.List(fields.Integer(), attribute="batch.rows")


class Replaced(Schema):
    instances = fields.List(fields.Integer())

    @post_load
    def replace(self, data: object, **_: object) -> tuple[object]:
        return (data,)


@pytest.mark.parametrize(("schema", "statuses"), [(Renamed, [200, 429]), (Nested, [200, 429]), (Replaced, [500, 500])])
def test_the_price_cannot_be_lost(protected: MakeApp, schema: type[Schema], statuses: list[int]) -> None:
    """A renamed field is found, also inside another object; a payload without fields is rejected rather than free."""
    app = protected(PLANS={"default": {"quotas": ["3/day"]}})

    @app.post("/predict")
    @protect(body=schema, cost="instances")
    def predict(payload: object) -> str:
        return "ok"

    client = app.test_client()
    sent = {"instances": [1, 2]}
    found = [client.post("/predict", base_url=HTTPS, headers=caller(), json=sent).status_code for _ in range(2)]
    assert found == statuses


def test_failed_authentication_throttle(protected: MakeApp) -> None:
    """After too many invalid credentials an address gets 429 for more; valid ones and public routes still work."""
    app = protected(FAILED_AUTH_LIMITS=["3/minute"])
    app.add_url_rule("/x", view_func=lambda: "ok", endpoint="x")
    app.add_url_rule("/open", view_func=public(lambda: "ok"), endpoint="open")
    client = app.test_client()
    assert statuses(app, 5, name="bad") == [401, 401, 401, 429, 429]
    assert statuses(app, 1) == [200]
    assert client.get("/open", base_url=HTTPS).status_code == 200
    elsewhere = client.get("/x", base_url=HTTPS, headers=caller(), environ_overrides={"REMOTE_ADDR": "192.0.2.9"})
    assert elsewhere.status_code == 200


def test_a_missing_credential_is_no_failure(protected: MakeApp) -> None:
    """A request without a credential is not a guess."""
    app = protected(FAILED_AUTH_LIMITS=["1/minute"])
    client = app.test_client()
    assert [client.get("/x", base_url=HTTPS).status_code for _ in range(3)] == [401, 401, 401]


def test_the_throttle_can_be_off(protected: MakeApp) -> None:
    """An empty list lifts it."""
    assert statuses(protected(FAILED_AUTH_LIMITS=[]), 40, name="bad") == [401] * 40


def test_keys_cannot_be_forged() -> None:
    """No separator inside a part makes one caller's key another's."""
    assert len({key_for("a/b", "c"), key_for("a", "b/c"), key_for("a", "b", "c"), key_for("a\x00b", "c")}) == 4


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
        ("", "unknown"),
        ("x:y", "unknown"),
    ],
)
def test_networks(address: str, network: str) -> None:
    """IPv6 counts by /64, and a caller without an address shares one key with its like."""
    assert network_of(address) == network


def test_ratelimit_enabled_cannot_switch_limits_off(protected: MakeApp) -> None:
    """One forgotten test setting must not open the app."""
    with pytest.raises(ConfigError, match="RATELIMIT_ENABLED"):
        protected(RATELIMIT_ENABLED=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"RATELIMIT_STORAGE_URI": "cupboard://:hunter2@x"},
        {"RATELIMIT_STORAGE_URI": "memcached://x"},
        {"RATELIMIT_STRATEGY": "leaky"},
        {"RATELIMIT_STRATEGY": "moving-window"},
    ],
    ids=str,
)
def test_unusable_storage_stops_the_app(protected: MakeApp, settings: dict[str, str]) -> None:
    """At the start, not at the first request, and without the password."""
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        protected(**settings)
    assert "hunter2" not in str(caught.value)
