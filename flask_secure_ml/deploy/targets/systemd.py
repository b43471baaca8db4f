"""systemd: a hardened, socket-activated service, its user, and the modes of its files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from posixpath import normpath
from typing import Any

from ..facts import Facts
from ..mounts import FileMount, secret_files, secret_variables, usable, warnings, written_folders
from ..target import Target

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/@+-]*")
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]|[\"\\]")
_KEY = "gunicorn.key"
# Placeholder for the credentials directory until all other values are escaped.
_MARK = "/credentials-of-this-service/"


def make(facts: Facts) -> Mapping[str, str]:
    """Return the units, the user, and the modes of files."""
    options = facts.options
    credentials = tuple(_credentials(facts))
    key = options.upstream_key if facts.behind_proxy else options.certificate_key
    settings = ((name, _relocated(value, credentials)) for name, value in sorted(facts.environment.items()))
    own = (f"/var/lib/{options.name}", f"/var/log/{options.name}")
    values: dict[str, Any] = {
        "environment": [quoted(f"{name}={value}").replace(_MARK, "%d/") for name, value in settings],
        "variables": secret_variables(facts),
        "credentials": [*([(_KEY, key)] if key else []), *((each.key, each.path) for each in credentials)],
        "app": quoted(options.app).replace("$", "$$"),
        "keyfile": f"--keyfile %d/{_KEY} " if key else "",
        "written": [quoted(path) for path in written_folders(facts) if not path.startswith(own)],
        "listen": _listen(options.bind or options.upstreams[0]),
    }
    names = {"service": "unit.service", "socket": "unit.socket", "sysusers.conf": "sysusers.conf"}
    names["tmpfiles.conf"] = "tmpfiles.conf"
    return {f"{options.name}.{name}": TARGET.render(template, facts, **values) for name, template in names.items()}


def quoted(value: str) -> str:
    """Return a string quoted for systemd, also in a list (systemd.syntax(7)), with specifiers escaped."""
    escaped = _NOT_PLAIN.sub(lambda match: "".join(f"\\x{byte:02x}" for byte in match[0].encode()), value)
    return f'"{escaped.replace("%", "%%")}"'


def _credentials(facts: Facts) -> Iterator[FileMount]:
    """Yield the files that systemd copies, except the file of API keys, which workers watch for changes."""
    keys = facts.settings.api_keys
    for each in usable(secret_files(facts)):
        if _PLAIN_PATH.fullmatch(each.path) and each.path != (keys and normpath(keys)):
            yield each


def _relocated(value: str, credentials: tuple[FileMount, ...]) -> str:
    """Return a setting with references to files replaced by references to their copies."""
    places = {each.path: f"file:{_MARK}{each.key}" for each in credentials}

    def moved(part: Any) -> Any:
        if isinstance(part, str):
            return places.get(normpath(part.removeprefix("file:")), part) if part.startswith("file:/") else part
        if isinstance(part, dict):
            return {name: moved(inner) for name, inner in part.items()}
        return [moved(inner) for inner in part] if isinstance(part, list) else part

    try:
        found = json.loads(value)
    except ValueError:
        found = value
    if isinstance(found, (dict, list)):
        return json.dumps(moved(found), sort_keys=True)
    return str(moved(value))


def _listen(bind: str) -> str:
    """Return the address of the socket; any address instead of a host name, which systemd does not support."""
    if bind.startswith("unix:"):
        return bind.removeprefix("unix:")
    host, _, port = bind.rpartition(":")
    if host == "localhost":
        # The only name with a known address, which other machines must not be able to connect to.
        return f"127.0.0.1:{port}"
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return port
    return bind


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    for each in usable(secret_files(facts)):
        if not _PLAIN_PATH.fullmatch(each.path):
            yield f"{each.path!r} cannot be a credential; use only letters, digits and ._@+- in the path"
    if secret_variables(facts):
        yield (
            f"{', '.join(secret_variables(facts))}: all processes of the user can read variables; use a reference"
            " file:/path, which becomes a credential"
        )
    yield from warnings(facts, image=False)


TARGET = Target(
    name="systemd",
    summary="a hardened, socket-activated service with secrets as credentials",
    overlay="overlay.conf",
    make=make,
    advice=(
        "systemd: check with  systemd-analyze verify {folder}/{options.name}.service",
        "systemd: rate with  systemd-analyze security --offline=true {folder}/{options.name}.service",
    ),
    warn=warn,
)
