"""The options of a policy, and which policy a route has."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView
from marshmallow import Schema, fields

from authorization_hooks import responses_later
from flask_secure_ml import ConfigError, Policy, SecureML, protect, public
from flask_secure_ml.config import Settings
from flask_secure_ml.policy.cors import CorsArguments, CorsOptions
from flask_secure_ml.policy.headers import HeaderArguments, HeaderOptions
from flask_secure_ml.policy.limits import LimitArguments, LimitOptions
from flask_secure_ml.policy.options import (
    AccessArguments,
    AccessOptions,
    CapArguments,
    CapOptions,
    ScoreArguments,
    ScoreOptions,
)
from flask_secure_ml.policy.policy import BuildArguments, PolicyArguments, PublicArguments
from flask_secure_ml.policy.schema import schema_of
from support import HTTPS, MakeApp, caller


class Body(Schema):
    instances = fields.List(fields.Integer())


LIST = "must be a list, not one string; write"
FUNCTION = "must be a function that is not async"
NO_CALLER = "public: is for routes without authentication, so the policy cannot have access options and a cost"
FAULTS = [
    pytest.param({"scopes": "predict"}, f'scopes: {LIST} ["predict"]', id="scopes as one string"),
    pytest.param(
        {"scopes": {"predict": 1}},
        'scopes: must be a list of strings such as ["predict"], not an object',
        id="scopes as an object",
    ),
    pytest.param({"scopes": ["a", 1]}, "scopes[1]: must be a string, not 1", id="scope that is a number"),
    pytest.param({"limits": "600/minute"}, f'limits: {LIST} ["600/minute"]', id="limits as one string"),
    pytest.param({"limits": {"1/day"}}, "limits: must be a list of limits such as", id="limits as a set"),
    pytest.param({"scopes": ["a b"]}, "scopes[0]: 'a b' has a space, a quote", id="scope with a space"),
    pytest.param({"scopes": ['a"b']}, "scopes[0]: 'a\"b' has a space, a quote", id="scope with a quote"),
    pytest.param({"scopes": [""]}, "RFC 6749", id="empty scope"),
    pytest.param({"any_scopes": "predict"}, f"any_scopes: {LIST}", id="any_scopes as one string"),
    pytest.param({"any_scopes": ["a b"]}, "any_scopes[0]: 'a b'", id="any_scopes with a space"),
    pytest.param({"any_scopes": []}, "any_scopes: is empty; omit it, or", id="no scope would do"),
    pytest.param({"roles": "admin"}, f'roles: {LIST} ["admin"]', id="roles as one string"),
    pytest.param({"roles": 5}, "roles: must be a list of strings", id="roles as a number"),
    pytest.param({"roles": []}, "roles: is empty", id="no role would do"),
    pytest.param({"roles": [" "]}, "roles[0]: must not be empty", id="empty role"),
    pytest.param({"principals": "ada"}, f"principals: {LIST}", id="principals as one string"),
    pytest.param({"principals": []}, "principals: is empty", id="no principal would do"),
    pytest.param({"claims": ["tenant"]}, "claims: must be an object", id="claims as a list"),
    pytest.param({"claims": {1: "a"}}, "claims: must be an object", id="claim name that is a number"),
    pytest.param({"claims": {}}, "claims: is empty", id="no claims"),
    pytest.param({"claims": {"tenant": []}}, "claims.tenant: has no value, so no caller", id="claim without a value"),
    pytest.param({"claims": {"tenant": None}}, "claims.tenant: must be a string, a number", id="claim null"),
    pytest.param({"claims": {"tenant": {"a": 1}}}, "claims.tenant: must be a string", id="claim an object"),
    pytest.param({"claims": {"tenant": [["a"]]}}, "claims.tenant: must be a string", id="claim a list of lists"),
    pytest.param({"when": "module:function"}, f"when: {FUNCTION}", id="when as a string"),
    pytest.param({"when": True}, f"when: {FUNCTION}", id="when as a boolean"),
    pytest.param({"when": responses_later}, f"when: {FUNCTION}", id="async when"),
    pytest.param({"owner": 1}, f"owner: {FUNCTION}", id="owner as a number"),
    pytest.param({"owner": None}, f"owner: {FUNCTION}", id="owner null"),
    pytest.param({"owner": "authorization_hooks:OWNERS"}, f"owner: {FUNCTION}", id="owner names no function"),
    pytest.param({"owner": "authorization_hooks:nobody"}, "owner: cannot import", id="owner names nothing"),
    pytest.param({"owner": "authorization_hooks:responses_later"}, f"owner: {FUNCTION}", id="async owner"),
    pytest.param({"acr_values": "phr"}, f"acr_values: {LIST}", id="acr_values as one string"),
    pytest.param({"acr_values": ['a"b']}, "acr_values[0]: 'a\"b' has", id="acr value with a quote"),
    pytest.param({"acr_values": []}, "acr_values: is empty", id="no acr value would do"),
    pytest.param({"acr_values": {"a"}}, "acr_values: must be a list", id="acr_values without an order"),
    pytest.param({"caps": {}}, "caps: is empty; it must have at least one of max_body_bytes", id="no caps"),
    pytest.param({"caps": 5}, "caps: must be an object", id="caps as a number"),
    pytest.param({"caps": {"max_bytes": 5}}, "caps.max_bytes: is not known; did you mean max_body", id="other name"),
    pytest.param({"caps": {"max_elements": 0}}, "caps.max_elements: must be a whole number", id="cap 0"),
    pytest.param({"caps": {"max_elements": True}}, "caps.max_elements: must be", id="boolean cap"),
    pytest.param({"caps": {"max_elements": "5"}}, "caps.max_elements: must be", id="cap as a string"),
    pytest.param({"caps": {"max_body_bytes": -1}}, "caps.max_body_bytes: must be", id="negative cap"),
    pytest.param({"caps": {"max_body_bytes": True}}, "caps.max_body_bytes: must be", id="boolean size"),
    pytest.param({"max_auth_age": 0}, "max_auth_age: must be a whole number of seconds, 1 or more, not 0", id="age 0"),
    pytest.param({"max_auth_age": True}, "max_auth_age: must be", id="boolean age"),
    pytest.param({"max_auth_age": 1.5}, "max_auth_age: must be", id="fractional age"),
    pytest.param({"max_auth_age": "300"}, "max_auth_age: must be", id="age as a string"),
    pytest.param({"scope": ["a"]}, "scope: is not known; did you mean scopes?", id="an unknown option"),
    pytest.param({"returns": Body}, "returns: is not known; choose from public, scopes,", id="a foreign option"),
    pytest.param({"limits": ["many"]}, "limits[0]: 'many' is not a limit such as '10/minute'", id="unreadable limit"),
    pytest.param({"public": True, "scopes": ["a"]}, NO_CALLER, id="public with scopes"),
    pytest.param({"public": True, "any_scopes": ["a"]}, NO_CALLER, id="public with any_scopes"),
    pytest.param({"public": True, "roles": ["a"]}, NO_CALLER, id="public with roles"),
    pytest.param({"public": True, "claims": {"a": 1}}, NO_CALLER, id="public with claims"),
    pytest.param({"public": True, "principals": ["a"]}, NO_CALLER, id="public with principals"),
    pytest.param({"public": True, "when": lambda _: True}, NO_CALLER, id="public with when"),
    pytest.param({"public": True, "owner": True}, NO_CALLER, id="public with owner"),
    pytest.param({"public": True, "acr_values": ["a"]}, NO_CALLER, id="public with acr_values"),
    pytest.param({"public": True, "max_auth_age": 60}, NO_CALLER, id="public with max_auth_age"),
    pytest.param({"public": True, "cost": "instances", "body": Body}, NO_CALLER, id="public with cost"),
    pytest.param({"cost": "rows", "body": Body}, "cost: names the field 'rows', which", id="cost of an unknown field"),
    pytest.param({"cost": "instances"}, "cost: names the field 'instances', which", id="cost without body"),
    pytest.param(
        {"cost": "instances", "body": Body(many=True)}, "cost: requires a body schema of one", id="cost of a list"
    ),
    pytest.param({"tls": "optional"}, "tls: can be optional only if the policy is public", id="tls with a caller"),
    pytest.param({"public": True, "tls": "off"}, "tls: must be one of 'required', 'optional'", id="tls off"),
    pytest.param({"public": True, "tls": False}, "tls: must be one of 'required', 'optional'", id="tls false"),
    pytest.param({"public": "false"}, "public: must be true or false, not 'false'", id="public as a string"),
    pytest.param({"body": dict}, "body: must be a marshmallow Schema", id="body that is no schema"),
    pytest.param(
        {"body": "no_such_module:Body"},
        "body: cannot import 'no_such_module:Body': No module named 'no_such_module'",
        id="missing module",
    ),
    pytest.param(
        {"body": "Rows"},
        "body: cannot import 'Rows': No module named 'Rows'; write it as 'package.module:Schema'",
        id="no module",
    ),
]


@pytest.mark.parametrize(("options", "fault"), FAULTS)
def test_mistakes_are_rejected_where_they_are_written(options: dict[str, Any], fault: str) -> None:
    """The decorator raises the error, with the path and a remedy."""
    with pytest.raises(ConfigError) as caught:
        protect(**options)
    (problem,) = caught.value.problems
    assert fault in problem


def test_every_mistake_at_once() -> None:
    """One error has them all."""
    with pytest.raises(ConfigError) as caught:
        Policy.build(scope=["a"], limits=["often"], roles="admin", max_auth_age=0)  # type: ignore[call-arg]
    assert len(caught.value.problems) == 4


def test_a_public_route_has_the_options_that_need_no_caller(protected: MakeApp) -> None:
    """Bodies of all callers are checked against schema and limits; a public policy has no access options."""
    app = protected()
    app.add_url_rule(
        "/open",
        view_func=public(body=Body, caps={"max_body_bytes": 40})(lambda payload: payload),
        endpoint="open",
        methods=["POST"],
    )
    client = app.test_client()
    assert client.post("/open", base_url=HTTPS, json={"instances": [1]}).get_json() == {"instances": [1]}
    assert client.post("/open", base_url=HTTPS, json={"instances": ["a"]}).status_code == 422
    assert client.post("/open", base_url=HTTPS, json={"instances": [1] * 40}).status_code == 413
    with pytest.raises(ConfigError, match="public"):
        public(scopes=["a"])  # type: ignore[call-overload]


@pytest.mark.parametrize(("options", "fault"), FAULTS)
def test_mistakes_in_the_configuration(options: dict[str, Any], fault: str) -> None:
    """The same sentence, after the name of the setting and of the route."""
    with pytest.raises(ConfigError) as caught:
        Settings.load({"SECURE_ML_POLICIES": {"/x": options, "/sound": {"scopes": ["predict"]}}})
    (problem,) = caught.value.problems
    assert problem.startswith('SECURE_ML_POLICIES["/x"].')
    assert fault in problem


def test_the_typed_arguments_are_those_of_the_schema() -> None:
    """The options of the type annotations and of the schema are the same."""
    known = schema_of(Policy).fields.keys()
    assert get_type_hints(BuildArguments).keys() == known
    assert get_type_hints(PolicyArguments).keys() == known - {"public"}
    assert get_type_hints(PublicArguments).keys() == (
        known - {"public", "cost", "cost_unit", "refund"} - schema_of(AccessOptions).fields.keys()
    )
    for arguments, kind in (
        (AccessArguments, AccessOptions),
        (CapArguments, CapOptions),
        (CorsArguments, CorsOptions),
        (HeaderArguments, HeaderOptions),
        (LimitArguments, LimitOptions),
        (ScoreArguments, ScoreOptions),
    ):
        assert get_type_hints(arguments).keys() == schema_of(kind).fields.keys()


def test_caps_are_those_of_the_settings() -> None:
    """Each cap has the name and the bounds of the setting that it replaces."""
    for name, field in schema_of(CapOptions).fields.items():
        assert vars(Settings.__dataclass_fields__[name].metadata["field"])["takes"] == vars(field)["takes"]


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_scopes_have_no_order(kind: Any) -> None:
    """In Python, a set is as good as a list."""
    assert Policy.build(scopes=kind(["a", "b"])).access.scopes == {"a", "b"}


def test_a_policy_names_its_scopes() -> None:
    """The required scopes, and the scopes of which any one is sufficient."""
    assert Policy.build(scopes=["a"], any_scopes=["b", "c"]).scopes == {"a", "b", "c"}


def test_one_value_of_a_claim_needs_no_list() -> None:
    """A string is a value, not a list of letters."""
    assert Policy.build(claims={"tenant": "acme"}) == Policy.build(claims={"tenant": ["acme"]})


def test_two_marks_on_one_view_are_rejected() -> None:
    """It would be ambiguous which one applies."""
    for target in (lambda: "ok", Blueprint("pages", "pages"), type("Pages", (MethodView,), {})):
        with pytest.raises(TypeError, match="already has a policy"):
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
    """The loaded value is the keyword argument ``payload``, with the arguments of the URL."""

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
    """A URL rule does not contain the host, so it must not be shared by two hosts."""
    app = protected(Flask("hosts", host_matching=True, static_host="a.example"), POLICIES={"/m": {"public": True}})
    for host in ("a.example", "b.example"):
        app.add_url_rule("/m", endpoint=host, view_func=_view, host=host)
    with pytest.raises(ValueError, match="several hosts"):
        SecureML.check(app)


def test_a_configured_policy_beats_the_blueprints(protected: MakeApp) -> None:
    """The operator can close or open one route of a third-party blueprint."""
    app = protected(POLICIES={"pages.index": {"public": True}})
    pages = protect(scopes=["pages"])(Blueprint("pages", "pages"))
    pages.add_url_rule("/", endpoint="index", view_func=_view)
    app.register_blueprint(pages)
    SecureML.check(app)
    assert app.test_client().get("/", base_url=HTTPS).status_code == 200


def test_routes_name_their_policies(app: Flask) -> None:
    """Every rule and method is listed with its policy."""
    app.add_url_rule("/open", endpoint="open", view_func=public(lambda: "ok"))
    policies = app.extensions["secure_ml"].policies
    found = {(rule.rule, method): policy.public for rule, method, policy in policies.routes()}
    assert found[("/open", "GET")] is True
    assert found[("/static/<path:filename>", "GET")] is False
