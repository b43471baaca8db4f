"""Errors to Sentry (extra ``sentry``), without what the client sent and without what the model saw.

By default Sentry gets the body of a request that failed, which is the model's input, and the local variables of each
frame, which are its arrays. Here only what finds the error leaves: its type, the stack without variables, the route,
and the id of the request, by which the logs have the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

import sentry_sdk
from sentry_sdk.integrations.flask import FlaskIntegration

from ..errors import SecureMLError
from ..exchange import Exchange

log: logging.Logger = logging.getLogger(__name__)

Event = dict[str, Any]
Hook = Callable[[Event, Mapping[str, Any]], Event | None]

_KEPT_OF_REQUEST = frozenset({"method", "url"})
_CLIENT_ERROR = range(400, 500)

OPTIONS: Mapping[str, Any] = {
    "max_request_body_size": "never",
    "include_local_variables": False,
    "include_source_context": True,
    # What a library writes to the log may quote the payload.
    "max_breadcrumbs": 0,
}
"""The options of a client that this package creates."""


class Scrubber:
    """Removes from an event what must not leave, adds the request id, and groups by the code of the error.

    :param current: returns the exchange of the current request; None outside of one.
    :param previous: the ``before_send`` of the app, which gets the scrubbed event.
    """

    def __init__(self, current: Callable[[], Exchange | None], previous: Hook | None = None) -> None:
        self._current = current
        self._previous = previous

    def __call__(self, event: Event, hint: Mapping[str, Any]) -> Event | None:
        """Return the event that may leave; None for a rejection, which is no error."""
        error = (hint.get("exc_info") or (None, None, None))[1]
        if isinstance(error, SecureMLError) and error.code in _CLIENT_ERROR:
            return None
        scrubbed = scrub(event)
        exchange = self._current()
        if exchange is not None:
            scrubbed["tags"] = dict(scrubbed.get("tags") or {}, request_id=exchange.request_id)
            if exchange.endpoint is not None:
                scrubbed["transaction"] = exchange.endpoint
        code = getattr(error, "slug", None)
        if code is not None:
            scrubbed["fingerprint"] = ["{{ default }}", code]
        return scrubbed if self._previous is None else self._previous(scrubbed, hint)


def scrub(event: Event) -> Event:
    """Return an event without payload, query, headers, cookies, user, variables and messages of exceptions."""
    kept = {name: value for name, value in event.items() if name not in {"breadcrumbs", "extra", "user", "modules"}}
    if isinstance(request := kept.get("request"), dict):
        kept["request"] = {name: request[name] for name in _KEPT_OF_REQUEST & request.keys()}
        kept["request"]["url"] = str(kept["request"].get("url", "")).partition("?")[0]
    for thread in _values(kept, "exception") + _values(kept, "threads"):
        if "value" in thread:
            # It may quote the input: "could not convert string to float: ...".
            thread["value"] = "(removed; see the log)"
        for frame in (thread.get("stacktrace") or {}).get("frames") or ():
            frame.pop("vars", None)
    if isinstance(entry := kept.get("logentry"), dict):
        # The format without what was put into it.
        kept["logentry"] = {"message": entry.get("message", "")}
    if "contexts" in kept:
        kept["contexts"] = {name: value for name, value in kept["contexts"].items() if name in {"runtime", "trace"}}
    return kept


def add_sentry(dsn: str, current: Callable[[], Exchange | None], **options: Any) -> None:
    """Send errors to Sentry.

    An app that set up Sentry itself keeps its client, and its events are scrubbed too.

    :param options: of the client, such as ``transport`` in tests.
    """
    client = sentry_sdk.get_client()
    if not client.is_active():
        sentry_sdk.init(
            dsn,
            before_send=cast("Any", Scrubber(current)),
            integrations=[FlaskIntegration()],
            **{**OPTIONS, **options},
        )
        return
    protect_client(client.options, current)


def protect_client(options: dict[str, Any], current: Callable[[], Exchange | None]) -> None:
    """Scrub the events of a client that the app created; once, however many apps there are."""
    previous = options.get("before_send")
    if isinstance(previous, Scrubber):
        return
    options["before_send"] = Scrubber(current, previous)
    options["max_request_body_size"] = "never"
    options["include_local_variables"] = False
    log.info("the Sentry client of the app is used; its events are scrubbed")


def _values(event: Event, name: str) -> list[dict[str, Any]]:
    found = event.get(name)
    values = found.get("values") if isinstance(found, dict) else None
    return [each for each in values or () if isinstance(each, dict)]
