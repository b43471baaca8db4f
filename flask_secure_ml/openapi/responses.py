"""The refusals that can come from a route, as they are answered: problem documents, with their codes and headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug import exceptions as http

from .. import errors
from ..config import Settings
from ..config.plans import Plan
from ..errors import PROBLEM_JSON, problem_document, slug_and_detail
from ..inputs.fields.arrays import ArrayField
from ..inputs.fields.base64_tensor import Base64Tensor
from ..inputs.fields.categorical import Categorical
from ..policy.options import NO_SCORE_OPTIONS, ScoreOptions
from ..policy.policy import Policy
from ..state import AppState
from .answered import Answered
from .routes import Route
from .words import scores, sentence

if TYPE_CHECKING:
    from apispec.core import Components


_REQUEST_ID = "5f0e0c3c1a5e4d7e9a4b9d3c2f1e0a9b"
_TITLES = {
    400: "The request is malformed.",
    401: "No valid credential.",
    403: "The caller may not do this.",
    404: "There is nothing at this address.",
    405: "This address has other methods.",
    406: "Accept allows no format of the answer.",
    413: "The body is too large.",
    415: "The body is in a format that is not taken.",
    422: "The body is not what its schema says.",
    429: "Too much; wait as long as Retry-After says.",
    500: "The server failed.",
    503: "Something that is needed is down; wait as long as Retry-After says.",
}
_HEADERS = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    415: ("Accept", "Accept-Encoding"),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
# 403 names these beside a challenge; nothing is asked of one who came in clear text.
_CHALLENGED = frozenset({"insufficient_scope", "forbidden"})


@dataclass(frozen=True)
class Refusal:
    """One code, and when it comes."""

    error: http.HTTPException
    when: str

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.error.code or 500

    @property
    def code(self) -> str:
        """The member ``code`` of the answer."""
        return slug_and_detail(self.error)[0]


def refusals(route: Route, state: AppState) -> Iterator[Refusal]:
    """Yield what can be answered instead of what the view answers, by status."""
    policy = route.policy
    yield Refusal(errors.MalformedRequest(""), _malformed(policy))
    if not policy.public:
        yield Refusal(errors.NotAuthenticated(""), "no credential, or one that is not valid")
    yield from _forbidden(policy, state)
    if "{" in route.path:
        yield Refusal(http.NotFound(), "the address names nothing that exists")
    yield Refusal(http.MethodNotAllowed(), "another method at this address, from a caller with a credential")
    yield Refusal(errors.NotAcceptable(""), "Accept rules out every format of the answer")
    # Also where no body is asked for: what comes is held to the caps, and JSON to its rules.
    yield Refusal(errors.PayloadTooLarge(""), "a body with more bytes, values, members or text than the caps allow")
    yield Refusal(errors.UnsupportedMediaType(""), "a body of another media type, charset or content encoding")
    if policy.body is not None:
        found = [{"pointer": "/instances/0/3", "message": "Not a number."}]
        yield Refusal(errors.ValidationFailed("", members={"errors": found}), "well formed, and not what is asked for")
    yield from _limited(policy, state)
    yield Refusal(errors.InternalError(""), "a fault of the server; nothing of it is told")
    counted = policy.limits or any(plan.requests for plan in _plans(policy, state))
    if not policy.public or (counted and state.settings.limit_outage == "closed"):
        yield Refusal(errors.DependencyUnavailable(""), "what tells callers apart or counts them is down")


def _malformed(policy: Policy) -> str:
    parts = ["the query is not ASCII"]
    parts += [] if policy.public else ["a credential is malformed, or there are two"]
    return ", ".join([*parts, "a body breaks its format"])


def _forbidden(policy: Policy, state: AppState) -> Iterator[Refusal]:
    if policy.scopes:
        yield Refusal(errors.InsufficientScope(""), "the credential lacks a scope")
    if not policy.public:
        yield Refusal(errors.Forbidden(""), "the credential is for something else")
    if state.settings.require_tls:
        yield Refusal(errors.TlsRequired(""), "the request came in clear text")


def _limited(policy: Policy, state: AppState) -> Iterator[Refusal]:
    settings = state.settings
    plans = _plans(policy, state)
    throttled = not policy.public and (settings.failed_auth_limits or settings.failed_key_limits)
    if policy.limits or throttled or any(plan.requests for plan in plans):
        more = ", or too many invalid credentials" if throttled else ""
        yield Refusal(errors.RateLimited(""), f"too many requests{more}")
    if policy.cost is not None and any(plan.quotas for plan in plans):
        yield Refusal(errors.QuotaExceeded(""), "the rows of this body are more than is left of the quota")


def _plans(policy: Policy, state: AppState) -> list[Plan]:
    """Return the plans that callers of a route can have; without a credential, that is the default one."""
    found = state.settings.plans
    return [found.get("default", Plan())] if policy.public else list(found.values())


def response_name(found: Sequence[Refusal]) -> str:
    """Return the name of a response among the components: its status and its codes."""
    return ".".join([str(found[0].status), *(each.code for each in found)])


def response(found: Sequence[Refusal], settings: Settings) -> dict[str, Any]:
    """Return the Response Object for the refusals of one status."""
    status = found[0].status
    codes = [each.code for each in found]
    what = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
    return {
        "description": f"{_TITLES[status]} " + " ".join(f"`{each.code}`: {each.when}." for each in found),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in _header_names(found, settings)},
        "content": {
            PROBLEM_JSON: {
                "schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, what]},
                "examples": {
                    each.code: {"summary": each.when, "value": problem_document(each.error, _REQUEST_ID)}
                    for each in found
                },
            }
        },
    }


def has_nonces(settings: Settings) -> bool:
    """Tell whether answers carry a nonce for the next DPoP proof."""
    return settings.dpop != "off" and settings.dpop_nonce_secret is not None


def _header_names(found: Sequence[Refusal], settings: Settings) -> list[str]:
    names = ["X-Request-ID", *_HEADERS.get(found[0].status, ())]
    if found[0].status == HTTPStatus.UNAUTHORIZED and has_nonces(settings):
        names.append("DPoP-Nonce")
    return [*names, "WWW-Authenticate"] if _CHALLENGED & {each.code for each in found} else names


_NPY = "application/x-npy"
_INFERENCE = {"$ref": "#/components/schemas/InferenceResponse"}


def success(
    policy: Policy, returns: dict[str, Any] | None, settings: Settings, components: Components
) -> dict[str, Any]:
    """Return the Response Object of an answer.

    :param returns: the schema that the policy declares for answers; without it, nothing is known of their form.
    :param components: where schemas go that the terms of outputs make of it.
    """
    found: dict[str, Any] = {
        "description": " ".join(["What the view answers.", *_remarks(policy, settings)]),
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
    }
    if returns is not None:
        schema = Answered(components, _terms(policy, settings)).of(returns)
        either = {"anyOf": [schema, _INFERENCE]} if _is_inference(policy, settings) else schema
        content: dict[str, Any] = {"application/json": {"schema": either}}
        if _is_one_array(policy):
            content[_NPY] = {
                "schema": {"contentMediaType": _NPY, "description": "The one array, if Accept asks for it."}
            }
        found["content"] = content
    return found


def _remarks(policy: Policy, settings: Settings) -> list[str]:
    found = [sentence(scores(_terms(policy, settings)))]
    if _is_inference(policy, settings):
        found.append("An inference request is answered with an inference response.")
    return [each for each in found if each]


def _terms(policy: Policy, settings: Settings) -> ScoreOptions:
    """Return the terms for a caller without a plan of its own."""
    if policy.scores is None:
        return NO_SCORE_OPTIONS
    return policy.scores.stricter(settings.plans.get("default", Plan()).scores)


def _is_inference(policy: Policy, settings: Settings) -> bool:
    """Tell whether the answer can be one of the Open Inference Protocol, as that to a request of it is."""
    return policy.body is not None and not policy.body.many and "oip" in settings.wire_formats


def _is_one_array(policy: Policy) -> bool:
    fields = [] if policy.response is None or policy.response.many else list(policy.response.dump_fields.values())
    return len(fields) == 1 and isinstance(fields[0], ArrayField) and _is_written_as_array(fields[0])


def _is_written_as_array(field: ArrayField) -> bool:
    """Tell whether a value of the field leaves as an array of numbers, and not as text or in base64."""
    texts = isinstance(field, Categorical) and isinstance(field.choices[0], str)
    return bool(field.shape) and not texts and not isinstance(field, Base64Tensor)
