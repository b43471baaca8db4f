"""What a policy may say, and how it is found."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView
from marshmallow import Schema, fields

from flask_secure_ml import Policy, SecureML, protect, public
from support import HTTPS, MakeApp, caller


class Body(Schema):
    instances = fields.List(fields.Integer())


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        pytest.param({"scopes": "predict"}, "lists", id="scopes as one string"),
        pytest.param({"limits": "600/minute"}, "lists", id="limits as one string"),
        pytest.param({"scopes": ["a b"]}, "RFC 6749", id="scope with a space"),
        pytest.param({"scopes": ['a"b']}, "RFC 6749", id="scope with a quote"),
        pytest.param({"scopes": [""]}, "RFC 6749", id="empty scope"),
        pytest.param({"limits": ["many"]}, "many", id="unreadable limit"),
        pytest.param({"public": True, "scopes": ["a"]}, "public", id="public with scopes"),
        pytest.param({"cost": "rows", "body": Body}, "'rows'", id="cost of an unknown field"),
        pytest.param({"cost": "instances"}, "'instances'", id="cost without body"),
        pytest.param({"cost": "instances", "body": Body(many=True)}, "one object", id="cost of a list"),
        pytest.param({"public": "false"}, "true or false", id="public as text"),
        pytest.param({"max_bytes": -1}, "max_bytes", id="negative cap"),
        pytest.param({"max_bytes": True}, "max_bytes", id="boolean cap"),
        pytest.param({"body": dict}, "Schema", id="body that is no schema"),
        pytest.param({"body": "test_policy_no_such_module:Body"}, "test_policy_no_such_module", id="missing module"),
    ],
)
def test_contradictions_are_refused_where_they_are_written(terms: dict[str, Any], fault: str) -> None:
    """The decorator line itself fails, with words that name the fault."""
    with pytest.raises((TypeError, ValueError, ImportError), match=fault):
        Policy.build(**terms)


def test_two_marks_on_one_view_are_refused() -> None:
    """It would be unclear which one holds."""
    for target in (lambda: "ok", Blueprint("pages", "pages"), type("Pages", (MethodView,), {})):
        with pytest.raises(TypeError, match="has a policy already"):
            public(protect(target))


def test_openness_is_not_inherited(app: Flask) -> None:
    """A subclass of a public class is closed; of a closed one, as closed as that."""

    @public
    class Open(MethodView):
        def get(self) -> str:
            return "open"

    class More(Open):
        def delete(self) -> str:
            return "deleted"

    app.add_url_rule("/open", view_func=Open.as_view("open"))
    app.add_url_rule("/more", view_func=More.as_view("more"))
    client = app.test_client()
    assert client.get("/open", base_url=HTTPS).status_code == 200
    assert client.delete("/more", base_url=HTTPS).status_code == 401


def test_body_belongs_to_the_view() -> None:
    """A blueprint or a class cannot take a payload."""
    with pytest.raises(TypeError, match="view function or method"):
        protect(body=Body)(Blueprint("pages", "pages"))
    with pytest.raises(TypeError, match="view function or method"):
        protect(body=Body)(MethodView)


def test_the_payload_reaches_functions_and_methods(app: Flask) -> None:
    """The loaded value is the keyword argument ``payload``, beside the arguments of the URL."""

    class Model(MethodView):
        @protect(body=Body)
        def post(self, name: str, payload: dict[str, Any]) -> dict[str, Any]:
            return {"name": name, "sum": sum(payload["instances"])}

    app.add_url_rule("/<name>", view_func=Model.as_view("model"))
    sent = app.test_client().post("/digits", base_url=HTTPS, headers=caller(), json={"instances": [1, 2]})
    assert sent.json == {"name": "digits", "sum": 3}


def test_a_rule_beats_its_endpoint(protected: MakeApp) -> None:
    """Two URLs of one view can have two policies."""
    app = protected(POLICIES={"/inside": {"scopes": ["inside"]}, "view": {"public": True}})
    for rule in ("/inside", "/outside"):
        app.add_url_rule(rule, endpoint="view", view_func=_view)
    client = app.test_client()
    assert client.get("/outside", base_url=HTTPS).status_code == 200
    assert client.get("/inside", base_url=HTTPS, headers=caller()).status_code == 403


def _view() -> str:
    return "ok"


def test_two_policies_for_one_route_are_an_error(protected: MakeApp) -> None:
    """A policy in the code and one in the configuration contradict each other."""
    app = protected(POLICIES={"marked": {"scopes": ["a"]}})
    app.add_url_rule("/marked", endpoint="marked", view_func=protect(_view))
    with pytest.raises(ValueError, match="'marked' has a policy in SECURE_ML_POLICIES and another in its code"):
        SecureML.check(app)


def test_a_rule_leaves_no_alias_open(protected: MakeApp) -> None:
    """A policy for one of two URLs of a view is an error, unless the endpoint has one for the rest."""
    app = protected(POLICIES={"/x": {"scopes": ["admin"]}})
    for rule in ("/x", "/alias"):
        app.add_url_rule(rule, endpoint="x", view_func=_view)
    with pytest.raises(ValueError, match="also at /alias; name the endpoint"):
        SecureML.check(app)


def test_a_rule_of_several_hosts(protected: MakeApp) -> None:
    """A URL rule says nothing of the host, so it may not be what two hosts share."""
    app = protected(Flask("hosts", host_matching=True, static_host="a.example"), POLICIES={"/m": {"public": True}})
    for host in ("a.example", "b.example"):
        app.add_url_rule("/m", endpoint=host, view_func=_view, host=host)
    with pytest.raises(ValueError, match="several hosts"):
        SecureML.check(app)


def test_a_configured_policy_beats_the_blueprints(protected: MakeApp) -> None:
    """The operator can close or open one route of somebody else's blueprint."""
    app = protected(POLICIES={"pages.index": {"public": True}})
    pages = protect(scopes=["pages"])(Blueprint("pages", "pages"))
    pages.add_url_rule("/", endpoint="index", view_func=_view)
    app.register_blueprint(pages)
    SecureML.check(app)
    assert app.test_client().get("/", base_url=HTTPS).status_code == 200


def test_routes_name_their_policies(app: Flask) -> None:
    """Every rule and method is listed with what is enforced."""
    app.add_url_rule("/open", endpoint="open", view_func=public(lambda: "ok"))
    policies = app.extensions["secure_ml"].policies
    found = {(rule.rule, method): policy.public for rule, method, policy in policies.routes()}
    assert found[("/open", "GET")] is True
    assert found[("/static/<path:filename>", "GET")] is False
