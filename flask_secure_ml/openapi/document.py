"""Generating the OpenAPI 3.1 document of an app from the policies that are enforced."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, time
from enum import Enum
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from flask import Flask

from ..errors import ConfigError
from ..policy.options import CapArguments
from ..policy.policy import Policy
from ..state import AppState, state_of
from .bodies import Bodies
from .components import HEADERS, INFERENCE_REQUEST, INFERENCE_RESPONSE, PROBLEM, Examples
from .responses import error_cases, error_response, has_nonces, response_name, success
from .routes import Route, app_routes, described_paths, path_parameters
from .security import methods_of, requirements
from .sentences import access, rate_limits, sentence

if TYPE_CHECKING:
    from apispec import APISpec


OPENAPI = "3.1.0"
_MEMBERS = ("openapi", "info", "servers", "paths", "components")


def check_apispec() -> None:
    """Check that the package of the extra ``[openapi]`` is installed.

    :raises ConfigError: it is not installed.
    """
    try:
        import apispec.ext.marshmallow  # noqa: F401
    except ImportError:
        raise ConfigError(
            ["SECURE_ML_OPENAPI requires a package: pip install 'flask-secure-ml[openapi]'"],
        ) from None


def build_document(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a protected app, with its current routes.

    The document is deterministic. Paths are in alphabetical order, members of a schema in the order of its fields.

    :raises ConfigError: apispec is not installed.
    :raises RuntimeError: the app is not protected.
    """
    check_apispec()
    return _Builder(app, state_of(app)).document()


class _Builder:
    """Builds one document."""

    def __init__(self, app: Flask, state: AppState) -> None:
        from apispec import APISpec

        from .schemas import SchemaPlugin

        self._app = app
        self._state = state
        self._methods = methods_of(state)
        plugin = SchemaPlugin()
        self._spec: APISpec = APISpec(app.name, _version(app), OPENAPI, plugins=[plugin])
        self._reference = plugin.reference
        self._examples = Examples(self._spec.components.schemas)
        self._bodies = Bodies(state.settings, self._examples)
        self._names: dict[tuple[str, str], str] = {}

    def document(self) -> dict[str, Any]:
        routes = described_paths(app_routes(self._state.policies))
        self._names = _operation_ids([route for route, _ in routes.described])
        self._add_components()
        for path, group in groupby(routes.described, key=lambda each: each[1]):
            self._spec.path(path, operations={route.method.lower(): self._operation(route, path) for route, _ in group})
        found: dict[str, Any] = self._spec.to_dict()
        left_out = [f"{each.method} {each.path}" for each in routes.left_out]
        if self._state.settings.resource_uri is not None:
            found["servers"] = [{"url": self._state.settings.resource_uri.rstrip("/")}]
        ordered = {name: found[name] for name in _MEMBERS if name in found}
        return plain(ordered | ({"x-not-described": left_out} if left_out else {}))

    def _add_components(self) -> None:
        components = self._spec.components
        components.schema("Problem", PROBLEM)
        if self._bodies.has_inference:
            components.schema("InferenceRequest", INFERENCE_REQUEST)
            components.schema("InferenceResponse", INFERENCE_RESPONSE)
        for name, header in HEADERS.items():
            if name != "DPoP-Nonce" or has_nonces(self._state.settings):
                components.header(name, header)
        for method in self._methods:
            for name, scheme in method.schemes.items():
                if name not in components.security_schemes:
                    components.security_scheme(name, scheme)

    def _operation(self, route: Route, path: str) -> dict[str, Any]:
        policy = route.policy
        found: dict[str, Any] = {"operationId": self._names[route.rule.rule, route.method]}
        found |= docstring_of(self._app, route)
        if "." in route.rule.endpoint:
            found["tags"] = [route.rule.endpoint.rpartition(".")[0]]
        found["security"] = requirements(policy, self._methods)
        parameters = path_parameters(route.rule, path)
        if policy.body is not None:
            parameters += self._bodies.parameters(policy.body)
            found["requestBody"] = self._bodies.request_body(policy.body, self._reference(policy.body))
        if parameters:
            found["parameters"] = parameters
        found["responses"] = self._responses(route)
        return found | self._limits(route)

    def _responses(self, route: Route) -> dict[str, Any]:
        declared = route.policy.response
        reference = None if declared is None else self._reference(declared)
        found: dict[str, Any] = {"2XX": success(route.policy, reference, self._state.settings, self._spec.components)}
        for status, group in groupby(error_cases(route, self._state), key=lambda each: each.status):
            cases = list(group)
            name = response_name(cases)
            if name not in self._spec.components.responses:
                self._spec.components.response(name, error_response(cases, self._state.settings))
            found[str(status)] = {"$ref": f"#/components/responses/{name}"}
        return found

    def _limits(self, route: Route) -> dict[str, Any]:
        policy, settings = route.policy, self._state.settings
        limits = {"x-access": sentence(access(policy.access)), "x-rate-limits": rate_limits(policy, settings.plans)}
        found: dict[str, Any] = {name: limit for name, limit in limits.items() if limit}
        return found if policy.body is None else found | self._caps(policy)

    def _caps(self, policy: Policy) -> dict[str, Any]:
        """Return the limits on a body; the smallest limit on its bytes applies."""
        settings, own = self._state.settings, policy.caps
        holding = {
            name: getattr(settings, name) if (cap := getattr(own, name)) is None else cap
            for name in CapArguments.__annotations__
        }
        most = holding.pop("max_body_bytes")
        app_wide = self._app.config.get("MAX_CONTENT_LENGTH")
        return {"x-max-bytes": most if app_wide is None else min(most, app_wide), "x-caps": holding}


def _version(app: Flask) -> str:
    """Return the version of the app's module; ``0`` if it has none."""
    module = sys.modules.get(app.import_name)
    return str(getattr(module, "__version__", "0"))


def _operation_ids(routes: Iterable[Route]) -> dict[tuple[str, str], str]:
    """Return the unique id of each operation: its endpoint, with the method or a number if the endpoint is shared."""
    listed = list(routes)
    count = Counter(route.rule.endpoint for route in listed)
    found: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for route in listed:
        name = route.rule.endpoint
        wanted = name if count[name] == 1 else f"{name}.{route.method.lower()}"
        number = 1
        while (unique := wanted if number == 1 else f"{wanted}.{number}") in taken:
            number += 1
        taken.add(unique)
        found[route.rule.rule, route.method] = unique
    return found


# A form feed ends the public part (as in click), and so does the field list.
_END = re.compile(r"\f|^:\w[^:\n]*:", re.MULTILINE)


def docstring_of(app: Flask, route: Route) -> dict[str, str]:
    """Return ``summary``, the first paragraph, and ``description``, the rest; empty ones are omitted."""
    docstring = _docstring(_documented(app, route))
    summary, _, description = docstring.partition("\n\n")
    found = {"summary": " ".join(summary.split()).removesuffix("."), "description": description.strip()}
    return {name: each for name, each in found.items() if each}


def _documented(app: Flask, route: Route) -> Any:
    """Return the object whose docstring describes the operation.

    For a view class, this is its method, or the class if the method has no docstring.
    """
    view: Any = app.view_functions.get(route.rule.endpoint)
    while isinstance(view, partial):
        # A partial has the docstring of functools.partial.
        view = view.func
    cls = getattr(view, "view_class", None)
    if cls is None:
        return view
    method = getattr(cls, route.method.lower(), None)
    return method if method is not None and method.__doc__ else cls


def _docstring(documented: Any) -> str:
    # inspect.getdoc would return an inherited docstring, such as that of Flask's View.
    own = getattr(documented, "__doc__", None) or ""
    return _END.split(inspect.cleandoc(own), maxsplit=1)[0].strip()


_NOTHING = object()


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document reduced to JSON types (RFC 8259), in the same order.

    Members of other types are omitted: an infinite bound is no bound, and the string representation of an object can
    reveal a memory address or a path. In a list they become null, so that other items keep their position.
    """
    return {str(name): value for name, each in document.items() if (value := _plain(each)) is not _NOTHING}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, (list, tuple)):
        return [None if (found := _plain(each)) is _NOTHING else found for each in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _NOTHING
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else _NOTHING
