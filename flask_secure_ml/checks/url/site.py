"""The subject of URL checks: the service, its routes, and replies that several checks use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any

from ...policy.policy import Policy
from ..finding import Where
from ..setup import Setup
from .client import Client, Reply, json_object, unknown_path
from .paths import path_of_description, path_of_rule

DESCRIPTION = "/openapi.json"
MOST_ROUTES = 5
"""Maximum number of routes of one kind that are requested."""

_READING = "GET"


@dataclass(frozen=True)
class Endpoint:
    """A route.

    :param path: its path; a matching one if it has variables, and an empty string if none is known.
    :param variable: whether the path has variables.
    :param max_body: the maximum size of a body in bytes; None if it is not known.
    :param body: whether it accepts a body.
    """

    path: str
    methods: tuple[str, ...]
    public: bool
    variable: bool = False
    body: bool = False
    max_body: int | None = None


@dataclass(frozen=True)
class Site:
    """A running service, and the app that should be deployed there.

    :param setup: the app, if it could be loaded; otherwise the routes come from the served OpenAPI description.
    :param clear_text_port: a port where the same host may respond without TLS; 0 for none.
    :param patience: seconds to wait until an idle client is disconnected; 0 skips the check.
    """

    client: Client
    setup: Setup | None = None
    clear_text_port: int = 0
    patience: float = 0.0

    @property
    def where(self) -> Where:
        """The location of findings about the service as a whole."""
        return Where("url", self.client.url)

    def at(self, path: str) -> Where:
        """Return the location of one path."""
        return Where("url", f"{self.client.url.rstrip('/')}{path}")

    @cached_property
    def authenticated(self) -> bool:
        """Whether a credential is given and the service accepts it."""
        if self.client.credential is None:
            return False
        return self.unknown.status not in {0, HTTPStatus.UNAUTHORIZED} and not self.unknown.is_ours("tls_required")

    @cached_property
    def sample(self) -> Reply:
        """A reply that the app itself sent, if possible: to an anonymous request or from a public route."""
        if not self.stranger.header("X-Request-ID"):
            for route in self.readable(public=True):
                reply = self.client.send(_READING, route.path)
                if reply.header("X-Request-ID"):
                    return reply
        return self.stranger

    @cached_property
    def stranger(self) -> Reply:
        """The reply to an anonymous request for an unknown URL: 401."""
        return self.client.send(_READING, unknown_path())

    @cached_property
    def unknown(self) -> Reply:
        """The reply to an authenticated request for an unknown URL: 404."""
        return self.client.send(_READING, unknown_path(), authenticated=True)

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """The served OpenAPI document; empty if there is none."""
        reply = self.client.send(_READING, DESCRIPTION, authenticated=self.client.credential is not None)
        return json_object(reply.body) if reply.status == HTTPStatus.OK else {}

    @cached_property
    def routes(self) -> tuple[Endpoint, ...]:
        """The routes of the app, or of the served OpenAPI description."""
        return tuple(_of_setup(self.setup) if self.setup else _of_description(self.description))

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The routes without variables in their paths."""
        return tuple(each for each in self.routes if not each.variable)

    def readable(self, *, public: bool) -> list[Endpoint]:
        """Return the routes with GET that are requested."""
        return self._readable(public=public)[:MOST_ROUTES]

    def left_out(self, *, public: bool) -> int:
        """Return the number of routes with GET that are not requested."""
        return len(self._readable(public=public)[MOST_ROUTES:])

    def _readable(self, *, public: bool) -> list[Endpoint]:
        return [each for each in self.endpoints if each.public == public and _READING in each.methods]

    @cached_property
    def limited(self) -> list[str]:
        """Paths that a check could not request, because of a limit of the caller."""
        return []

    @cached_property
    def private_replies(self) -> dict[str, Reply]:
        """Replies of private routes to authenticated requests, by path; empty without a credential."""
        routes = self.readable(public=False) if self.authenticated else []
        return {each.path: self.client.send(_READING, each.path, authenticated=True) for each in routes}


def _of_setup(setup: Setup) -> Iterator[Endpoint]:
    for route in setup.routes:
        policy, variable, path = route.policy, "<" in route.rule, route.rule
        if variable:
            path = path_of_rule(setup.app, route.rule, route.endpoint, route.methods[0])
        has_body = policy.body is not None
        yield Endpoint(path, route.methods, policy.public, variable, has_body, _max_body(policy, setup))


def _max_body(policy: Policy, setup: Setup) -> int:
    given = policy.caps.max_body_bytes
    return setup.settings.max_body_bytes if given is None else given


def _of_description(document: Mapping[str, Any]) -> Iterator[Endpoint]:
    paths = document.get("paths")
    for path, item in paths.items() if isinstance(paths, dict) else ():
        if not path.startswith("/") or not isinstance(item, dict):
            continue
        for method, operation in item.items():
            if isinstance(operation, dict) and method.upper() in {"GET", "POST", "PUT", "PATCH", "DELETE"}:
                public, variable = operation.get("security") == [], "{" in path
                requested = path_of_description(path, {**item, **operation}) if variable else path
                yield Endpoint(requested, (method.upper(),), public, variable, "requestBody" in operation)
