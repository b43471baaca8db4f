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
"""The highest price of a request: up to here every store counts exactly."""

EXCHANGE_KEY = "flask_secure_ml.exchange"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class Exchange:
    """One request and its response. Each slot has one writer; everything else only reads it.

    Guards read the exchange and may add to ``reply_headers``. Recorders get it when the response starts.
    """

    # Written by transport/proxy.py, when the exchange is opened.

    request_id: str
    """The id of the request: of a trusted proxy, or random."""
    time: float
    """When the request began, in seconds since the epoch."""
    started: float
    """The same on the monotonic clock."""
    peer: str
    """The IP address of the connection; empty for a Unix socket."""
    client: str
    """The IP address of the client, resolved through trusted proxies."""
    secure: bool
    """Whether the client uses TLS."""
    certificate: bytes | None = None
    """The client's certificate in DER, from the TLS socket or a trusted proxy; its chain may be unverified."""
    outer_charges: Sequence[Any] = field(default=(), repr=False)
    """What the request was charged that a view serves when it makes this one."""

    # Written by transport/gate.py, which decides when the guards run.

    guarded: object = None
    """The Flask request that was guarded last."""
    target: object = None
    """What was guarded before anything beneath the proxy middleware was called: method, mount and path."""
    sockets: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)
    """The parts of the environ that were withheld from the code beneath until Flask runs."""
    answerable: bool = False
    """Whether a response may leave: the guards admitted the request or rejected it."""
    flask_only: bool = False
    """Whether only Flask may respond: the policy in force is public in code."""

    # Written by wiring/hooks.py, which opens and closes a request in Flask.

    method: str = ""
    """The HTTP method, as Flask reads it; until the guards run, as the server does."""
    endpoint: str | None = None
    """The endpoint of Flask, or the configured path of what is mounted; None for an unknown URL."""
    path: str = ""
    """The path, as Flask reads it; until the guards run, as the server does."""
    policy: Policy | None = None
    """The policy in force."""
    streamed: bool | None = None
    """Whether the response is a stream; None for a response that did not pass Flask's ``after_request``."""
    finished: float = 0.0
    """When the response started or its stream ended, on the monotonic clock."""

    # Written by pipeline.py.

    cleared: Policy | None = None
    """The policy under which every guard admitted the request."""
    checked_by: object = None
    """The pipeline whose guards admitted the request last."""

    # Written by transport/cors.py, where CORS is configured.

    origin: str | None = None
    """The header ``Origin`` of the request."""
    preflight: Policy | None = None
    """The policy of the request that a CORS preflight announces; None for any other request."""

    # Written by authentication/guard.py. The principal is a property: it is set once.

    credential: str = ""
    """The name of the authenticator whose credential the request carries; empty without one."""
    challenges: tuple[str, ...] = ()
    """The challenges of an error that asks for other credentials."""
    _principal: Principal | None = None
    caller: str = ""
    """Who is charged: the id of the principal, or the network of an anonymous caller; empty until authentication."""
    plan: Plan | None = None
    """The plan of the caller; None until authentication."""

    # Written by inputs/guard.py.

    payload: Any = None
    """The validated body, on a route with a schema."""
    received_bytes: int = 0
    """The length of the body as it was sent."""
    input_digest: str = ""
    """The HMAC of the body as it was sent, for the audit log; empty where it is off or the body was not read."""
    out_of_range: int = 0
    """How many values were accepted although they are out of range (``outside="clip"`` or ``"report"``)."""
    format: str = "json"
    """The wire format of the body."""
    format_options: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    """What the body asks of the response: ``id`` and ``outputs`` of the Open Inference Protocol."""

    # Written by limits/guard.py.

    deferred: Any = None
    """The tariff of a request whose price is not known yet."""
    limits: Any = None
    """What the headers of the response say about limits."""
    charges: list[Any] = field(default_factory=list, repr=False)
    """What was charged, until it is settled."""
    lease: bytes = b""
    """The name of the leases that the request holds while it is in flight."""
    rows: int = 0
    """How many rows were charged."""

    # Written by guards, each under names of its own.

    reply_headers: dict[str, str] = field(default_factory=dict)
    """Headers for the response, whatever it will be."""

    # Written by transport/outgoing.py.

    status: int = 0
    """The status that was sent."""
    completed: object = False
    """The Flask request that was guarded last when the headers of its response were completed; False before."""

    # Written by observe/tracing.py.

    trace_id: str = ""
    """The id of the trace of which the request is part; empty without one."""

    # Written by observe/request_log.

    body_size: int | None = None
    """Bytes of the body of the response as Flask returned it; None where that is not known."""

    # Written by transport/response_bodies.py.

    stream_error: str | None = None
    """Why the body of a stream ended too early."""

    # Written by exchange.py, in the methods below.

    rejection: SecureMLError | None = None
    """The error that rejected the request; its ``reason`` is private."""
    code: str | None = None
    """The code of the error response."""
    fault: BaseException | None = None
    """The first exception that the app raised and did not handle."""
    model: str = ""
    """The name and the version of the model that responded, for the audit log."""
    handled: BaseException | None = None
    """The exception that error handlers got last, whether they responded to it or not."""
    used_rows: int | None = None
    """What the view reported with :meth:`charge`; None for what was reserved."""
    owed_from: int = 0
    """Charges before this one were for another request."""

    @property
    def principal(self) -> Principal | None:
        """The caller, or None for an anonymous one; set once, by authentication."""
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        if self._principal is not None:
            raise RuntimeError("the principal of a request is set once")
        self._principal = principal

    @property
    def milliseconds(self) -> float:
        """How long the request took, until the response started or, for a stream, until its last byte."""
        return (self.finished - self.started) * 1000

    @property
    def rejected(self) -> SecureMLError | None:
        """The error with which the guards rejected the request; None once they admit it, perhaps at another URL."""
        return self.rejection if self.cleared is None else None

    def reject(self, error: HTTPException) -> None:
        """Record the error that the client gets.

        An error of Flask or of another extension has no private reason, so the reason of an earlier rejection stays.
        """
        self.code = slug_and_detail(error)[0]
        if isinstance(error, SecureMLError):
            self.rejection = error

    def problem(self, error: HTTPException) -> Response:
        """Record the error and return its problem document."""
        self.reject(error)
        return problem_response(error, {REQUEST_ID_KEY: self.request_id})

    def fail(self, error: BaseException) -> None:
        """Record an exception that the app raised and did not handle; the first one counts."""
        self.fault = self.fault or error

    def used_model(self, name: str, version: str = "") -> None:
        """Report which model responded; views call it, and the audit log has it as ``name@version``."""
        self.model = f"{name}@{version}" if version else name

    def handle(self, error: BaseException) -> None:
        """Record an exception that error handlers get."""
        self.handled = error

    def charge(self, rows: int) -> None:
        """Report what the request used, in the unit of ``cost=``; the price that was reserved is corrected to it.

        :raises ValueError: it is not a whole number from 0 to 2**53.
        """
        if isinstance(rows, bool) or not isinstance(rows, int) or not 0 <= rows <= MAX_PRICE:
            raise ValueError("charge() takes a whole number from 0 to 2**53")
        self.used_rows = rows

    def clear_charges(self) -> None:
        """Charge the request again: another one is made of it."""
        self.owed_from = len(self.charges)

    def within(self, *, time: float, started: float, method: str, path: str) -> Exchange:
        """Return an exchange for a request that a view makes of an app; its caller is the same."""
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
    """Return the exchange that the proxy middleware put into the environ; None where it did not run."""
    exchange: Exchange | None = environ.get(EXCHANGE_KEY)
    return exchange


def exchange_or_none() -> Exchange | None:
    """Return the exchange of the current request; None outside of a request, or where the app is not protected."""
    return exchange_of(request.environ) if has_request_context() else None


def require_exchange() -> Exchange:
    """Return the exchange of the current request itself: each access through the proxy looks it up again.

    :raises RuntimeError: there is no request, or none of a protected app.
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
