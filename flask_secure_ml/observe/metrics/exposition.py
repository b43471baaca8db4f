"""The exposition format for scrapers, and the route that serves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flask import Flask, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from ...policy.policy import MARK, Policy
from .counters import Metrics, shared_directory
from .facts import Facts
from .shared_files import SharedFiles

ENDPOINT = "secure_ml_metrics"
SCOPE = "metrics"

_OPENMETRICS = "application/openmetrics-text"
_VERSION = "1.0.0"


class Text(NamedTuple):
    """The metrics in an exposition format."""

    body: bytes
    content_type: str


class Exposition:
    """Serializes the metrics, for all workers if they share a directory."""

    def __init__(self, metrics: Metrics, facts: Facts) -> None:
        self._registry = metrics.registry
        self._facts = facts
        self._registry.register(facts)
        self._shared = SharedFiles()

    def text(self, accept: str = "") -> Text:
        """Return the serialized metrics.

        :param accept: the header ``Accept`` of the scraper. OpenMetrics, the only format with exemplars, is used if
            the scraper accepts it, otherwise the Prometheus text format.
        """
        # A constant, because the function fails for unknown versions.
        write, content_type = choose_encoder(f"{_OPENMETRICS}; version={_VERSION}" if takes_openmetrics(accept) else "")
        return Text(bytes(write(self._collected())), content_type)

    def _collected(self) -> CollectorRegistry:
        if not shared_directory():
            return self._registry
        registry = CollectorRegistry()
        registry.register(self._shared)
        registry.register(self._facts)
        return registry


def takes_openmetrics(accept: str) -> bool:
    """Return True if ``Accept`` contains OpenMetrics 1.0.0, or any version of it, with a weight above 0."""
    for value, weight in parse_accept_header(accept, MIMEAccept):
        kind, options = parse_options_header(value)
        if kind == _OPENMETRICS and options.get("version", _VERSION) == _VERSION and weight > 0:
            return True
    return False


def add_metrics(app: Flask, path: str, exposition: Exposition, request: Callable[[], Request]) -> None:
    """Serve the metrics to callers with the scope ``metrics``.

    :param request: returns the current request.
    """

    def view() -> Any:
        text = exposition.text(request().headers.get("Accept", ""))
        response = app.response_class(text.body, content_type=text.content_type)
        response.headers["Cache-Control"] = "no-store"
        return response

    setattr(view, MARK, Policy.build(scopes=[SCOPE], scores=False))
    app.add_url_rule(path, ENDPOINT, view, methods=["GET"])
