"""The settings of an app as environment variables, without those that may contain a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..config import Settings, key_of
from ..config.audit import SinkAddress
from ..config.settings import GROUPS
from ..policy.schema import options_of
from ..secrets import SecretRing

_NO_SECRETS = frozenset({"db", "socket_timeout", "ssl_ca_certs"})
_PASSWORD = re.compile(r"://[^/\s]*@")


def _records() -> Mapping[str, tuple[str, Any]]:
    return {key_of(name): (name, record) for group in GROUPS.values() for name, record in options_of(group).items()}


def withheld_settings(config: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    """Yield the keys of settings that may contain a secret, sorted."""
    records = _records()
    for key in sorted(records.keys() & config.keys() - {key_of("deploy")}):
        name, record = records[key]
        value = config[key]
        if _is_plain_store(name, value):
            continue
        if _may_hold_secret(value, getattr(settings, name)) or not record.repr:
            yield key


def environment_variables(config: Mapping[str, Any], withheld: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the variables for ``app.config.from_prefixed_env()``, without the withheld settings."""
    for key in sorted(_records().keys() & config.keys() - {key_of("deploy"), *withheld}):
        value = config[key]
        try:
            yield f"FLASK_{key}", value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        except TypeError:
            # A value that only code can set, such as a schema; the code also sets it where the app runs.
            continue


def _is_plain_store(name: str, value: Any) -> bool:
    """Return True if a value is a store URI without a password: at most with a user and options that are no secrets."""
    if name != "store_uri" or not isinstance(value, str):
        return False
    parts = urlsplit(value)
    user = parts.netloc.rpartition("@")[0]
    return ":" not in user and parse_qs(parts.query, keep_blank_values=True).keys() <= _NO_SECRETS


def store_authorities(settings: Settings) -> str | None:
    """Return the file with the certificate authorities of the store, or None."""
    return next(iter(parse_qs(urlsplit(settings.store_uri).query).get("ssl_ca_certs", [])), None)


def _may_hold_secret(given: Any, loaded: Any) -> bool:
    """Return True if a value is a literal secret, or a URL that contains or is a secret.

    Literal secrets are allowed in debug mode. An HTTPS receiver of checkpoints can only authenticate the sender by path
    or query.
    """
    return _has_literal(loaded) or _has_receiver(loaded) or any(_PASSWORD.search(text) for text in strings(given))


def _has_receiver(loaded: Any) -> bool:
    sinks = loaded if isinstance(loaded, tuple) else ()
    urls = (urlsplit(each.target) for each in sinks if isinstance(each, SinkAddress) and each.kind == "https")
    return any(url.query or url.path.strip("/") for url in urls)


def _has_literal(value: Any) -> bool:
    if isinstance(value, SecretRing):
        return value.literal
    if isinstance(value, Mapping):
        return any(map(_has_literal, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_literal, value))
    if is_dataclass(value):
        return any(_has_literal(getattr(value, each.name)) for each in fields(value))
    return False


def strings(value: Any) -> Iterator[str]:
    """Yield all strings in a nested value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from strings(inner)
