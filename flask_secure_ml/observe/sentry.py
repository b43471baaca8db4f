"""Sends errors to Sentry (extra ``sentry``), without client data and model inputs.

By default, Sentry gets the body of a failed request, which is the model's input, and the local variables of each frame,
which contain its arrays. Here, events only contain the data that locates the error: its type, the stack without
variables, the route, and the request id, which identifies the request in the logs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.flask import FlaskIntegration

from ..errors import SecureMLError
from ..exchange import Exchange
from .request_log.entry import known_method

log: logging.Logger = logging.getLogger(__name__)

Event = dict[str, Any]
Hook = Callable[[Event, Mapping[str, Any]], Event | None]

_UNKNOWN = "unknown"
_REMOVED = "(removed; see the log)"
_KEPT_OF_MECHANISM = frozenset({"type", "handled"})
_KEPT_OF_TRACE = frozenset({"trace_id", "span_id", "parent_span_id", "op", "status", "origin"})
_CLIENT_ERROR = range(400, 500)
_SAFE_NAMES = frozenset({"component", "route"})
"""Sources of a transaction's name that are not the URL: the endpoint or the URL rule."""

_HIDDEN_NAMES = ("http", "cache", "db.redis", "gen_ai", "queue", "subprocess")
"""Operations whose spans have URLs, keys, prompts or arguments as their names."""

_SERVER = "http.server"
_TEMPLATE = "sentry.message.template"
_KEPT_OF_TELEMETRY = frozenset(
    {
        "code.file.path",
        "code.function.name",
        "code.line.number",
        "http.response.status_code",
        "logger.name",
        "process.pid",
        "process.runtime.name",
        "process.runtime.version",
        "sentry.environment",
        "sentry.op",
        "sentry.origin",
        "sentry.platform",
        "sentry.release",
        "sentry.sdk.integrations",
        "sentry.sdk.name",
        "sentry.sdk.version",
        "sentry.segment.id",
        "sentry.segment.name.source",
        "sentry.severity_number",
        "sentry.severity_text",
        "sentry.trace_lifecycle",
        "thread.id",
        "thread.name",
    }
)
"""Attributes of logs and of streamed spans that are not from a request."""

OPTIONS: Mapping[str, Any] = {
    "max_request_body_size": "never",
    "include_local_variables": False,
    "include_source_context": True,
    # Log messages of libraries may contain the payload.
    "max_breadcrumbs": 0,
}
"""Options of a client that this package creates."""


class Scrubber:
    """Removes private data from an event, adds the request id, and groups by error code.

    :param current: returns the exchange of the current request; None outside of one.
    :param previous: the ``before_send`` of the app, which gets the scrubbed event.
    """

    def __init__(self, current: Callable[[], Exchange | None], previous: Hook | None = None) -> None:
        self._current = current
        self._previous = previous

    def __call__(self, event: Event, hint: Mapping[str, Any]) -> Event | None:
        """Return the scrubbed event; None for a rejection, which is not an error."""
        error = (hint.get("exc_info") or (None, None, None))[1]
        if isinstance(error, SecureMLError) and error.code in _CLIENT_ERROR:
            return None
        scrubbed = scrub(event)
        if (record := hint.get("log_record")) is not None and scrubbed.get("logentry") == {"message": _REMOVED}:
            place = f"a message of {record.name}, from line {record.lineno} of {record.module}"
            scrubbed["logentry"] = {"message": f"{place} {_REMOVED}"}
        exchange = self._current()
        if exchange is not None:
            scrubbed["tags"] = dict(scrubbed.get("tags") or {}, request_id=exchange.request_id)
            scrubbed["transaction"] = exchange.endpoint or _UNKNOWN
            if (rule := getattr(exchange.guarded, "url_rule", None)) is not None:
                scrubbed["request"] = {**scrubbed.get("request", {}), "url": rule.rule}
        code = getattr(error, "slug", None)
        if code is not None:
            scrubbed["fingerprint"] = ["{{ default }}", code]
        return scrubbed if self._previous is None else self._previous(scrubbed, hint)


class TelemetryScrubber:
    """Removes private data from logs (``enable_logs``) and streamed spans, which are no events.

    :param scrub: returns a log or span without private data.
    :param current: returns the exchange of the current request; None outside of one.
    :param previous: the hook of the app, which gets the scrubbed log or span.
    """

    def __init__(
        self,
        scrub: Callable[[Event], Event],
        current: Callable[[], Exchange | None],
        previous: Hook | None = None,
    ) -> None:
        self._scrub = scrub
        self._current = current
        self._previous = previous

    def __call__(self, telemetry: Event, hint: Mapping[str, Any]) -> Event | None:
        """Return the scrubbed log or span."""
        scrubbed = self._scrub(telemetry)
        exchange = self._current()
        if exchange is not None:
            scrubbed["attributes"]["request_id"] = exchange.request_id
        return scrubbed if self._previous is None else self._passed_on(scrubbed, hint, self._previous)

    def _passed_on(self, scrubbed: Event, hint: Mapping[str, Any], hook: Hook) -> Event | None:
        if self._scrub is not scrub_span:
            return hook(scrubbed, hint)
        # The library sends the original span if the hook fails or returns something else.
        try:
            found = hook(scrubbed, hint)
        except Exception as error:  # noqa: BLE001  a hook of the user
            log.warning("the before_send_span of the app failed: %s", type(error).__name__)
            return scrubbed
        return found if isinstance(found, dict) and "name" in found else scrubbed


def scrub_log(log_: Event) -> Event:
    """Return a log without arguments, and without its text if that may contain them."""
    attributes = log_.get("attributes") or {}
    formatted = any(name.startswith("sentry.message.parameter") for name in attributes)
    body = attributes.get(_TEMPLATE) if formatted else None
    return {**log_, "body": body or _REMOVED, "attributes": _kept_attributes(attributes)}


def scrub_span(span: Event) -> Event:
    """Return a streamed span without data of the request."""
    attributes = span.get("attributes") or {}
    operation, name = str(attributes.get("sentry.op", "")), span.get("name")
    if operation == _SERVER:
        name = name if attributes.get("sentry.segment.name.source") in _SAFE_NAMES else _UNKNOWN
    elif operation.startswith(_HIDDEN_NAMES):
        name = operation
    return {**span, "name": name, "attributes": _kept_attributes(attributes)}


def _kept_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in attributes.items() if name in _KEPT_OF_TELEMETRY}
    if (method := attributes.get("http.request.method")) is not None:
        kept["http.request.method"] = known_method(str(method))
    return kept


def scrub(event: Event) -> Event:
    """Return an event or transaction without payload, URL, headers, cookies, user, variables and messages."""
    kept = {name: value for name, value in event.items() if name not in {"breadcrumbs", "extra", "user", "modules"}}
    if isinstance(request := kept.get("request"), dict):
        # The URL contains path values, and the host from the client.
        kept["request"] = {"method": known_method(str(request.get("method")))}
    for thread in _values(kept, "exception") + _values(kept, "threads"):
        if "value" in thread:
            # It may contain input: "could not convert string to float: ...".
            thread["value"] = _REMOVED
        if isinstance(mechanism := thread.get("mechanism"), dict):
            thread["mechanism"] = {name: mechanism[name] for name in _KEPT_OF_MECHANISM & mechanism.keys()}
        for frame in (thread.get("stacktrace") or {}).get("frames") or ():
            frame.pop("vars", None)
    if isinstance(entry := kept.get("logentry"), dict):
        # Keep the format string without its arguments. A message without arguments may already contain values.
        kept["logentry"] = {"message": entry.get("message", "") if entry.get("params") else _REMOVED}
    if "message" in kept:
        kept["message"] = _REMOVED
    if "contexts" in kept:
        kept["contexts"] = _scrubbed_contexts(kept["contexts"])
    if kept.get("type") == "transaction":
        # Without a route, the name is the path.
        source = (kept.get("transaction_info") or {}).get("source")
        kept["transaction"] = kept.get("transaction", _UNKNOWN) if source in _SAFE_NAMES else _UNKNOWN
        kept["spans"] = [_scrubbed_span(span) for span in kept.get("spans") or ()]
    return kept


def _scrubbed_contexts(contexts: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: contexts[name] for name in ("runtime", "trace") if name in contexts}
    if isinstance(trace := found.get("trace"), dict):
        found["trace"] = {name: trace[name] for name in _KEPT_OF_TRACE & trace.keys()}
    return found


def _scrubbed_span(span: Mapping[str, Any]) -> dict[str, Any]:
    """Return a span without its data, which may contain parts of a request, and without a URL or key as its name."""
    hidden = {"data", "tags"} | ({"description"} if str(span.get("op")).startswith(_HIDDEN_NAMES) else set())
    return {name: value for name, value in span.items() if name not in hidden}


def add_sentry(dsn: str, current: Callable[[], Exchange | None], **options: Any) -> None:
    """Send errors to Sentry.

    If the app initialized Sentry itself, its client is kept and its events are scrubbed.

    :param options: options of the client, such as ``transport`` in tests.
    """
    if sentry_sdk.get_client().is_active():
        log.info("the Sentry client of the app is used; its events are scrubbed")
    else:
        sentry_sdk.init(dsn, integrations=[FlaskIntegration()], **{**OPTIONS, **options})
    protect_client(sentry_sdk.get_client().options, current)


def protect_client(options: dict[str, Any], current: Callable[[], Exchange | None]) -> None:
    """Scrub the events, logs and streamed spans of a client; once, even for several apps."""
    previous = options.get("before_send")
    if isinstance(previous, Scrubber):
        return
    options["before_send"] = Scrubber(current, previous)
    options["before_send_transaction"] = Scrubber(current, options.get("before_send_transaction"))
    experiments = options.get("_experiments") or {}
    for name, scrubber in (("before_send_log", scrub_log), ("before_send_span", scrub_span)):
        # Earlier releases of the library read the hook only here.
        previous = options.get(name) or experiments.get(name)
        options[name] = experiments[name] = TelemetryScrubber(scrubber, current, previous)
    options["_experiments"] = experiments
    options["max_request_body_size"] = "never"
    options["include_local_variables"] = False


def _values(event: Event, name: str) -> list[dict[str, Any]]:
    found = event.get(name)
    values = found.get("values") if isinstance(found, dict) else None
    return [each for each in values or () if isinstance(each, dict)]
