"""The port of the metrics under gunicorn: one for all workers, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from certificates import Certificate
from servers import PATIENCE, WORKERS, Served, accepts, free_port, gunicorn, wait_until
from stored_keys import key_in_file

CONFIGURATION = ("-c", "python:flask_secure_ml.deploy.gunicorn")


def read(port: int) -> dict[tuple[str, ...], float]:
    """Return the samples at the port.

    :raises OSError: nobody responds.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except HTTPException as error:
        raise OSError(str(error)) from None
    finally:
        connection.close()
    return {
        (sample.name.removeprefix("secure_ml_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(port: int, name: str) -> float:
    """Return the value of a metric without labels; -1 while the scrape fails or has none."""
    try:
        return read(port).get((name,), -1)
    except OSError:
        return -1


def workers(port: int) -> float:
    return value(port, "workers")


@pytest.fixture
def settings(tmp_path: Path, environ: dict[str, str]) -> tuple[int, dict[str, str]]:
    """The port, and an environment in which the app has its metrics there."""
    port = free_port()
    found = environ | {"FLASK_SECURE_ML_METRICS_LISTEN": f"127.0.0.1:{port}", "TMPDIR": str(tmp_path)}
    found.pop("PROMETHEUS_MULTIPROC_DIR", None)
    return port, found


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    "options",
    [
        ("--worker-class", "gthread", "--threads", "2"),
        WORKERS["gevent"],
        ("--preload", "--worker-class", "gthread", "--threads", "2"),
        ("--worker-class", "sync", "--threads", "1"),
    ],
    ids=["gthread", "gevent", "preload", "sync"],
)
def test_one_port_for_all_workers(
    tmp_path: Path,
    certificate: Certificate,
    settings: tuple[int, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    """It has the sum of all, is not reachable on the public port, and serves no other routes."""
    port, environ = settings
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    keys = environ["FLASK_SECURE_ML_API_KEYS"]
    caller, scraper = key_in_file(keys), key_in_file(keys, scopes=["metrics"])
    with gunicorn(tmp_path, certificate, environ, *CONFIGURATION, "--workers", "3", *options) as served:
        for _ in range(30):
            assert served.call("GET", "/whoami", headers={"X-API-Key": caller})[0] == 200
        assert served.call("GET", "/metrics", headers={"X-API-Key": scraper})[0] == 404
        wait_until(lambda: workers(port) == 3, "three workers")
        found = read(port)
        assert found["requests_total", "whoami", "GET", "200"] == 30
        # Every worker has the store up, also one that was forked from a parent with the app.
        assert found["limit_store_up",] == 1
        assert found["certificate_expiry_timestamp_seconds", "server"] > 0
        assert served.call("GET", "/healthz", headers={"Host": f"127.0.0.1:{port}"})[0] == 200
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 404
        connection.close()
    assert not accepts(port)
    assert not list(tmp_path.glob("secure-ml-metrics-*"))


@pytest.fixture
def running(
    tmp_path: Path, certificate: Certificate, settings: tuple[int, dict[str, str]]
) -> Iterator[tuple[int, int, Served]]:
    """The port, the process id of the parent, and the server, with two workers."""
    port, environ = settings
    pid_file, script = tmp_path / "pid", tmp_path / "serve.py"
    # With "-m gunicorn", its folder is on the path of the next server of an upgrade, where its http hides Python's.
    script.write_text("from gunicorn.app.wsgiapp import run\n\nrun()\n")
    options = ("--workers", "2", "--threads", "2", "--pid", str(pid_file))
    with gunicorn(tmp_path, certificate, environ, *CONFIGURATION, *options, program=(str(script),)) as served:
        wait_until(lambda: workers(port) == 2, "two workers")
        yield port, int(pid_file.read_text()), served


def test_a_worker_that_is_busy(
    tmp_path: Path, certificate: Certificate, settings: tuple[int, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port responds while the only thread for requests waits for a body."""
    port, environ = settings
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    key = key_in_file(environ["FLASK_SECURE_ML_API_KEYS"])
    with (
        gunicorn(
            tmp_path, certificate, environ, *CONFIGURATION, "--workers", "1", "--threads", "1", "--worker-class", "sync"
        ) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain,
        served.context.wrap_socket(plain, server_hostname="localhost") as slow,
    ):
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Type: application/json"
        slow.sendall(f"{head}\r\nContent-Length: 100\r\n\r\n{{".encode())
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as another:
            # Nobody does the handshake.
            another.settimeout(0.5)
            with pytest.raises(TimeoutError):
                served.context.wrap_socket(another, server_hostname="localhost")
        assert workers(port) == 1


class Scraping:
    """Scrapes repeatedly, and records failures."""

    def __init__(self, port: int) -> None:
        self.failed: list[str] = []
        self.done = 0
        self._port = port
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.01):
            self.done += 1
            try:
                read(self._port)
            except OSError as error:
                self.failed.append(f"{type(error).__name__}: {error}")


def test_a_worker_that_dies(running: tuple[int, int, Served]) -> None:
    """Its counts stay, its gauges go, and the others respond meanwhile."""
    port, parent, _ = running
    first = children(parent)
    with Scraping(port) as scraping:
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: first[0] not in children(parent) and len(children(parent)) == 2, "another worker")
        wait_until(lambda: value(port, "worker_starts_total") == 3, "its start")
    assert workers(port) == 2
    # The one scrape that the dead worker had accepted.
    assert len(scraping.failed) <= 1
    assert scraping.done > 0


def test_workers_that_are_replaced(running: tuple[int, int, Served], tmp_path: Path) -> None:
    """The number of metrics files stays that of the workers, and their counts are kept."""
    port, parent, _ = running
    (directory,) = tmp_path.glob("secure-ml-metrics-*")
    before = sorted(each.name for each in directory.glob("[ch]*.db"))
    for number in range(3, 6):
        os.kill(children(parent)[0], signal.SIGKILL)
        wait_until(lambda: value(port, "worker_starts_total") == number, "another worker")  # noqa: B023
    assert sorted(each.name for each in directory.glob("[ch]*.db")) == before
    assert workers(port) == 2


def test_a_reload(running: tuple[int, int, Served]) -> None:
    """All workers are replaced, and no scrape finds the port closed."""
    port, parent, _ = running
    first = set(children(parent))
    with Scraping(port) as scraping:
        os.kill(parent, signal.SIGHUP)
        wait_until(lambda: len(children(parent)) == 2 and not first & set(children(parent)), "other workers")
        wait_until(lambda: workers(port) == 2, "their gauges")
    # A worker that ends may have accepted one; none is turned away.
    assert not [each for each in scraping.failed if "Refused" in each]
    assert len(scraping.failed) <= 2


def test_an_upgrade(running: tuple[int, int, Served], tmp_path: Path) -> None:
    """The next server has the same port, and keeps it when the first one ends."""
    port, parent, served = running
    with Scraping(port) as scraping:
        os.kill(parent, signal.SIGUSR2)
        next_file = tmp_path / "pid.2"
        wait_until(lambda: next_file.exists() and len(children(int(next_file.read_text()))) >= 2, "the next server")
        following = int(next_file.read_text())
        wait_until(lambda: served.call("GET", "/healthz")[0] == 200, "requests")
        os.kill(parent, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{parent}").exists() or _is_zombie(parent), "the end of the first one")
        wait_until(lambda: workers(port) == 2, "two workers")
    try:
        assert not [each for each in scraping.failed if "Refused" in each]
        assert served.call("GET", "/healthz")[0] == 200
    finally:
        os.kill(following, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{following}").exists() or _is_zombie(following), "its end")
    assert not accepts(port)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def failing(tmp_path: Path, environ: dict[str, str], *options: str) -> str:
    """Return the output of gunicorn until it ends by itself."""
    command = [sys.executable, "-m", "gunicorn", "served_app:create_app()", "--bind", f"127.0.0.1:{free_port()}"]
    shared = Path(__file__).parents[1] / "shared"
    command += ["--chdir", str(shared), "--worker-tmp-dir", str(tmp_path), "--no-control-socket", *options]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_a_port_that_is_taken(tmp_path: Path, settings: tuple[int, dict[str, str]], options: tuple[str, ...]) -> None:
    """gunicorn does not start; one line has the setting, address and reason."""
    port, environ = settings
    with socket.create_server(("127.0.0.1", port)):
        output = failing(tmp_path, environ, *CONFIGURATION, *options)
    assert f"Error: SECURE_ML_METRICS_LISTEN: 127.0.0.1:{port} cannot be used: Address already in use" in output
    assert "Traceback" not in output


def test_an_address_that_is_none(tmp_path: Path, settings: tuple[int, dict[str, str]]) -> None:
    """The same."""
    environ = settings[1] | {"FLASK_SECURE_ML_METRICS_LISTEN": "localhost"}
    output = failing(tmp_path, environ, *CONFIGURATION)
    assert "Error: FLASK_SECURE_ML_METRICS_LISTEN: must be an IP address and a port" in output


def test_a_port_without_the_package(tmp_path: Path, settings: tuple[int, dict[str, str]]) -> None:
    """The message names the extra to install, without a traceback."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['prometheus_client'] = None\n")
    environ = settings[1] | {"PYTHONPATH": os.pathsep.join([str(hidden), settings[1].get("PYTHONPATH", "")])}
    output = failing(tmp_path, environ, *CONFIGURATION)
    assert "FLASK_SECURE_ML_METRICS_LISTEN requires the package prometheus_client: pip install" in output
    assert "flask-secure-ml[metrics]" in output
    assert "Traceback" not in output


def test_a_port_that_gunicorn_does_not_know(tmp_path: Path, settings: tuple[int, dict[str, str]]) -> None:
    """The setting only in the code of an app that is not preloaded is an error with a remedy."""
    port, environ = settings
    del environ["FLASK_SECURE_ML_METRICS_LISTEN"]
    environ["LISTEN_IN_CODE"] = f"127.0.0.1:{port}"
    output = failing(tmp_path, environ, *CONFIGURATION, "--workers", "1")
    assert f"gunicorn does not listen on 127.0.0.1:{port}" in output
    assert "set FLASK_SECURE_ML_METRICS_LISTEN in its environment or use --preload" in output


def test_a_port_that_the_app_does_not_know(tmp_path: Path, settings: tuple[int, dict[str, str]]) -> None:
    """No process would respond there, so gunicorn does not start."""
    environ = settings[1] | {"LISTEN_IN_CODE": "off"}
    output = failing(tmp_path, environ, *CONFIGURATION, "--workers", "1")
    assert "FLASK_SECURE_ML_METRICS_LISTEN is set, but this app has no SECURE_ML_METRICS_LISTEN" in output


def test_a_port_in_the_code_of_a_preloaded_app(
    tmp_path: Path, certificate: Certificate, settings: tuple[int, dict[str, str]]
) -> None:
    """gunicorn has it from the app."""
    port, environ = settings
    del environ["FLASK_SECURE_ML_METRICS_LISTEN"]
    environ["LISTEN_IN_CODE"] = f"127.0.0.1:{port}"
    with gunicorn(tmp_path, certificate, environ, *CONFIGURATION, "--workers", "2", "--preload"):
        wait_until(lambda: workers(port) == 2, "two workers")
