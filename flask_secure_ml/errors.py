"""The errors that reject a request or a configuration, and the problem documents that are sent to clients.

The tree, and the HTTP status of each leaf::

    ConfigError                     start-up: every wrong key at once (also a ValueError)
    SecureMLError                   a werkzeug HTTPException
     +- MalformedRequest            400  malformed_request
     +- NotAuthenticated            401  not_authenticated
     |   +- UnusableCredential      401  not_authenticated
     |   |   +- NonceRequired       401  not_authenticated (also an InvalidProof)
     |   +- InvalidProof            401  not_authenticated
     |   +- StepUpRequired          401  not_authenticated
     +- InsufficientScope           403  insufficient_scope
     +- Forbidden                   403  forbidden
     +- TlsRequired                 403  tls_required
     +- OriginNotAllowed            403  origin_not_allowed
     +- NotAcceptable               406  not_acceptable
     +- PayloadTooLarge             413  payload_too_large
     +- UnsupportedMediaType        415  unsupported_media_type
     +- ValidationFailed            422  validation_failed
     +- RateLimited                 429  rate_limited
     +- QuotaExceeded               429  quota_exceeded
     +- TooManyInFlight             429  too_many_in_flight
     +- AbnormalUsage               429  abnormal_usage
     +- InternalError               500  internal_error
     +- DependencyUnavailable       503  dependency_unavailable

Each error has two descriptions. The public one (``detail``) is a constant of the class, and the only one that is sent
to clients, except for the rule that a malformed body breaks. The private one (``reason``) is for the logs only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from werkzeug import exceptions as http
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

PROBLEM_JSON = "application/problem+json"
CODE_HEADER = "X-Error-Code"
"""The header with the stable code of an error response; it is there even if another error handler writes the body."""

REQUEST_ID_KEY = "flask_secure_ml.request_id"
RETRY_SECONDS = 5
"""The ``Retry-After`` of an outage whose length is unknown, in seconds."""

IANA = "https://iana.org/assignments/http-problem-types#"

Headers = Sequence[tuple[str, str]]


class ConfigError(ValueError):
    """The configuration is not secure. ``problems`` has one sentence for each problem."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("flask-secure-ml is not configured safely:\n" + "\n".join(f"  - {p}" for p in self.problems))


class SecureMLError(http.HTTPException):
    """Base class of every error response.

    :param reason: the private description, for the logs only. It must not contain secrets or values from the client.
    :param headers: extra response headers, such as ``WWW-Authenticate`` or ``Retry-After``.
    :param members: extra members of the problem document (RFC 9457 section 3.2).
    """

    slug: ClassVar[str] = "internal_error"
    detail: ClassVar[str] = "The server could not process this request."
    problem_type: ClassVar[str] = "about:blank"

    def __init__(self, reason: str, *, headers: Headers = (), members: Mapping[str, Any] | None = None) -> None:
        super().__init__(description=self.detail)
        self.reason = reason
        self.extra_headers: tuple[tuple[str, str], ...] = tuple(headers)
        self.members: dict[str, Any] = dict(members or {})

    def get_response(self, environ: Any = None, scope: Any = None) -> Response:
        """Return the problem document (RFC 9457) for this error."""
        return problem_response(self, environ)


class MalformedRequest(SecureMLError, http.BadRequest):
    """The request cannot be parsed: invalid JSON, duplicate members, several credentials.

    :param rule: the description of a malformed body for an authenticated caller; the reason if it is empty.
    """

    slug = "malformed_request"
    detail = "The request is malformed."
    oauth_error: ClassVar[str] = "invalid_request"

    def __init__(self, reason: str, *, rule: str = "", **options: Any) -> None:
        super().__init__(reason, **options)
        self.rule: str = rule or reason


class NotAuthenticated(SecureMLError, http.Unauthorized):
    """There is no credential, or it is invalid, expired or revoked.

    The body is the same for every reason. ``oauth_error`` is the error code in ``WWW-Authenticate`` for the scheme of
    the credential (RFC 6750 section 3.1, RFC 9449 section 7.1, RFC 9470 section 3). ``claimed`` is the key id in an
    invalid API key, even if no such key exists, and empty for other credentials.

    An authenticator raises this class for a credential that is not authentic: it may be a guess, and is counted for the
    network that sent it. For an authentic credential that is rejected anyway, it raises :class:`UnusableCredential`.
    """

    slug = "not_authenticated"
    detail = "Valid credentials are required."
    oauth_error: ClassVar[str] = "invalid_token"
    claimed: str = ""


class UnusableCredential(NotAuthenticated):
    """The credential is authentic, but expired, not valid yet, revoked or for another audience.

    It is not a guess, so it is never counted, and its sender gets 401 even if its network is blocked: clients renew
    credentials only on 401. Raise it only after verifying the secret or the signature. The response is the same as for
    any other 401.
    """


class InvalidProof(NotAuthenticated):
    """The DPoP proof is missing, malformed, stale, replayed or for another request (RFC 9449 section 7.1)."""

    oauth_error = "invalid_dpop_proof"


class NonceRequired(UnusableCredential, InvalidProof):
    """The DPoP proof lacks the nonce that this server requires; the response has one (RFC 9449 section 9).

    The token that came with the proof is valid.
    """

    oauth_error = "use_dpop_nonce"


class StepUpRequired(NotAuthenticated):
    """The operation requires more recent or stronger authentication of the user (RFC 9470)."""

    oauth_error = "insufficient_user_authentication"


class InsufficientScope(SecureMLError, http.Forbidden):
    """The principal lacks a scope that the route requires."""

    slug = "insufficient_scope"
    detail = "The credentials do not allow this operation."


class Forbidden(SecureMLError, http.Forbidden):
    """The principal may not perform this operation, regardless of its scopes."""

    slug = "forbidden"
    detail = "This operation is not allowed."


class TlsRequired(SecureMLError, http.Forbidden):
    """The request was sent in clear text. It is not redirected, because its secrets have been sent already."""

    slug = "tls_required"
    detail = "This service requires HTTPS."


class OriginNotAllowed(SecureMLError, http.Forbidden):
    """The request has a cookie session, and a page of another origin may have made it."""

    slug = "origin_not_allowed"
    detail = "Requests from this origin are not allowed."


class NotAcceptable(SecureMLError, http.NotAcceptable):
    """``Accept`` does not allow any media type of the response."""

    slug = "not_acceptable"
    detail = "No acceptable representation is available."


class PayloadTooLarge(SecureMLError, http.RequestEntityTooLarge):
    """The body is larger than the route accepts."""

    slug = "payload_too_large"
    detail = "The request body is too large."


class UnsupportedMediaType(SecureMLError, http.UnsupportedMediaType):
    """The route does not accept the media type or the content encoding of the body."""

    slug = "unsupported_media_type"
    detail = "The media type or encoding of the request body is not supported."


class ValidationFailed(SecureMLError, http.UnprocessableEntity):
    """The body was parsed, but does not match the schema of the route."""

    slug = "validation_failed"
    detail = "The request body does not match the schema."


class RateLimited(SecureMLError, http.TooManyRequests):
    """The caller exceeded a rate limit."""

    slug = "rate_limited"
    detail = "Too many requests. Slow down and try again later."


class QuotaExceeded(SecureMLError, http.TooManyRequests):
    """The cost of these inputs exceeds the rest of the quota."""

    slug = "quota_exceeded"
    detail = "The quota is used up. Try again later."
    problem_type = IANA + "quota-exceeded"


class TooManyInFlight(SecureMLError, http.TooManyRequests):
    """The caller or the route has the maximum number of requests in flight."""

    slug = "too_many_in_flight"
    detail = "Too many requests are in progress. Try again when one of them has ended."


class AbnormalUsage(SecureMLError, http.TooManyRequests):
    """The usage of the caller was unusual (``SECURE_ML_ANOMALIES``), so it is rejected for some time."""

    slug = "abnormal_usage"
    detail = "The usage of this service was unusual. Try again later."
    problem_type = IANA + "abnormal-usage-detected"


class InternalError(SecureMLError, http.InternalServerError):
    """An unexpected error, or a configuration error that only a request reveals."""

    def __init__(self, reason: str, *, headers: Headers = (), members: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason, headers=headers, members=members)
        self.original_exception: BaseException | None = None


class DependencyUnavailable(SecureMLError, http.ServiceUnavailable):
    """An identity provider or a store that the request needs is down.

    The response always has ``Retry-After``; a default is added if ``headers`` has none.
    """

    slug = "dependency_unavailable"
    detail = "A service that this one depends on is not available. Try again later."
    problem_type = IANA + "temporary-reduced-capacity"

    def __init__(self, reason: str, *, headers: Headers = (), members: Mapping[str, Any] | None = None) -> None:
        if all(name.lower() != "retry-after" for name, _ in headers):
            headers = (*headers, ("Retry-After", str(RETRY_SECONDS)))
        super().__init__(reason, headers=headers, members=members)


class Completed(http.HTTPException):
    """Ends a request with the response of a guard.

    It is not an error, and has no status, so that error handlers ignore it.
    """

    code: int | None = None
    response: Response

    def __init__(self, response: Response) -> None:
        super().__init__(response=response)


_FOREIGN: Mapping[int, tuple[str, str]] = {
    400: (MalformedRequest.slug, MalformedRequest.detail),
    401: (NotAuthenticated.slug, NotAuthenticated.detail),
    403: (Forbidden.slug, Forbidden.detail),
    404: ("not_found", "There is no resource at this URL."),
    405: ("method_not_allowed", "This method is not allowed for this URL."),
    406: (NotAcceptable.slug, NotAcceptable.detail),
    413: (PayloadTooLarge.slug, PayloadTooLarge.detail),
    414: ("uri_too_long", "The URL is too long."),
    415: (UnsupportedMediaType.slug, UnsupportedMediaType.detail),
    417: ("expectation_failed", "The expectation of the request is not supported."),
    422: (ValidationFailed.slug, ValidationFailed.detail),
    429: (RateLimited.slug, RateLimited.detail),
    431: ("headers_too_large", "The headers of the request are too many or too large."),
    500: (SecureMLError.slug, SecureMLError.detail),
    501: ("not_implemented", "The request needs something that is not supported."),
    503: (DependencyUnavailable.slug, DependencyUnavailable.detail),
}
_INTERNAL = 500
_DROPPED = {"content-type", "content-length"}


def own_text(error: http.HTTPException) -> str | None:
    """Return the description that the app gave to its own error.

    For example, ``abort(400, "feature x is missing")`` has one. It is None for errors of this package, for errors with
    the description of their class, and for errors of Werkzeug that quote the request.
    """
    text = vars(error).get("description")
    quotes = isinstance(error, (SecureMLError, http.SecurityError, http.BadRequestKeyError))
    return text if isinstance(text, str) and not quotes else None


def slug_and_detail(error: http.HTTPException) -> tuple[str, str]:
    """Return the stable code and the constant description of any HTTP error."""
    if isinstance(error, SecureMLError):
        return error.slug, error.detail
    status = error.code or 500
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    return _FOREIGN.get(status, (re.sub(r"[^a-z0-9]+", "_", phrase.lower()), f"{phrase}."))


def problem_document(error: http.HTTPException, request_id: str | None) -> dict[str, Any]:
    """Return the members of the problem document (RFC 9457 section 3.1) for any HTTP error.

    The description of the app's own 4xx becomes ``detail``, because its author wrote it for the client; that of a 5xx
    is only for the log.
    """
    slug, detail = slug_and_detail(error)
    if (error.code or _INTERNAL) < _INTERNAL:
        detail = own_text(error) or detail
    document: dict[str, Any] = {
        "type": getattr(error, "problem_type", "about:blank"),
        "title": error.name,
        "status": error.code or 500,
        "detail": detail,
        "code": slug,
    }
    if request_id:
        document["request_id"] = request_id
    return document | getattr(error, "members", {})


def problem_headers(error: http.HTTPException) -> list[tuple[str, str]]:
    """Return the headers of an error: its code, ``Allow``, ``Retry-After``, ``WWW-Authenticate`` and others."""
    own = error.extra_headers if isinstance(error, SecureMLError) else error.get_headers()
    return [(CODE_HEADER, slug_and_detail(error)[0]), *(each for each in own if each[0].lower() not in _DROPPED)]


def problem_response(error: http.HTTPException, environ: WSGIEnvironment | None = None) -> Response:
    """Return the problem document of any HTTP error."""
    document = problem_document(error, (environ or {}).get(REQUEST_ID_KEY))
    response = Response(json.dumps(document), status=error.code or 500, content_type=PROBLEM_JSON)
    for name, value in problem_headers(error):
        response.headers.add(name, value)
    return response
