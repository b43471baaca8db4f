"""The responses of a route: the view's response, with its score options applied, and problem documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug import exceptions as http

from .. import errors
from ..config import Settings
from ..config.plans import Plan
from ..errors import CODE_HEADER, PROBLEM_JSON, problem_document, slug_and_detail
from ..inputs.fields.arrays import ArrayField
from ..inputs.fields.base64_tensor import Base64Tensor
from ..inputs.fields.categorical import Categorical
from ..policy.options import NO_SCORE_OPTIONS, ScoreOptions
from ..policy.policy import Policy
from ..state import AppState
from .routes import Route
from .sentences import scores, sentence
from .tensors import JsonSchema

if TYPE_CHECKING:
    from apispec.core import Components


_REQUEST_ID = "5f0e0c3c1a5e4d7e9a4b9d3c2f1e0a9b"
_TITLES = {
    400: "The request is malformed.",
    401: "No valid credential.",
    403: "The caller is not permitted to do this.",
    404: "No resource exists at this URL.",
    405: "This URL does not allow the method.",
    406: "Accept allows none of the formats of the response.",
    413: "The body is too large.",
    415: "The body is in a format that is not accepted.",
    422: "The body does not match its schema.",
    429: "Too many requests; wait for the time in Retry-After.",
    500: "The server failed.",
    503: "A dependency is down; wait for the time in Retry-After.",
}
_HEADERS = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    415: ("Accept", "Accept-Encoding"),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
# The 403 responses with a challenge; clear-text requests get none.
_CHALLENGED = frozenset({"insufficient_scope", "forbidden"})


@dataclass(frozen=True)
class ErrorCase:
    """An error code, and the condition under which it is returned."""

    error: http.HTTPException
    when: str

    @property
    def status(self) -> int:
        """The status of the response."""
        return self.error.code or 500

    @property
    def code(self) -> str:
        """The member ``code`` of the response."""
        return slug_and_detail(self.error)[0]


def error_cases(route: Route, state: AppState) -> Iterator[ErrorCase]:
    """Yield the errors that a route can return, in order of status."""
    policy = route.policy
    where = {} if policy.public else {"errors": [{"pointer": "", "message": "The body ends after 40 of 90 bytes."}]}
    yield ErrorCase(errors.MalformedRequest("", members=where), _malformed(policy))
    if not policy.public:
        yield ErrorCase(errors.NotAuthenticated(""), "no credential, or an invalid one")
    yield from _forbidden(policy, state)
    if "{" in route.path:
        yield ErrorCase(http.NotFound(), "no resource exists at this URL")
    yield ErrorCase(http.MethodNotAllowed(), "another method at this URL, from a caller with a credential")
    yield ErrorCase(errors.NotAcceptable(""), "Accept allows none of the formats of the response")
    # Also on a route without a schema: any body is limited, and JSON must be strict.
    yield ErrorCase(errors.PayloadTooLarge(""), "a body over the limits on bytes, values, members or strings")
    yield ErrorCase(errors.UnsupportedMediaType(""), "a body of another media type, charset or content encoding")
    if policy.body is not None:
        found = [{"pointer": "/instances/0/3", "message": "Not a number."}]
        yield ErrorCase(errors.ValidationFailed("", members={"errors": found}), "a body that does not match the schema")
    yield from _limited(policy, state)
    yield ErrorCase(errors.InternalError(""), "an error of the server, without details")
    if not policy.public or _closes(policy, state):
        yield ErrorCase(errors.DependencyUnavailable(""), "a service that authenticates or counts callers is down")


def _malformed(policy: Policy) -> str:
    parts = ["the query is not ASCII"]
    parts += [] if policy.public else ["a credential is malformed, or there are two"]
    return ", ".join([*parts, "the body is malformed"])


def _forbidden(policy: Policy, state: AppState) -> Iterator[ErrorCase]:
    if policy.scopes:
        yield ErrorCase(errors.InsufficientScope(""), "the credential lacks a scope")
    if not policy.public:
        yield ErrorCase(errors.Forbidden(""), "the credential does not permit this request")
    if not policy.public and state.settings.session_login is not None:
        yield ErrorCase(errors.OriginNotAllowed(""), "a session cookie was sent from another origin")
    if state.settings.require_tls:
        yield ErrorCase(errors.TlsRequired(""), "the request was sent in clear text")


def _limited(policy: Policy, state: AppState) -> Iterator[ErrorCase]:
    settings = state.settings
    plans = _plans(policy, state)
    throttled = not policy.public and (settings.failed_auth_limits or settings.failed_key_limits)
    if policy.limits or throttled or any(plan.requests for plan in plans):
        more = ", or too many invalid credentials" if throttled else ""
        yield ErrorCase(errors.RateLimited(""), f"too many requests{more}")
    if policy.cost is not None and any(plan.quotas for plan in plans):
        yield ErrorCase(errors.QuotaExceeded(""), "the body has more rows than remain in the quota")
    if policy.in_flight is not None or any(plan.in_flight is not None for plan in plans):
        yield ErrorCase(errors.TooManyInFlight(""), "too many requests are in flight")
    if settings.anomalies_reject:
        yield ErrorCase(errors.AbnormalUsage(""), "the usage of the caller was unusual")


def _closes(policy: Policy, state: AppState) -> bool:
    """Return True if a limit of the route responds with 503 while the store is down."""
    limits = [*policy.limits, *(limit for plan in _plans(policy, state) for limit in plan.requests)]
    return any((limit.outage or state.settings.limit_outage) == "closed" for limit in limits)


def _plans(policy: Policy, state: AppState) -> list[Plan]:
    """Return the plans that callers of a route can have; anonymous callers have the default plan."""
    found = state.settings.plans
    return [found.get("default", Plan())] if policy.public else list(found.values())


def response_name(found: Sequence[ErrorCase]) -> str:
    """Return the component name of a response: its status and its codes."""
    return ".".join([str(found[0].status), *(each.code for each in found)])


def error_response(found: Sequence[ErrorCase], settings: Settings) -> dict[str, Any]:
    """Return the Response Object for the errors of one status."""
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
    """Return True if responses carry a nonce for the next DPoP proof."""
    return settings.dpop != "off" and settings.dpop_nonce_secret is not None


def _header_names(found: Sequence[ErrorCase], settings: Settings) -> list[str]:
    names = ["X-Request-ID", CODE_HEADER, *_HEADERS.get(found[0].status, ())]
    if found[0].status == HTTPStatus.UNAUTHORIZED and has_nonces(settings):
        names.append("DPoP-Nonce")
    return [*names, "WWW-Authenticate"] if _CHALLENGED & {each.code for each in found} else names


_NPY = "application/x-npy"
_INFERENCE = {"$ref": "#/components/schemas/InferenceResponse"}


def success(
    policy: Policy, declared: dict[str, Any] | None, settings: Settings, components: Components
) -> dict[str, Any]:
    """Return the Response Object of the view's response.

    :param declared: the response schema of the policy; None if the policy has none.
    :param components: the components to which the schemas of masked responses are added.
    """
    found: dict[str, Any] = {
        "description": " ".join(["The response of the view.", *_remarks(policy, settings)]),
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
    }
    if declared is not None:
        schema = MaskedSchemas(components, _options(policy, settings)).of(declared)
        either = {"anyOf": [schema, _INFERENCE]} if _is_inference(policy, settings) else schema
        content: dict[str, Any] = {"application/json": {"schema": either}}
        if _is_one_array(policy):
            content[_NPY] = {"schema": {"contentMediaType": _NPY, "description": "The array, if Accept asks for it."}}
        found["content"] = content
    return found


def _remarks(policy: Policy, settings: Settings) -> list[str]:
    found = [sentence(scores(_options(policy, settings)))]
    if _is_inference(policy, settings):
        found.append("An inference request gets an inference response.")
    return [each for each in found if each]


def _options(policy: Policy, settings: Settings) -> ScoreOptions:
    """Return the score options for callers without an assigned plan."""
    if policy.scores is None:
        return NO_SCORE_OPTIONS
    return policy.scores.stricter(settings.plans.get("default", Plan()).scores)


def _is_inference(policy: Policy, settings: Settings) -> bool:
    """Return True if the route can respond in the Open Inference Protocol, as it does to requests in that format."""
    return policy.body is not None and not policy.body.many and "oip" in settings.wire_formats


def _is_one_array(policy: Policy) -> bool:
    fields = [] if policy.response is None or policy.response.many else list(policy.response.dump_fields.values())
    return len(fields) == 1 and isinstance(fields[0], ArrayField) and _is_written_as_array(fields[0])


def _is_written_as_array(field: ArrayField) -> bool:
    """Return True if the field is serialized as an array of numbers, not as strings or base64."""
    has_strings = isinstance(field, Categorical) and isinstance(field.choices[0], str)
    return bool(field.shape) and not has_strings and not isinstance(field, Base64Tensor)


_LISTS = ("prefixItems", "oneOf", "anyOf", "allOf")
_SINGLE = ("items", "additionalProperties")
_LOWER = ("minimum", "exclusiveMinimum")
_BOUNDS = (*_LOWER, "maximum", "exclusiveMaximum")
_COUNTED = frozenset({"minItems", "prefixItems"})
_LABELS = frozenset({"string", "integer", "boolean", "object", "null"})


class MaskedSchemas:
    """Derives the schemas of responses with score options applied.

    :param components: the components of the document, to which the new schemas are added. Their names contain the
        options, such as ``Prediction.round3``.
    """

    def __init__(self, components: Components, options: ScoreOptions) -> None:
        self._components = components
        self._options = options
        self._suffix = ".".join(_suffix(options))

    def of(self, schema: JsonSchema) -> JsonSchema:
        """Return the schema of a response after masking, for its declared schema."""
        return self._walk(schema) if self._suffix else schema

    def _walk(self, schema: JsonSchema) -> JsonSchema:
        if "$ref" in schema:
            return schema | {"$ref": self._reference(schema["$ref"].rpartition("/")[2])}
        found = {name: self._part(name, each) for name, each in schema.items()}
        if self._options.label_only:
            return _labels(found)
        return self._loosened(found) if "number" in _types(found) else found

    def _part(self, name: str, part: Any) -> Any:
        if name == "properties":
            return {member: self._walk(each) for member, each in part.items()}
        if name in _LISTS:
            return [self._walk(each) for each in part]
        return self._walk(part) if name in _SINGLE and isinstance(part, dict) else part

    def _reference(self, name: str) -> str:
        made = f"{name}.{self._suffix}"
        schemas = self._components.schemas
        if made not in schemas:
            # Added first, because a schema may refer to itself.
            schemas[made] = {}
            schemas[made] |= self._walk(schemas[name])
        return f"#/components/schemas/{made}"

    def _loosened(self, leaf: JsonSchema) -> JsonSchema:
        """Return the schema of a score without constraints that a masked score can violate."""
        found = {name: each for name, each in leaf.items() if self._still_holds(name, each)}
        if self._options.allows_nan:
            found["type"] = sorted(_types(found) | {"null"}, key="null".__eq__)
        return found

    def _still_holds(self, name: str, value: Any) -> bool:
        """Return True if masked scores meet a constraint: ``top_k`` lowers scores, rounding can exceed a bound."""
        if self._options.top_k is not None and name in ("enum", *_LOWER):
            return False
        if self._options.round is not None and name in _BOUNDS:
            return bool(round(value, self._options.round) == value)
        return self._options.round is None or name not in ("enum", "multipleOf")


def _suffix(options: ScoreOptions) -> Iterator[str]:
    if options.label_only:
        yield "label_only"
        return
    if options.top_k is not None:
        yield f"top_k{options.top_k}"
    if options.round is not None:
        yield f"round{options.round}"
    if options.allows_nan:
        yield "nan"


def _labels(schema: JsonSchema) -> JsonSchema:
    """Return an object's schema without members that are scores; members that may be scores become optional."""
    members = schema.get("properties", {})
    kept = {name: _without(each) for name, each in members.items() if not _is_scores(each) or "null" in _types(each)}
    found = schema | ({"properties": kept} if "properties" in schema else {})
    if "required" in schema:
        found["required"] = [name for name in schema["required"] if _is_label(members[name])]
    # The items of a list of scores are removed.
    return found if _is_label(schema) else {name: each for name, each in found.items() if name not in _COUNTED}


def _without(schema: JsonSchema) -> JsonSchema:
    return {"type": "null"} if _is_scores(schema) else schema


def _is_scores(schema: JsonSchema) -> bool:
    """Return True if every value of a member, other than null, is a score."""
    return "number" in _types(schema) or str(schema.get("x-dtype", "")).startswith("float")


def _is_label(schema: JsonSchema) -> bool:
    """Return True if a member is present after its scores are removed."""
    if "$ref" in schema:
        return True
    types = _types(schema)
    if "array" in types:
        return isinstance(schema.get("items"), dict) and _is_label(schema["items"])
    return bool(types) and types <= _LABELS


def _types(schema: JsonSchema) -> set[str]:
    kind = schema.get("type", [])
    return {kind} if isinstance(kind, str) else set(kind)
