"""Checks of policies: public routes, scopes, plans, costs and response schemas."""

from __future__ import annotations

from collections.abc import Iterator

from marshmallow import Schema, fields

from ...inputs.unseen_changes import unseen_changes
from ...policy.matching import DEFAULT
from ..finding import Check, Found, Severity, Where, setting
from ..setup import Route, Setup

WRITING = ("POST", "PUT", "PATCH", "DELETE")
_STATIC = "static"


def public_writes(setup: Setup) -> Iterator[Found]:
    """Yield the public routes with methods that change state."""
    for route in setup.routes:
        writing = tuple(each for each in route.methods if each in WRITING)
        if route.policy.public and writing:
            yield Found(setup.at(route, writing), f"{route.rule} is public for {' and '.join(writing)}")


def unreachable_scopes(setup: Setup) -> Iterator[Found]:
    """Yield the routes with a scope that no configured caller has.

    Access tokens, sessions with their own scopes and authenticators of the app may grant any scope.
    """
    settings = setup.settings
    login = settings.session_login
    if settings.token_issuers or setup.declared_authenticators or (login and login.scopes_from):
        return
    if setup.described and setup.state.keys is not None:
        return
    held = {scope for record in setup.usable_keys for scope in record.scopes}
    held |= {scope for client in settings.mtls_clients for scope in client.scopes}
    held |= set(login.scopes) if login else set()
    if not held:
        # If no key was created yet, such as in a build, the scopes of callers are unknown.
        return
    for route in setup.routes:
        if route.own:
            continue
        access = route.policy.access
        missing = access.scopes - held
        if access.any_scopes and not access.any_scopes & held:
            missing |= access.any_scopes
        if missing:
            yield Found(setup.at(route), f"no caller has the scope {', '.join(sorted(missing))} of {route.rule}")


def unused_plans(setup: Setup) -> Iterator[Found]:
    """Yield the plans that no configured caller has; future keys and other authenticators may have them."""
    settings = setup.settings
    if setup.declared_authenticators or not setup.keys:
        return
    used = {"default", *(record.plan for record in setup.keys), *(each.plan for each in settings.mtls_clients)}
    used |= {plan for issuer in settings.token_issuers for _, plan in issuer.plans}
    used |= {settings.session_login.plan} if settings.session_login else set()
    for name in settings.plans.keys() - used:
        yield Found(Where("plan", name), f"no caller has the plan {name!r}")


def free_batches(setup: Setup) -> Iterator[Found]:
    """Yield the routes that accept any number of rows at the cost of one request."""
    for route in setup.routes:
        policy = route.policy
        if policy.body is None or policy.cost is not None or policy.public:
            continue
        for name in _batches(policy.body):
            fix = f'@protect(..., cost="{name}")' if policy.body.fields.get(name) else "@protect(..., cost=len)"
            yield Found(setup.at(route), f"{route.rule} accepts any number of {name} at the cost of one request", fix)


def _batches(schema: Schema) -> Iterator[str]:
    """Yield the fields of a body with an unlimited number of rows; one list of numbers is a row."""
    if schema.many:
        yield "objects"
    for name, field in schema.fields.items():
        shape = getattr(field, "shape", None)
        is_batch = isinstance(shape, tuple) and len(shape) > 1 and not isinstance(shape[0], int)
        is_list = isinstance(field, fields.List) and isinstance(field.inner, (fields.List, fields.Nested))
        if is_batch or is_list or (isinstance(field, fields.Nested) and field.many):
            yield name


def no_response_schema(setup: Setup) -> Iterator[Found]:
    """Yield the routes of models without a response schema."""
    for route in setup.routes:
        if route.policy.body is not None and route.policy.response is None:
            yield Found(setup.at(route), f"{route.rule} has no response schema")


def default_policies(setup: Setup) -> Iterator[Found]:
    """Yield the routes without a policy of their own."""
    for route in setup.routes:
        if route.source == DEFAULT and route.endpoint.rpartition(".")[2] != _STATIC:
            yield Found(setup.at(route), f"{route.rule} has the default policy")


def unseen(setup: Setup) -> Iterator[Found]:
    """Yield the configured schemas whose changes do not reach a view that reads the body itself."""
    for sentence in unseen_changes(setup.settings.policies):
        yield Found(setting("policies"), sentence)


def open_metrics(setup: Setup) -> Iterator[Found]:
    """Yield the routes that expose metrics without authentication."""
    for route in setup.routes:
        if route.policy.public and _is_of_metrics(route, setup):
            yield Found(setup.at(route), f"{route.rule} serves metrics without authentication")


def _is_of_metrics(route: Route, setup: Setup) -> bool:
    return route.rule.rstrip("/") in {"/metrics", setup.settings.metrics}


CHECKS = (
    Check(
        "SML301",
        Severity.WARNING,
        "A public route changes state",
        "Anyone who can reach the service can change state, and no record identifies the caller.",
        '@protect(scopes=["write"])',
        public_writes,
    ),
    Check(
        "SML302",
        Severity.WARNING,
        "No caller has the scope of a route",
        "All requests to the route are rejected with 403.",
        "flask secure-ml keys create --client NAME --scope SCOPE",
        unreachable_scopes,
    ),
    Check(
        "SML303",
        Severity.NOTE,
        "A plan is not used",
        "Its limits apply to no caller. A caller that should have it may still have the plan default.",
        "flask secure-ml keys create --client NAME --plan PLAN",
        unused_plans,
    ),
    Check(
        "SML304",
        Severity.WARNING,
        "A request costs the same for any number of rows",
        "A request with thousands of rows counts as one request against limits, and does not count against quotas.",
        '@protect(..., cost="instances")',
        free_batches,
    ),
    Check(
        "SML305",
        Severity.NOTE,
        "A model has no response schema",
        "The app sends everything that the view returns, including fields that a later version of the model adds.",
        "@protect(..., response=PredictResponse)",
        no_response_schema,
    ),
    Check(
        "SML306",
        Severity.NOTE,
        "A route has the default policy",
        "Every authenticated caller may use it, regardless of scopes.",
        '@protect(scopes=["predict"])',
        default_policies,
    ),
    Check(
        "SML307",
        Severity.WARNING,
        "A schema changes a body that the view reads itself",
        "The view gets the body as the client sent it, without the changes of the schema.",
        "@protect(body=...) on the view, which gets the payload",
        unseen,
    ),
    Check(
        "SML308",
        Severity.WARNING,
        "Metrics are public",
        "They expose routes, plans, versions and traffic.",
        'SECURE_ML_METRICS = "/metrics", without a policy that makes it public: callers need the scope metrics',
        open_metrics,
    ),
)
