"""gunicorn settings from environment variables, such as ``SECURE_ML_SERVE_WORKERS=4``."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..policy.schema import closest
from ..secrets import Secret

PREFIX = "SECURE_ML_SERVE_"
CLIENT_CERTIFICATES: Mapping[str, ssl.VerifyMode] = {
    "off": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_LEVELS = ("debug", "info", "warning", "error", "critical")
_HIGHEST = 65_535


@dataclass(frozen=True)
class Variable:
    """One variable.

    :param name: the name without the prefix.
    :param setting: the name of the gunicorn setting.
    :param parse: returns the value of the setting, or raises ValueError.
    :param default: the default as a string; empty for gunicorn's own default or none.
    :param help: one sentence.
    """

    name: str
    setting: str
    parse: Callable[[str], Any]
    default: str
    help: str


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= most):
            raise ValueError(f"must be a number from {least} to {most}, not {text!r}")
        return int(text)

    return parse


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"must be one of {', '.join(names)}, not {text!r}")
        return text

    return parse


def _addresses(text: str) -> list[str]:
    return [address.strip() for address in text.split(",") if address.strip()]


def _pem(text: str) -> str:
    """Return a path, or a reference to a secret that contains the PEM."""
    if text.startswith(("env:", "vault:")):
        return text
    path = text.removeprefix("file:")
    if not Path(path).is_file():
        raise ValueError(f"the file {path} does not exist")
    return path


def _client_certificates(text: str) -> ssl.VerifyMode:
    return CLIENT_CERTIFICATES[_one_of(*CLIENT_CERTIFICATES)(text)]


def default_worker_class() -> str:
    """Return ``gevent`` if it is installed, otherwise ``gthread``."""
    return "gthread" if find_spec("gevent") is None else "gevent"


VARIABLES = (
    Variable("BIND", "bind", _addresses, "", "Addresses to listen on, separated by commas: 0.0.0.0:8443,[::]:8443."),
    Variable("CERTIFICATE", "certfile", _pem, "", "The certificate and its chain in PEM; clear text without it."),
    Variable("PRIVATE_KEY", "keyfile", _pem, "", "The private key in PEM, unless the certificate file contains it."),
    Variable("CLIENT_CA", "ca_certs", _pem, "", "The certificate authorities of client certificates in PEM."),
    Variable(
        "CLIENT_CERTIFICATES",
        "cert_reqs",
        _client_certificates,
        "",
        "off, optional (the default with CLIENT_CA) or required.",
    ),
    Variable("WORKERS", "workers", _number(1, 1000), "", "Worker processes. Default: WEB_CONCURRENCY, or 2."),
    Variable(
        "WORKER_CLASS",
        "worker_class",
        str,
        "",
        "Worker class. Default: gevent if it is installed, otherwise gthread.",
    ),
    Variable("THREADS", "threads", _number(1, 1000), "8", "Threads per gthread worker."),
    Variable("CONNECTIONS", "worker_connections", _number(1, _HIGHEST), "1000", "Concurrent connections per worker."),
    Variable(
        "TIMEOUT",
        "timeout",
        _number(1, 3600),
        "30",
        "Seconds without traffic until a TLS connection is closed, and without a heartbeat until a worker is killed.",
    ),
    Variable(
        "GRACEFUL_TIMEOUT",
        "graceful_timeout",
        _number(1, 3600),
        "25",
        "Seconds for requests in flight when a worker stops.",
    ),
    Variable("KEEPALIVE", "keepalive", _number(0, 3600), "5", "Seconds to wait for the next request of a connection."),
    Variable(
        "MAX_REQUEST_LINE",
        "limit_request_line",
        _number(100, 8190),
        "4094",
        "Maximum length of the request line in bytes.",
    ),
    Variable("MAX_HEADERS", "limit_request_fields", _number(8, 32_768), "64", "Maximum number of request headers."),
    Variable(
        "MAX_HEADER_BYTES",
        "limit_request_field_size",
        _number(256, 65_536),
        "8190",
        "Maximum length of one header in bytes.",
    ),
    Variable("LOG_LEVEL", "loglevel", _one_of(*_LEVELS), "info", "The minimum level of gunicorn's own messages."),
)


def settings(environ: Mapping[str, str], keep: Callable[[bytes], str]) -> dict[str, Any]:
    """Return gunicorn settings by name; empty and missing variables keep the default.

    :param keep: writes PEM to a private file and returns its path.
    :raises ConfigError: variables are unknown or invalid; the error lists all problems.
    """
    problems = [_unknown(name) for name in environ if name.startswith(PREFIX) and not _is_known(name)]
    found: dict[str, Any] = {"worker_class": default_worker_class(), "workers": 2}
    if environ.get("WEB_CONCURRENCY"):
        del found["workers"]
    for variable in VARIABLES:
        value = environ.get(PREFIX + variable.name) or variable.default
        if value:
            try:
                found[variable.setting] = variable.parse(value)
            except ValueError as error:
                problems.append(f"{PREFIX}{variable.name}: {error}")
    problems += _resolve(found, keep)
    problems += _inconsistent(found)
    if problems:
        raise ConfigError(problems)
    return found


def _is_known(name: str) -> bool:
    return any(name == PREFIX + variable.name for variable in VARIABLES)


def _unknown(name: str) -> str:
    nearest = closest(name, [PREFIX + variable.name for variable in VARIABLES])
    return f"{name}: unknown variable{f'; did you mean {nearest}?' if nearest else ''}"


def _resolve(found: dict[str, Any], keep: Callable[[bytes], str]) -> list[str]:
    """Replace references by paths of private files with the secrets; return the problems."""
    problems = []
    for variable in VARIABLES:
        value = found.get(variable.setting)
        if variable.parse is _pem and isinstance(value, str) and value.startswith(("env:", "vault:")):
            try:
                found[variable.setting] = keep(Secret(value, 1).read() + b"\n")
            except ValueError as error:
                problems.append(f"{PREFIX}{variable.name}: {error}")
    return problems


def _inconsistent(found: dict[str, Any]) -> list[str]:
    problems = []
    for name, setting in (("PRIVATE_KEY", "keyfile"), ("CLIENT_CA", "ca_certs")):
        if setting in found and "certfile" not in found:
            problems.append(f"{PREFIX}{name}: has no effect without {PREFIX}CERTIFICATE")
    if "ca_certs" in found:
        found.setdefault("cert_reqs", ssl.CERT_OPTIONAL)
    elif found.get("cert_reqs"):
        problems.append(f"{PREFIX}CLIENT_CERTIFICATES: requires {PREFIX}CLIENT_CA, the authorities to trust")
    return problems
