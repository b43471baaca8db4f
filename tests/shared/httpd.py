"""Running Apache httpd in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from certificates import Certificate
from flask_secure_ml.deploy.facts import Facts
from proxied import Program, Proxied, write_target
from proxied_place import HOST, Place
from servers import Served, accepts, free_port, started


def environ(scratch: Path) -> list[str]:
    """Return the variables that the distribution's systemd unit sets."""
    return [f"APACHE_RUN_DIR={scratch}", f"APACHE_PID_FILE={scratch / 'apache2.pid'}"]


def command(files: Path, scratch: Path, *more: str) -> list[str]:
    """Return the command line of httpd."""
    return ["env", *environ(scratch), "apache2", *more, "-d", str(files), "-f", str(files / "apache2.conf")]


APACHE = Program(
    "apache",
    lambda files, scratch: command(files, scratch, "-D", "FOREGROUND"),
    frozenset({"unbuffered", "cache", "http2"}),
    reframes=frozenset({"CL.TE", "a folded line"}),
    # httpd does not run its workers as root.
    options=lambda _: {"proxy_user": "www-data"},
    upstream="localhost",
)


def error_log(found: Proxied) -> str:
    """Return the messages of httpd."""
    return found.access_log.with_name("error.log").read_text()


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a directory that the user of httpd can read, because those of pytest are private."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def before(facts: Facts, place: Place) -> Iterator[Proxied]:
    """Run httpd in front of the upstreams in the facts."""
    files = write_target("apache", facts, place.folder / "deploy")
    log = place.folder / "apache.log"
    with started(APACHE.command(files, place.folder), partial(accepts, facts.options.port), log):
        served = Served(facts.options.port, Certificate(place.trusted, place.server.key), log)
        yield Proxied(place, APACHE, served, 0, facts.options.status_port, log, log, (), ())


def options(place: Place, folder: Path) -> dict[str, Any]:
    return {
        "hosts": [HOST],
        "listen": ["127.0.0.1"],
        "port": free_port(),
        "clear_text_port": 0,
        "status_port": free_port(),
        "certificate": str(place.server.certificate),
        "certificate_key": str(place.server.key),
        "client_ca": str(place.client_authority),
        "proxy_directory": str(folder),
        "access_log": str(folder / "access.log"),
    }
