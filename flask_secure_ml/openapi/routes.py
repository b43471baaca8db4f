"""The documented routes of an app, with OpenAPI paths and path parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from werkzeug.routing import AnyConverter, BaseConverter, IntegerConverter, PathConverter, Rule, UUIDConverter
from werkzeug.routing.converters import NumberConverter

from ..policy.matching import OWN_ENDPOINTS, PolicyTable, is_automatic_options
from ..policy.policy import Policy

DESCRIPTION = "secure_ml_openapi"
PAGE = "secure_ml_docs"
ASSET = "secure_ml_docs_asset"

# All methods that OpenAPI 3.1 supports, in the usual order.
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
_NAME = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Route:
    """One operation of the app.

    :param path: the path as in OpenAPI, such as ``/jobs/{job_id}``.
    """

    rule: Rule
    path: str
    method: str
    policy: Policy

    @property
    def shape(self) -> str:
        """The path without parameter names; OpenAPI treats paths of the same shape as identical."""
        return _NAME.sub("{}", self.path)


def app_routes(policies: PolicyTable) -> list[Route]:
    """Return the operations of the app's own views, sorted by path and method.

    Static files, methods that Flask implements itself (``OPTIONS``, and ``HEAD`` for ``GET``) and the routes of this
    extension are omitted.
    """
    found = [Route(rule, _path(rule), method, policy) for rule, method, policy in policies.routes()]
    described = [each for each in found if _is_described(each.rule, each.method)]
    return sorted(described, key=lambda each: (each.path, _METHODS.index(each.method), each.rule.endpoint))


def _is_described(rule: Rule, method: str) -> bool:
    if (
        rule.endpoint.startswith(OWN_ENDPOINTS)
        or rule.endpoint.rpartition(".")[2] == "static"
        or method not in _METHODS
    ):
        return False
    if rule.build_only or rule.websocket or rule.alias or rule.redirect_to is not None:
        return False
    if method == "HEAD":
        return "GET" not in (rule.methods or ())
    return not is_automatic_options(rule, method)


def _path(rule: Rule) -> str:
    parts = _parts(rule)
    return "".join(f"{{{part}}}" if is_name else _literal(part) for is_name, part in parts)


def _literal(part: str) -> str:
    return part.replace("{", "%7B").replace("}", "%7D")


def _parts(rule: Rule) -> list[tuple[bool, str]]:
    """Return the parts of the path, each with a flag for parameter names; the host is before the first ``|``."""
    trace: list[tuple[bool, str]] = rule._trace  # noqa: SLF001 - werkzeug has no public attribute for it
    return trace[trace.index((False, "|")) + 1 :]


def path_parameters(rule: Rule, path: str) -> list[dict[str, Any]]:
    """Return a Parameter Object for each parameter of the path.

    :param path: the path of the route in the document; its parameter names may be those of another route.
    """
    converters = rule._converters  # noqa: SLF001 - the same
    own = [part for is_name, part in _parts(rule) if is_name]
    return [
        {"name": described[1:-1], "in": "path", "required": True, "schema": _schema(converters[name])}
        for described, name in zip(_NAME.findall(path), own, strict=True)
    ]


def _schema(converter: BaseConverter) -> dict[str, Any]:
    """Return the schema of the values that a converter accepts; a custom converter accepts strings."""
    if isinstance(converter, NumberConverter):
        kind = "integer" if isinstance(converter, IntegerConverter) else "number"
        return {"type": kind} | dict(_bounds(converter))
    if isinstance(converter, UUIDConverter):
        return {"type": "string", "format": "uuid"}
    if isinstance(converter, AnyConverter):
        return {"type": "string", "enum": sorted(converter.items)}
    if isinstance(converter, PathConverter):
        return {"type": "string", "minLength": 1, "description": "May contain slashes."}
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
class Paths:
    """The path of each route in the document.

    :param described: each route with its path. Paths that differ only in parameter names are one path in OpenAPI, so
        all of them are listed under the first.
    :param left_out: routes that would repeat a method of such a path.
    """

    described: list[tuple[Route, str]]
    left_out: list[Route]


def described_paths(routes: list[Route]) -> Paths:
    """Return the path of each route in the document."""
    paths: dict[str, str] = {}
    found: dict[tuple[str, str], tuple[Route, str]] = {}
    left_out: list[Route] = []
    for route in routes:
        path = paths.setdefault(route.shape, route.path)
        if found.setdefault((path, route.method), (route, path))[0] is not route:
            left_out.append(route)
    return Paths(list(found.values()), left_out)
