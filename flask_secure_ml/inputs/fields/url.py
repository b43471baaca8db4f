"""The :class:`Url` field: a URL that a model may fetch, with the IP addresses that its host resolved to.

It prevents server-side request forgery, API7 of the OWASP API Security Top 10 (2023). The host is resolved here and
could resolve to other IP addresses later, so the code that fetches must connect to the addresses of the loaded value.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...fetch import is_public
from ..load_context import is_spent
from . import AnyField, checked_count, required_by_default

Resolver = Callable[[str, int], Iterable[str]]

_PORTS = {"https": 443, "http": 80}
_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
# A name whose last label is a number, decimal or hexadecimal, is an IPv4 address (WHATWG URL, section 3.5).
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+(?!(?:[0-9]+|0x[0-9a-f]*)\Z){_LABEL}")
_URL = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?P<host>[A-Za-z0-9.-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
    # RFC 3986 sections 3.3 and 3.4, without a fragment, which is not sent.
    r"(?P<rest>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?)"
)
_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "invalid": "Not a URL that is accepted here.",
    "max_length": "Must have at most {max_length} characters.",
    "scheme": "Must begin with {schemes}.",
    "host": "Not a host that is accepted here.",
    "port": "Not a port that is accepted here.",
    "address": "Its host has no public IP address.",
    "max_lookups": "Comes after {max_lookups} other URLs.",
}


@dataclass(frozen=True, slots=True)
class VettedUrl:
    """A URL with the IP addresses of its host.

    :param url: the URL, with scheme and host in lower case.
    :param host: the name for SNI and ``Host``.
    :param port: the port to connect to.
    :param path: the path and query to request.
    :param addresses: the public IP addresses; connect only to these.
    """

    url: str
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        return self.url


class Url(AnyField):
    """The URL of a resource that a model may fetch.

    Hosts are names: IP addresses are rejected in every notation, as are user info, fragments, backslashes, non-ASCII
    characters (an internationalised name is written with ``xn--``) and a trailing dot.

    :param hosts: the allowed names; one that begins with a dot allows all names that end with it.
    :param schemes: ``https``, and ``http`` if necessary.
    :param ports: the allowed ports; None means the default port of the scheme.
    :param max_length: the maximum length in characters.
    :param max_lookups: the maximum number of hosts that are resolved for one request, over all its fields; further URLs
        are rejected. It applies to request bodies, not when code loads a schema directly.
    :param resolver: takes a host and a port and returns IP addresses; raises OSError if there are none. None means the
        system resolver, with its timeouts.
    :raises TypeError, ValueError: the definition is invalid.

    Every IP address of the host must be public, see :mod:`flask_secure_ml.fetch`. Loaded as a :class:`VettedUrl`.
    Required unless ``required=False`` or ``load_default`` is given.
    """

    default_error_messages = _MESSAGES

    def __init__(
        self,
        hosts: Collection[str],
        *,
        schemes: Collection[str] = ("https",),
        ports: Collection[int] | None = None,
        max_length: int = 2_048,
        max_lookups: int = 100,
        resolver: Resolver | None = None,
        **options: Any,
    ) -> None:
        self.hosts: tuple[str, ...] = _checked_hosts(hosts)
        self.schemes: tuple[str, ...] = _checked_schemes(schemes)
        self.ports: tuple[int, ...] | None = None if ports is None else _checked_ports(ports)
        self.max_length: int = checked_count("max_length", max_length)
        self.max_lookups: int = checked_count("max_lookups", max_lookups)
        self._resolver = resolver or system_resolver
        super().__init__(**required_by_default(options))

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_kwargs: Any) -> VettedUrl:
        if type(value) is not str:
            raise self.make_error("invalid")
        if len(value) > self.max_length:
            raise self.make_error("max_length", max_length=self.max_length)
        parts = _URL.fullmatch(value)
        if parts is None:
            raise self.make_error("invalid")
        scheme, host = parts["scheme"].lower(), parts["host"].lower()
        self._check_target(scheme, host)
        port = self._port(scheme, parts["port"])
        authority = f"{host}:{port}" if parts["port"] else host
        path = parts["rest"] if parts["rest"].startswith("/") else f"/{parts['rest']}"
        return VettedUrl(f"{scheme}://{authority}{path}", host, port, path, self._addresses(host, port))

    def _check_target(self, scheme: str, host: str) -> None:
        if scheme not in self.schemes:
            raise self.make_error("scheme", schemes=" or ".join(f"{each}://" for each in self.schemes))
        if not _NAME.fullmatch(host) or not any(_matches(host, allowed) for allowed in self.hosts):
            raise self.make_error("host")

    def _port(self, scheme: str, digits: str | None) -> int:
        port = int(digits) if digits else _PORTS[scheme]
        if port not in ([_PORTS[scheme]] if self.ports is None else self.ports):
            raise self.make_error("port")
        return port

    def _addresses(self, host: str, port: int) -> tuple[str, ...]:
        if is_spent("lookups", 1, self.max_lookups):
            raise self.make_error("max_lookups", max_lookups=self.max_lookups)
        try:
            found = tuple(dict.fromkeys(self._resolver(host, port)))
        except (OSError, UnicodeError):
            # Unknown and internal names get the same message, so that the client cannot tell them apart.
            raise self.make_error("address") from None
        if not found or not all(map(is_public, found)):
            raise self.make_error("address")
        return found

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_kwargs: Any) -> Any:
        return None if value is None else str(value)


def system_resolver(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host, from the system resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _matches(host: str, allowed: str) -> bool:
    return host.endswith(allowed) if allowed.startswith(".") else host == allowed


def _checked_hosts(hosts: Collection[str]) -> tuple[str, ...]:
    found = () if isinstance(hosts, str) else tuple(hosts)
    if not found or not all(isinstance(host, str) and _NAME.fullmatch(_example(host)) for host in found):
        raise ValueError("hosts must be names such as 'images.example.com' or '.example.com', in lower case")
    return found


def _example(host: str) -> str:
    return f"a{host}" if host.startswith(".") else host


def _checked_schemes(schemes: Collection[str]) -> tuple[str, ...]:
    found = () if isinstance(schemes, str) else tuple(schemes)
    if not found or not _PORTS.keys() >= set(found):
        raise ValueError("schemes must be 'https', 'http' or both")
    return found


def _checked_ports(ports: Collection[int]) -> tuple[int, ...]:
    found = tuple(checked_count("ports", port) for port in ports)
    if not found or max(found) > 0xFFFF:  # noqa: PLR2004  the last port
        raise ValueError("ports must be numbers from 1 to 65535, at least one")
    return found
