"""The policy of a route: who may call it, and what it accepts and returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import isclass, iscoroutinefunction
from typing import Any, ClassVar, Literal, TypedDict, Unpack

from marshmallow import Schema, ValidationError

from ..errors import ConfigError
from .cors import NO_CORS, CorsArguments, CorsOptions
from .fields import Boolean, Choice, Integer, Options, StrictField, String
from .headers import HeaderArguments, HeaderOptions, HeadersOption, Preset
from .limits import LimitArguments, LimitList, Limits
from .options import (
    NO_CAPS,
    NO_SCORE_OPTIONS,
    AccessArguments,
    AccessOptions,
    CapArguments,
    CapOptions,
    ScoreArguments,
    ScoreOptions,
    imported,
)
from .schema import Check, Problem, inlined, load_options, option, sentences

MARK = "__secure_ml_policy__"
"""The attribute of a view, a class or a blueprint with its policy."""

AnySchema = type[Schema] | Schema | str
CostFunction = Callable[[Any], int]
"""Returns the price of a request for its payload."""

TLS = ("required", "optional")
"""Whether requests in clear text are rejected."""


class PublicArguments(TypedDict, total=False):
    """The arguments of any :class:`Policy` as users write them."""

    body: AnySchema | None
    limits: Sequence[str | LimitArguments]
    in_flight: int | None
    limit_group: str | None
    caps: CapArguments | None
    response: AnySchema | None
    scores: ScoreArguments | Literal[False] | None
    cors: CorsArguments | Literal[False] | None
    headers: HeaderArguments | Preset | None
    tls: Literal["required", "optional"]


class PolicyArguments(AccessArguments, PublicArguments, total=False):
    """The arguments of a :class:`Policy` that is not public."""

    cost: str | int | CostFunction | None
    cost_unit: Literal["rows", "elements"]
    refund: Literal["errors", "failures", "never"]


class BuildArguments(PolicyArguments, total=False):
    """The arguments of :meth:`Policy.build`."""

    public: bool


class SchemaOption(StrictField):
    """A marshmallow schema: a class, an instance, or the import name of one."""

    def __init__(self) -> None:
        super().__init__("a marshmallow Schema, or the import name of one")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Schema:
        found = imported(value) if isinstance(value, str) else value
        schema = found() if isclass(found) else found
        if not isinstance(schema, Schema):
            raise self.wrong(value)
        return schema


class CostOption(StrictField):
    """The price of a request: a field of the body, a number, or a function of the payload."""

    def __init__(self) -> None:
        super().__init__("the name of a field, a number, or a function of the payload")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and ":" in value:
            value = imported(value)
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        is_function = callable(value) and not iscoroutinefunction(value)
        if not (is_number or is_function or (isinstance(value, str) and value.strip())):
            raise self.wrong(value)
        return value


class ScoresOption(Options):
    """The options of scores; false for a response that is not from the model."""

    def __init__(self) -> None:
        super().__init__(ScoreOptions, minimum=1, nullable=True)
        self.takes = 'an object such as {"round": 3, "top_k": 2}, or false'

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return None if value is False else super()._deserialize(value, attr, data, **kwargs)


class CorsOption(Options):
    """The options of CORS; false if no other origin may read a response."""

    def __init__(self) -> None:
        super().__init__(CorsOptions, nullable=True)
        self.takes = 'an object such as {"origins": ["https://app.example.com"]}, or false'

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return NO_CORS if value is False else super()._deserialize(value, attr, data, **kwargs)


def check_openness(policy: Policy) -> Iterator[Problem]:
    """Yield a problem if a public policy has options for the caller."""
    if policy.public and (policy.access != AccessOptions() or policy.cost):
        yield ("public",), "is for routes without authentication, so the policy cannot have access options and a cost"


def check_tls(policy: Policy) -> Iterator[Problem]:
    """Yield a problem if a credential could be sent in clear text."""
    if policy.tls == "optional" and not policy.public:
        yield ("tls",), "can be optional only if the policy is public: credentials must not be sent in clear text"


def check_cost(policy: Policy) -> Iterator[Problem]:
    """Yield a problem if the rows for ``cost`` cannot be counted."""
    if not isinstance(policy.cost, str):
        if callable(policy.cost) and policy.body is None:
            yield ("cost",), "is a function of the payload, so the policy requires a body schema"
        if policy.cost_unit != "rows":
            yield ("cost_unit",), "is for a cost that names a field"
        return
    if policy.body is None or policy.cost not in policy.body.fields:
        yield ("cost",), f"names the field {policy.cost!r}, which the body schema does not have"
    elif policy.body.many:
        yield ("cost",), "requires a body schema of one object; put the rows into one of its fields"


@dataclass(frozen=True)
class Policy:
    """The policy of one route.

    :param public: no credential is needed; transport, limits and the limits of the body still apply.
    :param access: who may call.
    :param body: the marshmallow schema of the request body; the view gets the loaded value as ``payload``.
    :param limits: rate limits of this route for one caller, such as ``600/minute``.
    :param cost: the price that is charged against the plan's quotas: the field of ``body`` whose rows are counted, a
        number, or a function that returns it for the payload (from configuration, an import name such as
        ``package.module:function``).
    :param cost_unit: ``elements`` to count the values of the field rather than its rows.
    :param refund: which responses refund the price: ``errors`` (500 and above, the default), ``failures`` (400 and
        above), or ``never``. The request itself still counts.
    :param in_flight: the maximum number of requests in flight to this route, from all callers.
    :param limit_group: routes with the same name count ``limits`` together.
    :param caps: the maxima of this route, by the names of the settings, such as ``max_body_bytes``.
    :param response: the marshmallow schema of the response; only its fields are sent.
    :param scores: the precision of the scores of the response, in addition to what the caller's plan allows; None for a
        response that is not from the model, to which no such options apply, not even those of a plan.
    :param cors: which other origins may call the route from a browser, instead of all of ``SECURE_ML_CORS``, which must
        be set; false for none.
    :param headers: the security headers of the response, instead of ``SECURE_ML_HEADERS``: ``page``, or an object.
    :param tls: ``optional`` for a public route that also responds in clear text, such as a probe of a kubelet.
    """

    cross_checks: ClassVar[tuple[Check, ...]] = (check_openness, check_tls, check_cost)

    public: bool = option(Boolean(), False)
    access: AccessOptions = inlined(AccessOptions)
    body: Schema | None = option(SchemaOption(), None)
    limits: Limits = option(LimitList(), ())
    cost: str | int | CostFunction | None = option(CostOption(), None)
    cost_unit: str = option(Choice("rows", "elements"), "rows")
    refund: str = option(Choice("errors", "failures", "never"), "errors")
    in_flight: int | None = option(Integer(1), None)
    limit_group: str | None = option(String(), None)
    caps: CapOptions = option(Options(CapOptions, minimum=1, nullable=True), NO_CAPS)
    response: Schema | None = option(SchemaOption(), None)
    scores: ScoreOptions | None = option(ScoresOption(), NO_SCORE_OPTIONS)
    cors: CorsOptions | None = option(CorsOption(), None)
    headers: HeaderOptions | None = option(HeadersOption(nullable=True), None)
    tls: str = option(Choice(*TLS), "required")

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes in the policy: those that are all required, and those of which one is."""
        return self.access.scopes | self.access.any_scopes

    @cached_property
    def requirement(self) -> str:
        """The requirement for callers, for records: the scopes, ``authenticated`` or ``public``."""
        return "public" if self.public else " ".join(sorted(self.scopes)) or "authenticated"

    @classmethod
    def build(cls, **options: Unpack[BuildArguments]) -> Policy:
        """Return a policy from its options, including those of :class:`AccessOptions`.

        :raises ConfigError: a line for each option that is unknown, wrong or contradicts another.
        """
        try:
            return load_options(cls, options)
        except ValidationError as error:
            raise ConfigError(sentences(error.messages)) from None
