"""Describes a request in words, and suggests commands to respond to it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from werkzeug.exceptions import HTTPException, default_exceptions

from ..errors import SecureMLError, slug_and_detail
from ..observe.trail import Around, Found, Members, Request, Sum, instant_of, is_failed, is_rejected

SHOWN = 5
"""Maximum number of requests with one id, and of events, that are printed."""

Story = tuple[Request, Around | None]

_ERRORS = 400
_SERVER_ERRORS = 500
_OWN_TEXT = re.compile(r"(\w+): (.*)", re.DOTALL)
_OVER_LIMITS = frozenset({"rate_limited", "quota_exceeded", "too_many_in_flight"})
_API_KEY = "api_key:"
# The prefix of callers without a credential in limits.
_ANONYMOUS = "address:"
_MANY = 10
"""Minimum number of rejections for which valid credentials of the same network are listed."""

_OF_EVENTS = ("message", "explanation", "what", "key", "client")
_WITH_WORDS = {"penalty": "rejected by ", "replaced_by": "replaced by ", "user": "by "}


def labelled_lines(found: Found, stories: list[Story], minutes: int) -> Iterator[tuple[str, str]]:
    """Yield labels and sentences that describe a request."""
    several = len(found.requests) > 1
    if several:
        yield "Note", f"{len(found.requests)} requests have this id, set by a trusted proxy or a view"
    for request, around in stories:
        if several:
            yield "", ""
        yield from _described(request)
        if around is not None:
            yield from _history(request, around, minutes)
        for command, effect in commands_of(request, around):
            yield "Action", f"{command}   ({effect})"
    for message in found.messages[:SHOWN]:
        yield "Message", _event(message)
    left_out = found.left_out + len(found.requests) - len(stories) + max(0, len(found.messages) - SHOWN)
    if left_out:
        yield "Note", f"{left_out} more lines have this id; use --json to print more of them"


def _described(request: Request) -> Iterator[tuple[str, str]]:
    if request.main:
        yield "Time", str(request.main.get("time"))
    yield "Who", _who(request)
    yield "What", _what(request)
    code = request.member("code")
    took = request.member("ms")
    if took is None and isinstance(microseconds := request.member("duration_us"), int):
        took = microseconds / 1000
    yield "Result", f"{request.member('status')}{f' {code}' if code else ''} after {took} ms"
    if reason := request.member("reason"):
        yield "Why", str(reason)
    if pointers := request.member("pointers"):
        yield "Where", ", ".join(map(str, pointers)) if isinstance(pointers, list) else str(pointers)
    if rule := request.member("policy"):
        yield "Rule", {"public": "public", "authenticated": "any caller"}.get(str(rule), f"needs the scope {rule}")
    if limit := request.member("limit"):
        yield "Limit", f"{limit}, {request.member('limit_remaining')} left"
    if model := _model(request):
        yield "Model", model
    yield "Client", f"saw {client_saw(request)}"
    if trace := request.member("trace_id"):
        yield "Trace", str(trace)
    # Both logs have the end of a stream.
    for end in [each for each in request.ends if "event" in each] or request.ends:
        reason = end.get("reason")
        how = f"ended prematurely: {reason}" if reason else "ended normally"
        yield "Stream", f"{how}, {_milliseconds(end)} ms after the request began"


def _milliseconds(end: Members) -> object:
    microseconds = end.get("duration_us")
    return microseconds / 1000 if isinstance(microseconds, int) else end.get("ms")


def _who(request: Request) -> str:
    principal = request.member("principal")
    parts = [str(principal) if principal else "an anonymous caller"]
    for label, name, of_audit in (("client", "client_id", "client"), ("plan", "plan", "plan")):
        if value := request.member(name, of_audit):
            parts.append(f"{label} {value}")
    if claimed := request.member("claimed"):
        parts.append(f"claimed to have the key {claimed}")
    address = (request.log or {}).get("client") or (request.audit or {}).get("network")
    return ", ".join([*parts, f"from {address or 'a Unix socket'}"])


def _what(request: Request) -> str:
    where = request.member("http.route") or request.member("path") or request.member("endpoint")
    size = request.member("bytes_in", "input_bytes")
    parts = [f"{request.member('method')} {where or 'an unknown URL'}", f"{size or 0} bytes in"]
    if (out := request.member("http.response.body.size")) is not None:
        parts.append(f"{out} bytes out")
    if (rows := request.member("rows")) is not None:
        parts.append(f"{rows} rows charged")
    return ", ".join(parts)


def _model(request: Request) -> str:
    if reported := (request.audit or {}).get("model"):
        return str(reported)
    name, version = request.member("model.name"), request.member("model.version")
    return f"{name}@{version}" if name and version else str(name or "")


def client_saw(request: Request) -> str:
    """Return a description of the response as the client saw it."""
    status, code, reason = request.member("status"), request.member("code"), request.member("reason")
    if not isinstance(status, int) or status < _ERRORS or not code:
        return "the response of the app"
    own = _OWN_TEXT.fullmatch(reason) if isinstance(reason, str) and status < _SERVER_ERRORS else None
    detail = own[2] if own and own[1] in _raised_by_apps() else _details().get(str(code), "a message of the app")
    saw = f'{status} {code}: "{detail}"'
    return f"{saw} and the invalid fields of the body" if request.member("pointers") else saw


def _raised_by_apps() -> set[str]:
    return {kind.__name__ for kind in default_exceptions.values()}


def _details() -> dict[str, str]:
    """Return the detail sentence of each error code."""
    found = dict(slug_and_detail(kind()) for kind in default_exceptions.values())
    kinds: list[type[HTTPException]] = [SecureMLError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if issubclass(kind, SecureMLError):
            found[kind.slug] = kind.detail
    return found


def _history(request: Request, around: Around, minutes: int) -> Iterator[tuple[str, str]]:
    """Yield the activity of the same client before and after."""
    span = "minute" if minutes == 1 else f"{minutes} minutes"
    if rank := rank_of(request, around):
        kind = "failed" if is_failed(request.main) else "rejected"
        yield "History", f"the {_ordinal(rank)} {kind} request of this client in {span}"
    for name, part in (("Before", around.before), ("After", around.after)):
        yield name, f"{_summed(part)} in the {span} {name.lower()}"
    if around.callers:
        callers = ", ".join(f"{name} ({count})" for name, count in around.callers.most_common(SHOWN))
        yield "Others", f"valid credentials from the same network: {callers}"
    for event in around.events[:SHOWN]:
        yield "Event", _event(event)
    if (more := len(around.events) - SHOWN) > 0:
        yield "Event", f"and {more} more"


def rank_of(request: Request, around: Around) -> int | None:
    """Return the position among the client's rejected or failed requests; None if it is neither."""
    if is_failed(request.main):
        return around.before.failed + 1
    return around.before.rejected + 1 if is_rejected(request.main) else None


def _summed(part: Sum) -> str:
    if not part.requests:
        return "no other request"
    codes = ", ".join(f"{count} {code}" for code, count in part.codes.most_common(SHOWN))
    requests = "1 request" if part.requests == 1 else f"{part.requests} requests"
    failed = f", {part.failed} failed" if part.failed else ""
    return f"{requests}, {part.rejected} rejected{failed}{f' ({codes})' if codes else ''}"


def _ordinal(number: int) -> str:
    tens, ones = number // 10 % 10, number % 10
    return f"{number}{'th' if tens == 1 else {1: 'st', 2: 'nd', 3: 'rd'}.get(ones, 'th')}"


def _event(record: Members) -> str:
    time = "" if instant_of(record) is None else f"{record['time']} "
    if "logger" in record:
        return f"{time}{record.get('level')} {record.get('logger')}: {record.get('message')}"
    parts = [str(record[name]) for name in _OF_EVENTS if record.get(name) is not None]
    parts += [f"{before}{record[name]}" for name, before in _WITH_WORDS.items() if record.get(name) is not None]
    signal = f" {record['signal']}" if "signal" in record else ""
    return f"{time}{record.get('action')}{signal}{': ' if parts else ''}{', '.join(parts)}"


def commands_of(request: Request, around: Around | None = None) -> Iterator[tuple[str, str]]:
    """Yield commands to respond to a request, mildest first, each with its effect."""
    principal = request.member("principal")
    if isinstance(principal, str) and principal:
        yield from _of_principal(request, principal)
        return
    yield from _of_network(request)
    if around is not None and around.before.rejected + around.after.rejected >= _MANY:
        for caller, _ in around.callers.most_common(SHOWN):
            if caller.startswith(_API_KEY):
                yield (
                    f"flask secure-ml keys revoke {_argument(caller.removeprefix(_API_KEY))}",
                    "if this key was stolen",
                )


def _of_principal(request: Request, principal: str) -> Iterator[tuple[str, str]]:
    code, named = str(request.member("code")), _argument(principal)
    if code in _OVER_LIMITS:
        yield f"flask secure-ml limits clear {named}", "clears counters and penalty, if the caller is legitimate"
    if code == "abnormal_usage":
        yield f"flask secure-ml anomalies clear {named}", "ends the penalty, if the caller is legitimate"
    if principal.startswith(_API_KEY):
        yield (
            f"flask secure-ml keys revoke {_argument(principal.removeprefix(_API_KEY))}",
            "revokes this key in all workers",
        )
        return
    issuer, hash_, _ = principal.partition("#")
    credential = (request.audit or {}).get("credential")
    if hash_ and isinstance(credential, str) and credential:
        token = f"--issuer={shlex.quote(issuer)} {_argument(credential)}"
        yield f"flask secure-ml revocations token {token}", "revokes this token"
    yield f"flask secure-ml revocations principal {named}", "revokes all credentials of this caller"


def _of_network(request: Request) -> Iterator[tuple[str, str]]:
    code, subject = str(request.member("code")), request.subject
    if isinstance(claimed := request.member("claimed"), str) and claimed:
        yield (
            f"flask secure-ml keys show {_argument(claimed)}",
            "shows the client of the presented key, if the key exists",
        )
    if subject is None:
        return
    if code == "abnormal_usage":
        yield (
            f"flask secure-ml anomalies clear {_argument(subject.name)}",
            "ends the penalty, if the network is legitimate",
        )
    if code in _OVER_LIMITS and str(request.member("reason")).startswith(_ANONYMOUS):
        yield (
            f"flask secure-ml limits clear {_argument(_ANONYMOUS + subject.name)}",
            "clears counters, if the caller is legitimate",
        )


def _argument(value: str) -> str:
    """Return a string as one shell argument that is not parsed as an option."""
    quoted = shlex.quote(value)
    return f"-- {quoted}" if value.startswith("-") else quoted
