"""Which routes are described, and what OpenAPI calls their addresses and their parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from werkzeug.routing import AnyConverter, BaseConverter, IntegerConverter, PathConverter, Rule, UUIDConverter
from werkzeug.routing.converters import NumberConverter

from ..authentication.resource_metadata import ENDPOINT as METADATA
from ..policy.matching import PolicyTable, is_automatic_options
from ..policy.policy import Policy

DESCRIPTION = "secure_ml_openapi"
PAGE = "secure_ml_docs"
ASSET = "secure_ml_docs_asset"

_OWN = frozenset({DESCRIPTION, PAGE, ASSET, METADATA})
# The order in which people look for them; others do not exist in OpenAPI.
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
_NAME = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Route:
    """One operation of the app.

    :param path: the address as OpenAPI writes it, such as ``/jobs/{job_id}``.
    """

    rule: Rule
    path: str
    method: str
    policy: Policy

    @property
    def shape(self) -> str:
        """The address without the names of its parts; OpenAPI cannot tell two of one shape from each other."""
        return _NAME.sub("{}", self.path)


def app_routes(policies: PolicyTable) -> list[Route]:
    """Return the operations of the app's own views, by address and method.

    Left out are static files, what Flask answers by itself (``OPTIONS``, and ``HEAD`` beside ``GET``), and the routes
    of this extension.
    """
    found = [Route(rule, _path(rule), method, policy) for rule, method, policy in policies.routes()]
    described = [each for each in found if _is_described(each.rule, each.method)]
    return sorted(described, key=lambda each: (each.path, _METHODS.index(each.method), each.rule.endpoint))


def _is_described(rule: Rule, method: str) -> bool:
    if rule.endpoint in _OWN or rule.endpoint.rpartition(".")[2] == "static" or method not in _METHODS:
        return False
    if rule.build_only or rule.websocket or rule.alias or rule.redirect_to is not None:
        return False
    if method == "HEAD":
        return "GET" not in (rule.methods or ())
    return not is_automatic_options(rule, method)


def _path(rule: Rule) -> str:
    parts = _parts(rule)
    return "".join(f"{{{text}}}" if is_name else _literal(text) for is_name, text in parts)


def _literal(text: str) -> str:
    return text.replace("{", "%7B").replace("}", "%7D")


def _parts(rule: Rule) -> list[tuple[bool, str]]:
    """Return the pieces of the address, and whether each is a name; before the first ``|`` stands the host."""
    trace: list[tuple[bool, str]] = rule._trace  # noqa: SLF001 - werkzeug tells it nowhere else
    return trace[trace.index((False, "|")) + 1 :]


def path_parameters(rule: Rule, path: str) -> list[dict[str, Any]]:
    """Return a Parameter Object for each name in the address.

    :param path: where the route stands in the description, whose names may be those of another route.
    """
    converters = rule._converters  # noqa: SLF001 - the same
    own = [text for is_name, text in _parts(rule) if is_name]
    return [
        {"name": shown[1:-1], "in": "path", "required": True, "schema": _schema(converters[name])}
        for shown, name in zip(_NAME.findall(path), own, strict=True)
    ]


def _schema(converter: BaseConverter) -> dict[str, Any]:
    """Return what a converter of the address takes; the app's own ones take some text."""
    if isinstance(converter, NumberConverter):
        kind = "integer" if isinstance(converter, IntegerConverter) else "number"
        return {"type": kind} | dict(_bounds(converter))
    if isinstance(converter, UUIDConverter):
        return {"type": "string", "format": "uuid"}
    if isinstance(converter, AnyConverter):
        return {"type": "string", "enum": sorted(converter.items)}
    if isinstance(converter, PathConverter):
        return {"type": "string", "minLength": 1, "description": "May have slashes."}
    return {"type": "string"} | dict(_lengths(converter.regex))


def _bounds(converter: NumberConverter) -> Iterator[tuple[str, float]]:
    least = converter.min if converter.signed or converter.min is not None else 0
    for name, bound in (("minimum", least), ("maximum", converter.max)):
        if bound is not None:
            yield name, bound


def _lengths(regex: str) -> Iterator[tuple[str, int]]:
    found = re.fullmatch(r"\[\^/\]\{(\d+)(,?)(\d*)\}", regex)
    if found is None:
        return
    least, comma, most = found.groups()
    yield "minLength", int(least)
    if most or not comma:
        yield "maxLength", int(most or least)


@dataclass(frozen=True)
class Placed:
    """Where each route stands in the description.

    :param described: each route with its path. Of several addresses that differ only in the names of their parts, all
        stand under the first, because OpenAPI takes them for one.
    :param left_out: those of one such address and one method that another route has there already.
    """

    described: list[tuple[Route, str]]
    left_out: list[Route]


def placed(routes: list[Route]) -> Placed:
    """Return where each route stands."""
    paths: dict[str, str] = {}
    found: dict[tuple[str, str], tuple[Route, str]] = {}
    left_out: list[Route] = []
    for route in routes:
        path = paths.setdefault(route.shape, route.path)
        if found.setdefault((path, route.method), (route, path))[0] is not route:
            left_out.append(route)
    return Placed(list(found.values()), left_out)
