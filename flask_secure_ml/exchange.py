"""The context of one request: the :class:`Exchange`, and the proxies to the current one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from flask import has_request_context, request
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy

from .errors import REQUEST_ID_KEY, SecureMLError, problem_response, slug_and_detail
from .principal import Principal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.wrappers import Response

    from .config.plans import Plan
    from .policy.policy import Policy

MAX_PRICE = 2**53
"""The maximum price of a request, up to which every store counts exactly."""

EXCHANGE_KEY = "flask_secure_ml.exchange"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class Exchange:
    """One request and its response. Each slot has one writer; everything else only reads it.

    Guards read the exchange and may add to ``reply_headers``. Recorders get it when the response starts.
    """

    # Written by transport/proxy.py, when the exchange is opened.

    request_id: str
    """The id of the request, from a trusted proxy or random."""
    time: float
    """When the request began, in seconds since the epoch."""
    started: float
    """When the request began, on the monotonic clock."""
    peer: str
    """The IP address of the connection; empty for a Unix socket."""
    client: str
    """The IP address of the client, resolved through trusted proxies."""
    secure: bool
    """Whether the client uses TLS."""
    certificate: bytes | None = None
    """The client's certificate in DER, from the TLS socket or a trusted proxy; its chain may not be verified."""
    outer_charges: Sequence[Any] = field(default=(), repr=False)
    """The charges of the enclosing request, if a view made this request while serving another."""

    # Written by transport/gate.py, which decides when the guards run.

    guarded: object = None
    """The Flask request that was guarded last."""
    target: object = None
    """What was guarded before the code beneath the proxy middleware was called: method, mount and path."""
    sockets: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)
    """The parts of the environ that are hidden from the code beneath until Flask runs."""
    answerable: bool = False
    """Whether a response may be sent, because the guards have admitted or rejected the request."""
    flask_only: bool = False
    """Whether only Flask may respond, because the policy in force is public in code."""

    # Written by wiring/hooks.py, which opens and closes a request in Flask.

    method: str = ""
    """The HTTP method as Flask reads it; before the guards run, as the server reads it."""
    endpoint: str | None = None
    """The endpoint in Flask, or the configured path of a mounted app; None for an unknown URL."""
    path: str = ""
    """The path as Flask reads it; before the guards run, as the server reads it."""
    policy: Policy | None = None
    """The policy in force."""
    streamed: bool | None = None
    """Whether the response is a stream; None if Flask's ``after_request`` did not run for it."""
    counted: bool = False
    """Whether the metrics count the request as in flight."""
    finished: float = 0.0
    """When the response started or its stream ended, on the monotonic clock."""

    # Written by pipeline.py.

    cleared: Policy | None = None
    """The policy under which every guard admitted the request."""
    checked_by: object = None
    """The pipeline whose guards admitted the request last."""

    # Written by transport/cors.py, if CORS is configured.

    origin: str | None = None
    """The header ``Origin`` of the request."""
    preflight: Policy | None = None
    """The policy of the request that a CORS preflight asks for; None for any other request."""
    denied: str = ""
    """The reason for a denied CORS preflight, for the log; empty for any other request."""

    # Written by authentication/guard.py. The principal is a property: it is set once.

    credential: str = ""
    """The name of the authenticator whose credential the request has; empty if it has none."""
    challenges: tuple[str, ...] = ()
    """The challenges for an error that requires other credentials."""
    _principal: Principal | None = None
    attempted: str = ""
    """The identity that an invalid credential claims, or empty. It is never the principal."""
    caller: str = ""
    """Who is charged: the id of the principal, or the network of an anonymous caller; empty until authentication."""
    plan: Plan | None = None
    """The plan of the caller; None until authentication."""

    # Written by inputs/guard.py.

    payload: Any = None
    """The validated body, if the route has a schema."""
    received_bytes: int = 0
    """The length of the body as it was sent."""
    input_digest: str = ""
    """The HMAC of the body as it was sent, for the audit log; empty if that is off or the body was not read."""
    out_of_range: int = 0
    """The number of values out of range that were accepted (``outside="clip"`` or ``"report"``)."""
    format: str = "json"
    """The wire format of the body."""
    format_options: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    """The options for the response in the body: ``id`` and ``outputs`` of the Open Inference Protocol."""

    # Written by limits/guard.py.

    deferred: Any = None
    """The tariff of a request whose price is not known yet."""
    limits: Any = None
    """The state of the limits that the response headers report."""
    charges: list[Any] = field(default_factory=list, repr=False)
    """The charges that are not settled yet."""
    lease: bytes = b""
    """The name of the leases that the request holds while it is in flight."""
    rows: int = 0
    """The number of rows that were charged."""

    # Written by guards, each with its own header names.

    reply_headers: dict[str, str] = field(default_factory=dict)
    """Headers for the response, including error responses."""

    # Written by transport/outgoing.py.

    status: int = 0
    """The status that was sent."""
    completed: object = False
    """The Flask request that was guarded last when the headers of its response were completed; False before."""

    # Written by observe/tracing.py.

    trace_id: str = ""
    """The id of the trace of the request; empty if there is none."""
    trace_sampled: bool = False
    """Whether that trace is sampled, so that it can be found by its id."""

    # Written by observe/request_log.

    body_size: int | None = None
    """The length of the response body as Flask returned it, in bytes; None if it is unknown."""

    # Written by transport/response_bodies.py.

    stream_error: str | None = None
    """Why a streamed body ended too early."""

    # Written by exchange.py, in the methods below.

    rejection: SecureMLError | None = None
    """The error that rejected the request; its ``reason`` is private."""
    code: str | None = None
    """The code of the error response."""
    fault: BaseException | None = None
    """The first exception that the app raised and did not handle."""
    model_name: str = ""
    """The name of the model that responded, for the logs; empty if the view did not report it."""
    model_version: str = ""
    """The version of that model; may be empty."""
    handled: BaseException | None = None
    """The last exception that error handlers got, even if none responded to it."""
    used_rows: int | None = None
    """The rows that the view reported with :meth:`charge`; None to charge what was reserved."""
    owed_from: int = 0
    """The index of the first charge of the current request; earlier ones were for another request."""

    @property
    def principal(self) -> Principal | None:
        """The caller, or None for an anonymous one; set once, by authentication."""
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        if self._principal is not None:
            raise RuntimeError("the principal of a request is already set")
        self._principal = principal

    @property
    def milliseconds(self) -> float:
        """How long the request took until the response started or, for a stream, until its last byte."""
        return (self.finished - self.started) * 1000

    @property
    def rejected(self) -> SecureMLError | None:
        """The error with which the guards rejected the request.

        It is None once they admit the request, even at another URL.
        """
        return self.rejection if self.cleared is None else None

    def reject(self, error: HTTPException) -> None:
        """Record the error that the client gets.

        An error of Flask or of another extension has no private reason, so the reason of an earlier rejection is kept.
        """
        self.code = slug_and_detail(error)[0]
        if isinstance(error, SecureMLError):
            self.rejection = error

    def problem(self, error: HTTPException) -> Response:
        """Record the error and return its problem document."""
        self.reject(error)
        return problem_response(error, {REQUEST_ID_KEY: self.request_id})

    def fail(self, error: BaseException) -> None:
        """Record an exception that the app raised and did not handle; only the first one is kept."""
        self.fault = self.fault or error

    def used_model(self, name: str, version: str | int = "") -> None:
        """Record which model responded, for both logs; the audit log has ``name@version``. Views call this."""
        self.model_name, self.model_version = str(name), str(version)

    def handle(self, error: BaseException) -> None:
        """Record an exception that error handlers get."""
        self.handled = error

    def charge(self, rows: int) -> None:
        """Set what the request used, in the unit of ``cost=``.

        The reserved price is corrected to it.

        :raises ValueError: ``rows`` is not a whole number from 0 to 2**53.
        """
        if isinstance(rows, bool) or not isinstance(rows, int) or not 0 <= rows <= MAX_PRICE:
            raise ValueError("charge() takes a whole number from 0 to 2**53")
        self.used_rows = rows

    def clear_charges(self) -> None:
        """Charge the request again, because it has become another one."""
        self.owed_from = len(self.charges)

    def within(self, *, time: float, started: float, method: str, path: str) -> Exchange:
        """Return an exchange with the same caller, for a request that a view makes to an app."""
        return Exchange(
            self.request_id,
            time,
            started,
            self.peer,
            self.client,
            self.secure,
            self.certificate,
            method=method,
            path=path,
            checked_by=self.checked_by,
            outer_charges=(*self.outer_charges, *self.charges),
            challenges=self.challenges,
            _principal=self.principal,
            caller=self.caller,
            plan=self.plan,
        )


def exchange_of(environ: WSGIEnvironment) -> Exchange | None:
    """Return the exchange that the proxy middleware put into the environ, or None if it did not run."""
    exchange: Exchange | None = environ.get(EXCHANGE_KEY)
    return exchange


def exchange_or_none() -> Exchange | None:
    """Return the exchange of the current request, or None outside a request or if the app is not protected."""
    return exchange_of(request.environ) if has_request_context() else None


def require_exchange() -> Exchange:
    """Return the exchange of the current request.

    It is the object itself: a proxy would look it up for each access.

    :raises RuntimeError: there is no request, or the app is not protected.
    """
    environ = request._get_current_object().environ  # type: ignore[attr-defined]
    exchange: Exchange | None = environ.get(EXCHANGE_KEY)
    if exchange is None:
        raise RuntimeError("no exchange: SecureML.init_app() was not called for this app")
    return exchange


def _current_principal() -> Principal | None:
    return require_exchange().principal


current_exchange: Exchange = cast("Exchange", LocalProxy(require_exchange))
"""The exchange of the current request."""

current_principal: Principal = cast("Principal", LocalProxy(_current_principal))
"""The caller of the current request; falsy on a public route."""
