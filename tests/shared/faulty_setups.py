"""Setups with one fault each, and the same setups without it: the table of the offline checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from flask import Flask
from marshmallow import Schema

from flask_secure_ml import SecureML, protect, public
from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.checks.finding import Severity
from flask_secure_ml.checks.offline import OFFLINE
from flask_secure_ml.checks.run import run
from flask_secure_ml.checks.setup import Setup
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.principal import Clock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock, MemorySink
from stored_keys import stored_key
from support import RANDOM_SECRET, NameAuthenticator

DAY = 86_400.0


class Rows(Schema):
    """Any number of rows."""

    instances = Tensor((None, 2), max_items=100)


class Scores(Schema):
    """A score of each row."""

    scores = Tensor((None,), dtype="float64")


@dataclass
class Builder:
    """Builds one setup, which is correct unless the arguments introduce a fault.

    :param folder: the directory of its files.
    """

    folder: Path
    clock: Clock = field(default_factory=FakeClock)

    def build(
        self,
        app: Flask | None = None,
        *,
        environ: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
        key: dict[str, Any] | None = None,
        declared: bool = False,
        **settings: Any,
    ) -> Setup:
        """Return the setup of a protected app.

        :param config: configuration keys of others than this package.
        :param key: changes to the only API key, which by default has the scope predict and expires in 90 days.
        :param declared: the app has a custom authenticator.
        :param settings: settings of this package, without the prefix.
        """
        app = app or Flask("model_app", static_folder=None)
        sound = {
            "API_KEYS": str(self.folder / "keys.json"),
            "API_KEY_PEPPER": "env:PEPPER",
            "STORE_URI": f"sqlite:{self.folder}/state.db",
        }
        app.config.update({f"SECURE_ML_{name}": value for name, value in (sound | settings).items()} | (config or {}))
        pepper = SecretRing(Secret("env:PEPPER"))
        if key is not None or not (self.folder / "keys.json").exists():
            options: dict[str, Any] = {"scopes": ["predict"], "lifetime": 90 * DAY} | (key or {})
            stored_key(FileKeyStore(self.folder / "keys.json"), pepper, self.clock, **options)
        parts: list[Any] = [NameAuthenticator()] if declared else []
        SecureML(clock=self.clock, sink=MemorySink(), authenticators=parts).init_app(app)
        return Setup(app, state_of(app), environ or {}, self.folder)


def app_with(*views: tuple[str, Callable[..., Any]], methods: tuple[str, ...] = ("POST",)) -> Flask:
    """Return an app with views at paths."""
    app = Flask("model_app", static_folder=None)
    for number, (path, view) in enumerate(views):
        app.add_url_rule(path, f"view{number}", view, methods=list(methods))
    return app


def reported(setup: Setup) -> Iterator[str]:
    """Yield the ids of the errors and warnings of a setup, and of its notes."""
    return (each.check.id for each in run(OFFLINE, setup))


def serious(setup: Setup) -> set[str]:
    """Return the ids of the errors and warnings of a setup."""
    return {each.check.id for each in run(OFFLINE, setup) if each.severity != Severity.NOTE}


Build = Callable[[Builder], Setup]


def _sound(builder: Builder) -> Setup:
    return builder.build()


@dataclass(frozen=True)
class Case:
    """One fault: the id of its finding, a setup with the fault, and the same setup without it.

    :param also: other findings for the same fault.
    """

    id: str
    faulty: Build
    fixed: Build = _sound
    also: frozenset[str] = frozenset()


def _model(**options: Any) -> Flask:
    given: dict[str, Any] = {"body": Rows, "response": Scores, "cost": "instances", "scopes": ["predict"]} | options
    return app_with(("/predict", protect(**given)(lambda payload: payload)))


def _plain(view: Callable[[], str], path: str = "/view", methods: tuple[str, ...] = ("GET",)) -> Flask:
    return app_with((path, view), methods=methods)


def of_flask_cors(module: str) -> Any:
    """Return a function that is defined in a module of flask-cors, as far as Python can tell."""
    made: dict[str, Any] = {"__name__": f"flask_cors.{module}"}
    exec("def made(response=None): return response", made)
    return made["made"]


def _with_flask_cors() -> Flask:
    app = Flask("model_app", static_folder=None)
    app.after_request(of_flask_cors("extension"))
    return app


def _with_testing() -> Flask:
    app = Flask("model_app", static_folder=None)
    app.testing = True
    return app


def _debugged() -> Flask:
    app = Flask("model_app", static_folder=None)
    app.debug = True
    return app


def _session(**config: Any) -> Build:
    def build(builder: Builder) -> Setup:
        return builder.build(
            config={"SECRET_KEY": RANDOM_SECRET, **config}, SESSION_LOGIN={"user": "user", "scopes": ["predict"]}
        )

    return build


def _with(**options: Any) -> Build:
    return lambda builder: builder.build(**options)


def _routes(make: Callable[[], Flask], **options: Any) -> Build:
    return lambda builder: builder.build(make(), **options)


ISSUER = {
    "issuer": "https://as.example",
    "audience": "https://api.example",
    "algorithms": ["RS256"],
    "jwks_uri": "https://as.example/jwks",
}
OKTA = {"provider": "okta", "issuer": "https://as.example/oauth2/a", "audience": "https://api.example"}
POD = ISSUER | {"provider": "kubernetes"}
NAMED_POD = POD | {"required_claims": {"sub": "system:serviceaccount:batch:scorer"}}
CLIENT = {"client": "trainer", "sha256": "ab" * 32}
MEMORY = {"STORE_URI": "memory:"}
CSP = "Content-Security-Policy"
OPEN_PLAN = {"default": {"requests": [{"limit": "5/minute", "outage": "open"}]}}


def _issuer(**options: Any) -> Build:
    return _with(TOKEN_ISSUERS=[ISSUER | options])


def _undecided() -> Flask:
    return _plain(lambda: "ok")


class Clipping(Schema):
    """A schema that changes values."""

    x = Tensor((1,), maximum=1, outside="clip")


def _foreign(**policy: Any) -> Build:
    view: dict[str, Any] = {"scopes": ["predict"], "body": f"{__name__}:Clipping", **policy}
    return _routes(lambda: _plain(lambda: "ok", methods=("POST",)), POLICIES={"/view": view})


class Layer:
    """WSGI middleware."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.inner(environ, start_response)


def _around(builder: Builder) -> Setup:
    setup = builder.build(OUTER_MIDDLEWARE=[f"{__name__}.Layer"])
    setup.app.wsgi_app = Layer(setup.app.wsgi_app)  # type: ignore[method-assign]
    return setup


def _beneath(**settings: Any) -> Build:
    def build(builder: Builder) -> Setup:
        app = Flask("model_app", static_folder=None)
        app.wsgi_app = Layer(app.wsgi_app)  # type: ignore[method-assign]
        return builder.build(app, **settings)

    return build


def _capacity(measured: int) -> Build:
    """Return a setup with a plan and a route for 100 requests per second."""
    plans = {"default": {"requests": ["200/second", "6000/minute"]}, "gold": {"requests": ["100/second"]}}
    return _routes(
        lambda: _model(limits=["6000/minute"]),
        PLANS=plans,
        DEPLOY={"measured_rate": measured},
        key={"plan": "gold", "scopes": ["predict"]},
    )


TRANSPORT = (
    Case("SML101", _with(REQUIRE_TLS=False, config={"SESSION_COOKIE_SECURE": True})),
    Case("SML102", _routes(_debugged)),
    Case("SML103", _routes(_with_testing)),
    Case("SML104", _with(REQUIRE_TLS=False), _with(REQUIRE_TLS=False, config={"SESSION_COOKIE_SECURE": True})),
    Case("SML105", _with(TRUSTED_PROXIES=["10.0.0.0/8"]), _with(TRUSTED_PROXIES=["10.0.3.0/24", "104.16.0.0/13"])),
    Case(
        "SML106",
        _with(CLIENT_CERTIFICATE_HEADER="Client-Cert", MTLS_CLIENTS=[CLIENT]),
        _with(CLIENT_CERTIFICATE_HEADER="Client-Cert", MTLS_CLIENTS=[CLIENT], TRUSTED_PROXIES=["10.0.3.0/24"]),
    ),
    Case(
        "SML107",
        _with(MTLS_CLIENTS=[CLIENT], TRUSTED_PROXIES=["10.0.3.0/24"]),
        _with(MTLS_CLIENTS=[CLIENT]),
    ),
    Case("SML108", _with(HSTS_MAX_AGE=60)),
    Case("SML109", _around),
    Case("SML110", _beneath(), _beneath(MOUNTS=["/tensorboard"])),
)
AUTHENTICATION = (
    Case("SML201", _with(API_KEYS=None), _with(API_KEYS=None, declared=True)),
    Case("SML202", _with(FAILED_AUTH_LIMITS=[])),
    Case("SML203", _with(key={"plan": "lost"}), _with(key={"plan": "default"})),
    Case("SML204", _with(key={"lifetime": 3 * DAY}), _with(key={"lifetime": 30 * DAY})),
    Case("SML205", _with(key={"lifetime": None}), _with(key={"lifetime": 30 * DAY})),
    Case(
        "SML206",
        _routes(_debugged, API_KEY_PEPPER=RANDOM_SECRET),
        _routes(_debugged, API_KEY_PEPPER="env:PEPPER"),
    ),
    Case(
        "SML207",
        _with(STORE_URI="redis://:hunter2hunter2@127.0.0.1:1/0"),
        _with(STORE_URI="redis://127.0.0.1:1/0", STORE_PASSWORD="env:PEPPER"),
    ),
    Case("SML208", _session(SECRET_KEY="short"), _session()),
    Case("SML209", _session(SESSION_COOKIE_SAMESITE="None"), _session()),
    Case("SML210", _session(SESSION_COOKIE_HTTPONLY=False), _session()),
    Case("SML211", _session(SESSION_COOKIE_DOMAIN="example.com"), _session()),
    Case("SML214", lambda builder: builder.build(API_KEYS=str(builder.folder / "lost.json"))),
    Case("SML221", _issuer(jwks_uri="http://127.0.0.1:1/jwks", insecure_http=True), _issuer()),
    Case("SML222", _issuer(private_network=True), _issuer()),
    Case("SML223", _issuer(proxy="http://p.example"), _issuer()),
    Case("SML224", _with(TOKEN_ISSUERS=[POD]), _with(TOKEN_ISSUERS=[NAMED_POD])),
    Case("SML225", _issuer(audience="account"), _issuer()),
    Case("SML226", _with(TOKEN_ISSUERS=[OKTA]), _issuer()),
)
POLICIES = (
    Case(
        "SML301",
        _routes(lambda: _plain(public(lambda: "ok"), methods=("POST",))),
        _routes(lambda: _plain(public(lambda: "ok"))),
    ),
    Case(
        "SML302",
        _routes(lambda: _model(scopes=["explain"])),
        _routes(lambda: _model(scopes=["explain"]), key={"scopes": ["predict", "explain"]}),
    ),
    Case("SML303", _with(PLANS={"default": {"requests": ["5/minute"]}, "gold": {"requests": ["9/minute"]}})),
    Case("SML304", _routes(lambda: _model(cost=None)), _routes(_model)),
    Case("SML305", _routes(lambda: _model(response=None)), _routes(_model)),
    Case("SML306", _routes(_undecided), _routes(lambda: _plain(protect(scopes=["predict"])(lambda: "ok")))),
    Case("SML307", _foreign(), _foreign(body=f"{__name__}:Rows", cost="instances")),
    Case(
        "SML308",
        _routes(lambda: _plain(public(lambda: "ok"), "/metrics")),
        _with(METRICS="/metrics", key={"scopes": ["predict", "metrics"]}),
    ),
)
STORES = (
    Case("SML401", _with(STORE_URI="redis://stores.example"), _with(STORE_URI="rediss://stores.example")),
    Case("SML402", _with(**MEMORY), also=frozenset({"SML405"})),
    Case("SML403", _with(**MEMORY, environ={"WEB_CONCURRENCY": "4"}), _with(environ={"WEB_CONCURRENCY": "4"})),
    Case(
        "SML404",
        _with(**MEMORY, TOKEN_ISSUERS=[ISSUER], DPOP="accept", RESOURCE_URI="https://api.example"),
        _with(TOKEN_ISSUERS=[ISSUER], DPOP="accept", RESOURCE_URI="https://api.example"),
        frozenset({"SML402", "SML405"}),
    ),
    Case("SML405", _with(config={"RATELIMIT_STORAGE_URI": "memory:"})),
    Case("SML406", _with(LIMIT_OUTAGE="open")),
    Case("SML407", _with(PLANS=OPEN_PLAN)),
    Case("SML408", _with(PLANS={"default": {}})),
    Case(
        "SML632",
        _with(DEPLOY={"request_timeout": 60}, environ={"GUNICORN_CMD_ARGS": "--timeout 30"}),
        _with(DEPLOY={"request_timeout": 30}, environ={"GUNICORN_CMD_ARGS": "--timeout 30"}),
    ),
    Case("SML411", _capacity(99), _capacity(100)),
    Case(
        "SML410",
        _with(LIMIT_WORKERS=8, environ={"WEB_CONCURRENCY": "4"}),
        _with(LIMIT_WORKERS=4, environ={"WEB_CONCURRENCY": "4"}),
    ),
    Case(
        "SML409",
        _with(METRICS="/metrics", environ={"WEB_CONCURRENCY": "2"}),
        _with(METRICS="/metrics", environ={"WEB_CONCURRENCY": "2", "PROMETHEUS_MULTIPROC_DIR": "/run/metrics"}),
    ),
)
BROWSERS = (
    Case("SML501", _routes(_with_flask_cors)),
    Case(
        "SML502",
        _routes(lambda: _plain(protect(wraps(lambda: "shared")(of_flask_cors("decorator"))))),
        _routes(lambda: _plain(protect(lambda: "shared"))),
    ),
    Case("SML503", _with(CORS={"origins": ["http://app.example"]}), _with(CORS={"origins": ["https://app.example"]})),
    Case("SML504", _with(CORS={"origins": ["*"]}), _with(CORS={"origins": ["https://app.example"]})),
    Case(
        "SML506", _with(HEADERS={"values": {CSP: "default-src *"}}), _with(HEADERS={"values": {CSP: "default-src a"}})
    ),
    Case(
        "SML505",
        _with(CORS={"origins": ["https://app.example"], "credentials": True}),
        _with(CORS={"origins": ["https://app.example"]}),
    ),
)


def _changed(key: str, value: Any) -> Build:
    def build(builder: Builder) -> Setup:
        setup = builder.build()
        setup.app.config[key] = value
        return setup

    return build


def _in_the_working_directory(builder: Builder) -> Setup:
    # The file exists; only its path is relative.
    return builder.build(API_KEYS=os.path.relpath(builder.folder / "keys.json"))


UNREAD = (
    Case("SML614", _in_the_working_directory),
    Case("SML623", _with(AUDIT_CHECKPOINT_SINKS=["stdout"])),
    Case("SML621", _with(environ={"FLASK_SECURE_ML_CORS": "{}"}), _with(environ={"FLASK_SECURE_ML_API_KEYS": "x"})),
    Case("SML622", _changed("SECURE_ML_CORS", {"origins": []}), _changed("CORS", "of another extension")),
)
CASES_OF_SETTINGS = (*UNREAD, *TRANSPORT, *AUTHENTICATION, *POLICIES, *STORES, *BROWSERS)
