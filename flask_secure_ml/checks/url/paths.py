"""Paths that match a route with variables, for requests that need no existing resource."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice, product
from typing import Any
from urllib.parse import quote

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

_VALUES = ("0", "1", "check", "00000000-0000-4000-8000-000000000000", "0.5", "2000-01-01")
_RULE_VARIABLE = re.compile(r"<[^<>]*>")
_DESCRIBED_VARIABLE = re.compile(r"\{([^{}]*)\}")
_CHOICES = re.compile(r"[\w.-]+")
_MOST_TRIED = 300
_BY_TYPE = {"integer": "0", "number": "0.5", "boolean": "true", "uuid": _VALUES[3], "date": _VALUES[5]}


def path_of_rule(app: Flask, rule: str, endpoint: str, method: str) -> str:
    """Return a path that the app routes to this rule; an empty string if no usual value fits its converters."""
    variables = _RULE_VARIABLE.findall(rule)
    parts = _RULE_VARIABLE.split(rule)
    urls = app.url_map.bind(app.config["SERVER_NAME"] or "localhost")
    for values in islice(_combinations(variables), _MOST_TRIED):
        path = "".join(chain.from_iterable(zip(parts, (*values, ""), strict=True)))
        try:
            matched, _ = urls.match(path, method, return_rule=True)
        except (RequestRedirect, HTTPException):
            continue
        if (matched.rule, matched.endpoint) == (rule, endpoint):
            return quote(path)
    return ""


def _combinations(variables: list[str]) -> Iterator[Iterable[str]]:
    """Yield values for all variables: first the same for each, then every combination."""
    yield from ([value] * len(variables) for value in _VALUES)
    # ``any`` accepts only the words in its arguments.
    yield from product(*((*_CHOICES.findall(each), *_VALUES) for each in variables))


def path_of_description(path: str, operation: Mapping[str, Any]) -> str:
    """Return a path for a templated path of an OpenAPI document.

    :param operation: an operation, or the path item if the parameters are declared there.
    """
    schemas: dict[str, Mapping[str, Any]] = {}
    parameters = operation.get("parameters")
    for each in parameters if isinstance(parameters, list) else ():
        if isinstance(each, dict) and isinstance(each.get("schema"), dict):
            schemas[str(each.get("name"))] = each["schema"]
    return _DESCRIBED_VARIABLE.sub(lambda found: quote(_of_schema(schemas.get(found[1], {}))), path)


def _of_schema(schema: Mapping[str, Any]) -> str:
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return str(choices[0])
    kinds = (str(schema.get("format")), str(schema.get("type")))
    return next((_BY_TYPE[each] for each in kinds if each in _BY_TYPE), "check")
