"""The proxy programs, and how tests start them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from proxied import Program
from proxied_place import Place


def _nginx(files: Path, scratch: Path) -> list[str]:
    return ["nginx", "-c", str(files / "nginx.conf"), "-g", f"daemon off; pid {scratch}/nginx.pid;"]


def _envoy(files: Path, _scratch: Path) -> list[str]:
    return [str(files / "run.sh"), "--concurrency", "2", "--disable-hot-restart"]


NGINX = Program("nginx", _nginx, frozenset({"cache", "http2", "own 400"}))
ENVOY = Program("envoy", _envoy, frozenset({"http2", "hides server", "own 400"}))


def haproxy_options(place: Place) -> dict[str, Any]:
    """Return the options of a place; its certificate is stored under the names that HAProxy requires."""
    shutil.copy(place.server.certificate, place.folder / "tls.crt")
    shutil.copy(place.server.key, place.folder / "tls.key")
    return {
        "certificate": str(place.folder / "tls.crt"),
        "certificate_key": str(place.folder / "tls.key"),
        # HAProxy logs to standard output.
        "access_log": str(place.folder / "haproxy.log"),
    }


HAPROXY = Program(
    "haproxy",
    lambda files, _: ["haproxy", "-f", str(files / "haproxy.cfg")],
    frozenset({"cache", "http2", "hides server", "html", "unbuffered", "connection", "cancels"}),
    reframes=frozenset({"CL.TE", "a folded line", "a bare line feed in a value"}),
    options=haproxy_options,
)
CADDY = Program(
    "caddy",
    lambda files, _: ["caddy", "run", "--config", str(files / "Caddyfile"), "--adapter", "caddyfile"],
    frozenset({"http2", "hides server", "late"}),
    # For the last one, a server gets the head of the request, and then the connection is closed.
    reframes=frozenset({"CL.TE", "a folded line", "a bare line feed in a value", "a size in octal"}),
)
