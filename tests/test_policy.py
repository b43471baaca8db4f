"""What a policy may say, and how it is found."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView
from marshmallow import Schema, fields

from authorization_hooks import answers_later
from flask_secure_ml import Policy, SecureML, protect, public
from flask_secure_ml.policy.policy import policies_from_config
from support import HTTPS, MakeApp, caller


class Body(Schema):
    instances = fields.List(fields.Integer())


FAULTS = [
    pytest.param({"scopes": "predict"}, "scopes must be a list", id="scopes as one string"),
    pytest.param({"scopes": {"predict": 1}}, "scopes must be a list", id="scopes as an object"),
    pytest.param({"scopes": ["a", 1]}, "scopes must be a list of strings", id="scope that is a number"),
    pytest.param({"limits": "600/minute"}, "limits must be a list", id="limits as one string"),
    pytest.param({"scopes": ["a b"]}, "RFC 6749", id="scope with a space"),
    pytest.param({"scopes": ['a"b']}, "RFC 6749", id="scope with a quote"),
    pytest.param({"scopes": [""]}, "RFC 6749", id="empty scope"),
    pytest.param({"any_scopes": "predict"}, "any_scopes must be a list", id="any_scopes as one string"),
    pytest.param({"any_scopes": ["a b"]}, "RFC 6749", id="any_scopes with a space"),
    pytest.param({"any_scopes": []}, "any_scopes is empty", id="no scope would do"),
    pytest.param({"roles": "admin"}, "roles must be a list", id="roles as one string"),
    pytest.param({"roles": 5}, "roles must be a list", id="roles as a number"),
    pytest.param({"roles": []}, "roles is empty", id="no role would do"),
    pytest.param({"roles": [" "]}, "empty entry", id="empty role"),
    pytest.param({"principals": "ada"}, "principals must be a list", id="principals as one string"),
    pytest.param({"principals": []}, "principals is empty", id="no principal would do"),
    pytest.param({"claims": ["tenant"]}, "claims must be an object", id="claims as a list"),
    pytest.param({"claims": {1: "a"}}, "claims must be an object", id="claim name that is a number"),
    pytest.param({"claims": {}}, "claims is empty", id="no claims"),
    pytest.param({"claims": {"tenant": []}}, "nobody could call", id="claim without a value"),
    pytest.param({"claims": {"tenant": None}}, "a text, a number", id="claim null"),
    pytest.param({"claims": {"tenant": {"a": 1}}}, "a text, a number", id="claim an object"),
    pytest.param({"claims": {"tenant": [["a"]]}}, "a text, a number", id="claim a list of lists"),
    pytest.param({"when": "module:function"}, "when must be a function", id="when as text"),
    pytest.param({"when": True}, "when must be a function", id="when as a boolean"),
    pytest.param({"when": answers_later}, "not async", id="async when"),
    pytest.param({"owner": 1}, "owner must be a function", id="owner as a number"),
    pytest.param({"owner": None}, "owner must be a function", id="owner null"),
    pytest.param({"owner": "authorization_hooks:OWNERS"}, "owner must be a function", id="owner names no function"),
    pytest.param({"owner": "authorization_hooks:nobody"}, "nobody", id="owner names nothing"),
    pytest.param({"owner": "authorization_hooks:answers_later"}, "not async", id="async owner"),
    pytest.param({"acr_values": "phr"}, "acr_values must be a list", id="acr_values as one string"),
    pytest.param({"acr_values": ['a"b']}, "acr_values has", id="acr value with a quote"),
    pytest.param({"acr_values": []}, "acr_values is empty", id="no acr value would do"),
    pytest.param({"caps": {}}, "caps must be an object", id="no caps"),
    pytest.param({"caps": 5}, "caps must be an object", id="caps as a number"),
    pytest.param({"caps": {"max_bytes": 5}}, "caps must be an object", id="a cap that has its own term"),
    pytest.param({"caps": {"max_elements": 0}}, "max_elements", id="cap 0"),
    pytest.param({"caps": {"max_elements": True}}, "max_elements", id="boolean cap"),
    pytest.param({"caps": {"max_elements": "5"}}, "max_elements", id="cap as text"),
    pytest.param({"max_auth_age": 0}, "max_auth_age", id="age 0"),
    pytest.param({"max_auth_age": True}, "max_auth_age", id="boolean age"),
    pytest.param({"max_auth_age": 1.5}, "max_auth_age", id="fractional age"),
    pytest.param({"max_auth_age": "300"}, "max_auth_age", id="age as text"),
    pytest.param({"scope": ["a"]}, "unexpected keyword argument 'scope'", id="a term that does not exist"),
    pytest.param({"limits": ["many"]}, "many", id="unreadable limit"),
    pytest.param({"public": True, "scopes": ["a"]}, "public", id="public with scopes"),
    pytest.param({"public": True, "any_scopes": ["a"]}, "public", id="public with any_scopes"),
    pytest.param({"public": True, "roles": ["a"]}, "public", id="public with roles"),
    pytest.param({"public": True, "claims": {"a": 1}}, "public", id="public with claims"),
    pytest.param({"public": True, "principals": ["a"]}, "public", id="public with principals"),
    pytest.param({"public": True, "when": lambda _: True}, "public", id="public with when"),
    pytest.param({"public": True, "owner": True}, "public", id="public with owner"),
    pytest.param({"public": True, "acr_values": ["a"]}, "public", id="public with acr_values"),
    pytest.param({"public": True, "max_auth_age": 60}, "public", id="public with max_auth_age"),
    pytest.param({"public": True, "cost": "instances", "body": Body}, "public", id="public with cost"),
    pytest.param({"cost": "rows", "body": Body}, "'rows'", id="cost of an unknown field"),
    pytest.param({"cost": "instances"}, "'instances'", id="cost without body"),
    pytest.param({"cost": "instances", "body": Body(many=True)}, "one object", id="cost of a list"),
    pytest.param({"public": "false"}, "true or false", id="public as text"),
    pytest.param({"max_bytes": -1}, "max_bytes", id="negative cap"),
    pytest.param({"max_bytes": True}, "max_bytes", id="boolean cap"),
    pytest.param({"body": dict}, "Schema", id="body that is no schema"),
    pytest.param({"body": "test_policy_no_such_module:Body"}, "test_policy_no_such_module", id="missing module"),
]


@pytest.mark.parametrize(("terms", "fault"), FAULTS)
def test_contradictions_are_refused_where_they_are_written(terms: dict[str, Any], fault: str) -> None:
    """The decorator line itself fails, with words that name the fault."""
    with pytest.raises((TypeError, ValueError, ImportError), match=fault):
        protect(**terms)


def test_a_public_route_has_the_terms_that_need_no_caller(protected: MakeApp) -> None:
    """A body is held to its schema and cap whoever sends it; who may call is not a term of a public route."""
    app = protected()
    app.add_url_rule(
        "/open", view_func=public(body=Body, max_bytes=40)(lambda payload: payload), endpoint="open", methods=["POST"]
    )
    client = app.test_client()
    assert client.post("/open", base_url=HTTPS, json={"instances": [1]}).get_json() == {"instances": [1]}
    assert client.post("/open", base_url=HTTPS, json={"instances": ["a"]}).status_code == 422
    assert client.post("/open", base_url=HTTPS, json={"instances": [1] * 40}).status_code == 413
    with pytest.raises(ValueError, match="public"):
        public(scopes=["a"])  # type: ignore[call-overload]


@pytest.mark.parametrize(("terms", "fault"), FAULTS)
def test_contradictions_in_the_configuration(terms: dict[str, Any], fault: str) -> None:
    """The same words, after the name of the route."""
    with pytest.raises(ValueError, match=rf"'/x': .*{fault}"):
        policies_from_config({"/x": terms, "/sound": {"scopes": ["predict"]}})


def test_faults_are_told_without_the_names_of_the_code() -> None:
    """Who writes the configuration has never heard of the function that reads it."""
    with pytest.raises(ValueError, match=r"^'/x': got an unexpected keyword argument 'scope'"):
        policies_from_config({"/x": {"scope": ["a"]}})


def test_a_policy_names_its_scopes() -> None:
    """Those that are needed and those of which one would do."""
    assert Policy.build(scopes=["a"], any_scopes=["b", "c"]).scopes == {"a", "b", "c"}


def test_one_value_of_a_claim_needs_no_list() -> None:
    """A text is a value, not a list of letters."""
    assert Policy.build(claims={"tenant": "acme"}) == Policy.build(claims={"tenant": ["acme"]})


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
