"""What is known of one request: the :class:`Exchange`, the caller's :class:`Principal`, and the clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from flask import request
from werkzeug.local import LocalProxy

from .principal import Principal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .errors import SecureMLError
    from .policy.policy import Policy

EXCHANGE_KEY = "flask_secure_ml.exchange"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class Exchange:
    """One request and its answer; each fact has one writer.

    The transport middleware writes the first block, guards the second, the response filters the third.
    ``certificate`` is the client's certificate in DER, from the TLS socket or a trusted proxy; whether its chain was
    verified is not said. ``reply_headers`` are headers that a guard wants on the answer, whatever it will be.
    ``out_of_range`` counts the values that were accepted although they are out of range, by ``outside="clip"`` or
    ``"report"``.
    ``format`` is the wire format of the request's body, and ``format_options`` what that asks of the answer: ``id`` and
    the names of ``outputs`` in the Open Inference Protocol.

    ``answerable`` is True once a response may leave: the guards have run, and admitted the request or rejected it.
    ``target`` is what they ran for before anything beneath the proxy middleware was called, and ``sockets`` what they
    kept from it. ``flask_only`` is True where a policy in code opened Flask and nothing else. ``checked_by`` is the
    pipeline whose guards admitted the request last, and ``charged`` has the limits that were charged, each with its
    key. ``streamed`` is None for a response that did not come from Flask; ``stream_error`` is why the body of a stream
    ended too early.
    """

    request_id: str
    time: float
    started: float
    peer: str
    client: str
    secure: bool
    certificate: bytes | None = None

    guarded: object = None
    target: object = None
    sockets: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False)
    answerable: bool = False
    flask_only: bool = False
    method: str = ""
    endpoint: str | None = None
    path: str = ""
    policy: Policy | None = None
    cleared: Policy | None = None
    checked_by: object = None
    payload: Any = None
    refusal: SecureMLError | None = None
    fault: BaseException | None = None
    challenges: tuple[str, ...] = ()
    reply_headers: dict[str, str] = field(default_factory=dict)
    received_bytes: int = 0
    out_of_range: int = 0
    format: str = "json"
    format_options: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    charged: set[tuple[int, str]] = field(default_factory=set)

    status: int = 0
    code: str | None = None
    streamed: bool | None = None
    stream_error: str | None = None
    finished: float = 0.0

    _principal: Principal | None = None

    @property
    def principal(self) -> Principal | None:
        """The caller, or None for an anonymous one; set once, by authentication."""
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        if self._principal is not None:
            raise RuntimeError("the principal of a request is set once")
        self._principal = principal

    def within(self, time: float, started: float) -> Exchange:
        """Return an exchange for a request that a view makes of an app; the caller is who it was proven to be."""
        return Exchange(
            self.request_id,
            time,
            started,
            self.peer,
            self.client,
            self.secure,
            self.certificate,
            checked_by=self.checked_by,
            challenges=self.challenges,
            _principal=self.principal,
        )

    @property
    def milliseconds(self) -> float:
        """How long the request took, until the response started or, for a stream, until its last byte."""
        return (self.finished - self.started) * 1000


def exchange_of(environ: WSGIEnvironment) -> Exchange | None:
    """Return the exchange that the transport middleware placed, or None when it did not run."""
    return cast("Exchange | None", environ.get(EXCHANGE_KEY))


def _current_exchange() -> Exchange:
    exchange = exchange_of(request.environ)
    if exchange is None:
        raise RuntimeError("no exchange: SecureML.init_app() was not called for this app")
    return exchange


def _current_principal() -> Principal | None:
    return _current_exchange().principal


current_exchange = cast("Exchange", LocalProxy(_current_exchange))
"""The exchange of the request being answered."""

current_principal = cast("Principal", LocalProxy(_current_principal))
"""The caller of the request being answered; false on a public route."""
