"""Authorization: every case of ``tests/corpus/authorization``, and functions of the app."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Request
from werkzeug.routing import Map, Rule

from authorization_hooks import owns_job
from flask_secure_ml import Exchange, Policy, Principal, SecureML, protect, public
from flask_secure_ml.authorization import AuthorizationGuard
from flask_secure_ml.errors import DependencyUnavailable, Forbidden, SecureMLError
from flask_secure_ml.testing import FakeClock, MemorySink
from support import HTTPS, MakeApp

CORPUS = Path(__file__).parent / "corpus" / "authorization"
Case = dict[str, Any]
SETS = {"scopes", "roles", "endpoints"}


class PrincipalAuthenticator:
    """Believes ``X-Test-Principal``, the JSON of a principal."""

    name = "test"
    challenge = "Bearer"

    def find(self, request: Request, exchange: Exchange) -> object | None:
        return request.headers.get("X-Test-Principal")

    def verify(self, credential: object, exchange: Exchange) -> Principal:
        return principal_of(json.loads(str(credential)))


def principal_of(given: Mapping[str, Any]) -> Principal:
    usual: dict[str, Any] = {"kind": "jwt", "issuer": "https://issuer.example", "subject": "ada"}
    return Principal(**usual | {name: frozenset(value) if name in SETS else value for name, value in given.items()})


def cases() -> list[Any]:
    files = sorted(CORPUS.glob("*.json"))
    return [
        pytest.param(case, id=f"{path.stem}: {case['id']}") for path in files for case in json.loads(path.read_text())
    ]


def app_for(options: Mapping[str, Any], protected: MakeApp, where: str) -> Flask:
    """Return an app with three views; the options apply to reading a job."""
    settings: dict[str, Any] = {"POLICIES": {"job": options}} if where == "configured" else {}
    app = protected(parts={"authenticators": [PrincipalAuthenticator()]}, **settings)
    mark: Callable[[Any], Any] = protect(**options) if where == "code" else lambda view: view
    app.add_url_rule("/jobs/<job_id>", endpoint="job", view_func=mark(lambda job_id: "read"))
    remove = protect(roles=["admin"])(lambda job_id: "removed")
    app.add_url_rule(
        "/jobs/<job_id>", endpoint="remove", view_func=remove, methods=["DELETE"], provide_automatic_options=False
    )
    app.add_url_rule("/other", endpoint="other", view_func=lambda: "other")
    return app


@pytest.mark.parametrize("where", ["code", "configured"])
@pytest.mark.parametrize("case", cases())
def test_case(case: Case, where: str, protected: MakeApp) -> None:
    """An option has the same effect in code and in SECURE_ML_POLICIES; the challenge has the requirement."""
    client = app_for(case["terms"], protected, where).test_client()
    headers = dict(case.get("headers", {}))
    if case["principal"] is not None:
        headers["X-Test-Principal"] = json.dumps(case["principal"])
    response = client.open(
        case.get("url", "/jobs/1"), method=case.get("method", "GET"), base_url=HTTPS, headers=headers
    )
    assert response.status_code == case["status"]
    if "answer" in case:
        assert response.text == case["answer"]
    if "code" in case and case.get("method") != "HEAD":
        assert response.json is not None
        assert response.json["code"] == case["code"]
    if "error" in case:
        assert response.headers.getlist("WWW-Authenticate") == [f'Bearer realm="model", {case["error"]}']


# --- the guard alone ---------------------------------------------------------------------------------------


class Asked:
    """A function that records its arguments and returns a fixed result."""

    def __init__(self, response: object) -> None:
        self.answer = response
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> Any:
        self.asked.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def new_request(rule: str | None = "/jobs/<job_id>", view_args: dict[str, Any] | None = None) -> Request:
    request = Request({})
    request.url_rule = None if rule is None else Rule(rule, endpoint="job")
    if request.url_rule is not None:
        Map([request.url_rule])
    request.view_args = view_args
    return request


def ask(
    policy: Policy | None,
    principal: Principal | None,
    *,
    owner: Callable[..., Any] | None = None,
    request: Request | None = None,
    challenges: tuple[str, ...] = ('Bearer realm="model"', 'ApiKey realm="model"'),
) -> SecureMLError | None:
    """Ask the guard with plain objects; return its rejection."""
    exchange = Exchange("r1", 0.0, 0.0, "192.0.2.1", "192.0.2.1", secure=True, policy=policy, challenges=challenges)
    if principal is not None:
        exchange.principal = principal
    try:
        AuthorizationGuard(owner, FakeClock()).check(request or new_request(), exchange)
    except SecureMLError as rejection:
        return rejection
    return None


ADA = principal_of({})
RESPONSES = [
    pytest.param(True, True, id="true"),
    pytest.param(False, False, id="false"),
    pytest.param(None, False, id="nothing"),
    pytest.param(1, False, id="one"),
    pytest.param("yes", False, id="text"),
    pytest.param([True], False, id="list"),
    pytest.param(RuntimeError("broken"), False, id="raises"),
]


@pytest.mark.parametrize(("response", "allowed"), RESPONSES)
def test_only_true_passes_the_predicate(response: object, allowed: bool) -> None:
    """``when`` gets the principal; any result other than True rejects."""
    when = Asked(response)
    rejection = ask(Policy.build(when=when), ADA)
    assert when.asked == [(ADA,)]
    assert (rejection is None) is allowed
    assert allowed or isinstance(rejection, Forbidden)


@pytest.mark.parametrize(("response", "allowed"), RESPONSES)
@pytest.mark.parametrize("declared", [True, False], ids=["of SecureML", "of the policy"])
def test_only_true_passes_the_owner_hook(response: object, allowed: bool, declared: bool) -> None:
    """``owner`` gets the principal and the arguments of the URL (STANDARDS API1)."""
    hook = Asked(response)
    policy = Policy.build(owner=True if declared else hook)
    rejection = ask(policy, ADA, owner=hook if declared else None, request=new_request(view_args={"job_id": "7"}))
    assert [(who, dict(what)) for who, what in hook.asked] == [(ADA, {"job_id": "7"})]
    assert (rejection is None) is allowed
    assert allowed or isinstance(rejection, Forbidden)


def test_a_policys_own_hook_is_asked_instead_of_the_general_one() -> None:
    """The nearest one responds alone."""
    general, own = Asked(True), Asked(False)
    assert ask(Policy.build(owner=own), ADA, owner=general) is not None
    assert (len(own.asked), general.asked) == (1, [])


def test_a_hook_cannot_change_what_the_view_gets() -> None:
    """The checked value is the one that is used."""

    def forge(principal: Principal, view_args: Any) -> bool:
        view_args["job_id"] = "1"
        return True

    request = new_request(view_args={"job_id": "2"})
    assert isinstance(ask(Policy.build(owner=forge), ADA, request=request), Forbidden)
    assert request.view_args == {"job_id": "2"}


def test_a_failing_hook_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its trace, and without telling the client."""
    with caplog.at_level(logging.ERROR):
        rejection = ask(Policy.build(owner=Asked(RuntimeError("the database is broken"))), ADA)
    assert rejection is not None
    assert "broken" not in rejection.get_response().get_data(as_text=True)
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_hooks_own_rejection_goes_out() -> None:
    """A hook whose database is down may raise a 503."""
    rejection = ask(Policy.build(owner=Asked(DependencyUnavailable("the database is down"))), ADA)
    assert isinstance(rejection, DependencyUnavailable)


def test_hooks_are_asked_last() -> None:
    """A caller without the scope, role or step-up learns nothing about objects, and causes no lookup."""
    hook = Asked(True)
    for options in (
        {"scopes": ["a"]},
        {"roles": ["a"]},
        {"claims": {"a": 1}},
        {"when": Asked(False)},
        {"max_auth_age": 1},
    ):
        assert ask(Policy.build(owner=hook, **options), ADA) is not None
    assert hook.asked == []


def test_public_routes_ask_nothing() -> None:
    """They have no principal, and no hook is called."""
    assert ask(Policy.build(public=True), None) is None


@pytest.mark.parametrize("policy", [Policy(), None], ids=["default policy", "no policy"])
def test_without_a_principal_nothing_passes(policy: Policy | None) -> None:
    """If authentication was left out by mistake, authorization does not open the route."""
    assert isinstance(ask(policy, None), Forbidden)
    assert ask(policy, ADA) is None


def test_the_step_up_challenge_comes_first() -> None:
    """RFC 9470 section 3: 401 in the scheme that was used; the other schemes stay on offer."""
    rejection = ask(Policy.build(acr_values=["b", "a"], max_auth_age=60), ADA)
    assert rejection is not None
    response = rejection.get_response()
    assert response.status_code == 401
    assert response.headers.getlist("WWW-Authenticate") == [
        'Bearer realm="model", error="insufficient_user_authentication", acr_values="b a", max_age="60"',
        'ApiKey realm="model"',
    ]


@pytest.mark.parametrize(
    ("challenges", "expected"),
    [
        pytest.param(('ApiKey realm="model"',), 'ApiKey realm="model", error="insufficient_scope"', id="scheme used"),
        pytest.param((), 'Bearer error="insufficient_scope"', id="none known"),
    ],
)
def test_every_403_is_challenged(challenges: tuple[str, ...], expected: str) -> None:
    """RFC 6750 section 3: a credential that does not allow access gets WWW-Authenticate."""
    rejection = ask(Policy.build(roles=["admin"]), ADA, challenges=challenges)
    assert rejection is not None
    assert dict(rejection.extra_headers) == {"WWW-Authenticate": expected}


@pytest.mark.parametrize(
    ("options", "principal", "words"),
    [
        pytest.param({"scopes": ["a", "b"]}, {"scopes": ["a"]}, "missing scope: b", id="scope"),
        pytest.param({"any_scopes": ["a", "b"]}, {}, "none of: a b", id="any scope"),
        pytest.param({"roles": ["a", "b"]}, {}, "none of the roles: a, b", id="role"),
        pytest.param({"claims": {"tenant": "a"}}, {"claims": {"tenant": "s3cret"}}, "the claim 'tenant'", id="claim"),
        pytest.param({"principals": ["x"]}, {}, "for other principals", id="principal"),
        pytest.param({}, {"endpoints": []}, "for other endpoints", id="endpoint"),
        pytest.param({"acr_values": ["a"]}, {"claims": {"acr": "s3cret"}}, "authentication context", id="context"),
        pytest.param({"max_auth_age": 1}, {}, "too long ago", id="age"),
        pytest.param({"owner": True}, {}, "SecureML has none", id="no owner hook"),
        pytest.param({"owner": Asked(False)}, {}, "did not return True for this object", id="owner"),
        pytest.param({"when": Asked(False)}, {}, "predicate", id="when"),
    ],
)
def test_reasons(options: dict[str, Any], principal: dict[str, Any], words: str) -> None:
    """The log says which term was not met, and no value of a token."""
    rejection = ask(Policy.build(**options), principal_of(principal))
    assert rejection is not None
    assert words in rejection.reason
    assert "s3cret" not in rejection.reason


# --- the whole app ----------------------------------------------------------------------------------------


def test_the_owner_hook_of_the_app(protected: MakeApp) -> None:
    """SecureML(owner=...) decides for ``owner=True``, in the code and in the configuration."""
    app = protected(
        parts={"authenticators": [PrincipalAuthenticator()], "owner": owns_job}, POLICIES={"second": {"owner": True}}
    )
    app.add_url_rule("/a/<job_id>", endpoint="first", view_func=protect(owner=True)(lambda job_id: "ok"))
    app.add_url_rule("/b/<job_id>", endpoint="second", view_func=lambda job_id: "ok")
    SecureML.check(app)
    client = app.test_client()
    for path, status in (("/a/1", 200), ("/b/1", 200), ("/a/2", 403), ("/b/2", 403)):
        response = client.get(path, base_url=HTTPS, headers={"X-Test-Principal": "{}"})
        assert response.status_code == status


def test_a_missing_owner_hook_closes_its_routes_only(protected: MakeApp) -> None:
    """403 there, and an error of SecureML.check; the other routes response."""
    app = protected(parts={"authenticators": [PrincipalAuthenticator()]})
    app.add_url_rule("/a/<job_id>", endpoint="first", view_func=protect(owner=True)(lambda job_id: "ok"))
    app.add_url_rule("/b", endpoint="second", view_func=lambda: "ok")
    client = app.test_client()
    found = [
        client.get(path, base_url=HTTPS, headers={"X-Test-Principal": "{}"}).status_code for path in ("/a/1", "/b")
    ]
    assert found == [403, 200]
    with pytest.raises(ValueError, match=r"'first' has a policy with owner=True, which requires SecureML\(owner=...\)"):
        SecureML.check(app)


def test_a_predicate_in_the_configuration(protected: MakeApp) -> None:
    """app.config of Python code may hold a function."""
    policies = {"view": {"when": lambda principal: principal.subject == "ada"}}
    app = protected(parts={"authenticators": [PrincipalAuthenticator()]}, POLICIES=policies)
    app.add_url_rule("/x", endpoint="view", view_func=lambda: "ok")
    client = app.test_client()
    for subject, status in (("ada", 200), ("bob", 403)):
        headers = {"X-Test-Principal": json.dumps({"subject": subject})}
        assert client.get("/x", base_url=HTTPS, headers=headers).status_code == status


def test_the_reason_is_logged_and_not_told(protected: MakeApp, sink: MemorySink) -> None:
    """The client reads one constant text for every term."""
    app = protected(parts={"authenticators": [PrincipalAuthenticator()]}, POLICIES={"view": {"roles": ["admin"]}})
    app.add_url_rule("/x", endpoint="view", view_func=lambda: "ok")
    response = app.test_client().get("/x", base_url=HTTPS, headers={"X-Test-Principal": "{}"})
    assert response.json is not None
    assert response.json["detail"] == "This operation is not allowed."
    assert "admin" not in response.text
    assert "none of the roles: admin" in sink.lines[-1]


def test_a_public_route_has_no_options(protected: MakeApp) -> None:
    """Whatever its blueprint asks."""
    app = protected()
    app.add_url_rule("/open", view_func=public(lambda: "ok"))
    assert app.test_client().get("/open", base_url=HTTPS).status_code == 200


def test_the_realm(protected: MakeApp) -> None:
    """SECURE_ML_REALM is named in the challenge."""
    response = protected(REALM="digits").test_client().get("/x", base_url=HTTPS)
    assert response.headers["WWW-Authenticate"] == 'Test realm="digits"'
