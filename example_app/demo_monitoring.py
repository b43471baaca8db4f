"""The example under attack, monitored by Prometheus: ``python -m example_app.demo_monitoring``.

``make demo-monitoring`` runs it. It serves the API like ``make demo``, starts the installed Prometheus with the
configuration of ``flask secure-ml deploy prometheus``, sends legitimate requests and attacks for at most a minute, and
prints the alerts that fired. To keep it short, minutes in the alert rules are seconds here.

Environment variables: ``HOST``, ``PORT``, ``PROMETHEUS_PORT``, ``DEMO_STATE``, and ``DEMO_ONCE``, with which it exits
after the attack, with status 1 if an alert is missing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from flask import Flask

from flask_secure_ml import SecureML
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets import targets

from .demo import Api, main, payload, prepare, say
from .files import PRIVATE, write
from .keys import fresh_key
from .server import STOPPED_WITHIN, Address, Server, ServerError

COMMAND = "make demo-monitoring"
PROMETHEUS_PORT = 9090
ROUNDS = 60
"""The maximum number of rounds of load; one round takes a second."""

EXPECTED = frozenset({"SecureMLCredentialStuffing", "SecureMLScraping", "SecureMLManyLimited"})
PLANS = {
    "default": {"requests": ["600/minute"]},
    "greedy": {"requests": ["30/minute"]},
    "monitoring": {"requests": ["300/minute"]},
}


def run(environ: Mapping[str, str]) -> None:
    """Serve the API, attack it, and print the alerts.

    :raises ServerError: Prometheus is not installed, a server cannot run, or an alert did not fire.
    """
    program = shutil.which("prometheus", path=environ.get("PATH"))
    if program is None:
        raise ServerError("Prometheus is not installed. On Debian and Ubuntu: sudo apt install prometheus")
    own = Address.parse(environ.get("HOST", ""), environ.get("PORT", ""), COMMAND)
    watch = Address.parse("", environ.get("PROMETHEUS_PORT", ""), COMMAND, "PROMETHEUS_PORT", PROMETHEUS_PORT)
    own.check_free()
    watch.check_free()
    api = prepare(environ, own.host)
    greedy, _ = fresh_key(api.state, api.state / "pepper", "greedy", plan="greedy")
    api = replace(api, settings={**api.settings, **monitoring_settings(api.state)})
    configure(api, own)
    say("Starting gunicorn and Prometheus ...")
    log = (api.state / "request.log").as_posix()
    with (
        Server(own, {**environ, **api.tls, **api.settings, "FLASK_SECURE_ML_REQUEST_LOG": log}) as server,
        _prometheus(program, api.state, watch) as url,
    ):
        server.wait_until_ready(api.authority)
        say(f"\nServing on {own.url}; alerts are on {url}/alerts, the request log is {log}")
        say(f"Attacking for at most {ROUNDS} seconds. Minutes in the alert rules are seconds here.\n")
        missing = EXPECTED - _attack(Load(own, api, greedy), watch)
        if environ.get("DEMO_ONCE"):
            if missing:
                raise ServerError(f"these alerts did not fire: {', '.join(sorted(missing))}")
            return
        say("\nThe attack is over. Ctrl-C stops the servers.")
        server.wait()


def monitoring_settings(state: Path) -> dict[str, str]:
    """Return the settings of the API: metrics, plans, and a shared store."""
    return {
        "FLASK_SECURE_ML_METRICS": "/metrics",
        "FLASK_SECURE_ML_PLANS": json.dumps(PLANS),
        "FLASK_SECURE_ML_STORE_URI": f"sqlite:{state / 'shared.db'}",
    }


def configure(api: Api, own: Address) -> None:
    """Write the generated configuration of Prometheus, with the paths and intervals of the demo."""
    key, _ = fresh_key(api.state, api.state / "pepper", "prometheus", ("metrics",), "monitoring")
    write(api.state / "prometheus.key", key.encode(), PRIVATE)
    # Remove blocks from the last attack.
    for path in api.state.glob("shared.db*"):
        path.unlink()
    changes = {
        '"/etc/prometheus/secure-ml.key"': json.dumps(str(api.state / "prometheus.key")),
        '"/etc/prometheus/ca.pem"': json.dumps(str(api.authority)),
        "15s": "1s",
    }
    files = targets()["prometheus"].make(_facts(own))
    text = files["prometheus.yml"]
    for old, new in changes.items():
        text = text.replace(old, new)
    write(api.state / "prometheus.yml", text.encode())
    write(api.state / "alerts.yml", re.sub(r"(\[|for: )(\d+)m\b", r"\1\2s", files["alerts.yml"]).encode())


def _facts(own: Address) -> Facts:
    """Return the facts of an app with the metrics URL of the demo."""
    app = Flask(__name__)
    app.config["SECURE_ML_METRICS"] = "/metrics"
    app.config["SECURE_ML_DEPLOY"] = {
        "upstreams": [own.url.removeprefix("https://")],
        "upstream_ca": "/etc/prometheus/ca.pem",
        "upstream_name": "localhost",
    }
    SecureML(app)
    return facts_of(app)


class Load:
    """The requests of one round, which are sent only to the API on this machine.

    :param greedy: an API key whose plan allows half a request per second.
    """

    def __init__(self, own: Address, api: Api, greedy: str) -> None:
        self._own = own
        self._context = ssl.create_default_context(cafile=str(api.authority))
        body = payload()
        guessed = f"sml_{'A' * 12}_{'A' * 43}"
        self._requests = [
            *[("POST", "/v1/predict", api.key, body)] * 2,
            *[("GET", "/v1/model", greedy, None)] * 6,
            *[("GET", "/v1/model", guessed, None)] * 3,
            *[("GET", f"/{name}", "", None) for name in (".env", "wp-login.php", "admin")],
        ]

    def send(self) -> None:
        """Send all requests over one connection; if it breaks, the rest of the round is skipped."""
        connection = HTTPSConnection(self._own.reachable, self._own.port, timeout=5, context=self._context)
        try:
            for method, path, key, body in self._requests:
                headers = {"X-API-Key": key} if key else {}
                if body is not None:
                    headers["Content-Type"] = "application/json"
                connection.request(method, path, body, headers)
                connection.getresponse().read()
        except (OSError, HTTPException):
            return
        finally:
            connection.close()


def _attack(load: Load, watch: Address) -> set[str]:
    """Send the load until the expected alerts have fired or the rounds are over; return the fired alerts."""
    fired: set[str] = set()
    began = time.monotonic()
    for number in range(ROUNDS):
        load.send()
        for alert in _firing(watch):
            name = alert["labels"]["alertname"]
            if name not in fired:
                fired.add(name)
                say(f"{time.monotonic() - began:3.0f} s  {name}: {alert['annotations']['summary']}")
        if fired >= EXPECTED:
            break
        time.sleep(max(0.0, began + number + 1 - time.monotonic()))
    return fired


def _firing(watch: Address) -> list[dict[str, Any]]:
    connection = HTTPConnection(watch.reachable, watch.port, timeout=5)
    try:
        connection.request("GET", "/api/v1/alerts")
        found = json.loads(connection.getresponse().read())["data"]["alerts"]
    except (OSError, HTTPException, ValueError, KeyError):
        # Prometheus has not started yet.
        return []
    finally:
        connection.close()
    return [each for each in found if each["state"] == "firing"]


@contextmanager
def _prometheus(program: str, state: Path, watch: Address) -> Iterator[str]:
    """Run Prometheus with the files in the state directory, and yield its URL."""
    shutil.rmtree(state / "prometheus", ignore_errors=True)
    options = [f"--config.file={state / 'prometheus.yml'}", f"--storage.tsdb.path={state / 'prometheus'}"]
    with (state / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the program that PATH names, constant options
            [program, *options, f"--web.listen-address={watch.host}:{watch.port}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            yield f"http://{watch.reachable}:{watch.port}"
        finally:
            process.terminate()
            try:
                process.wait(STOPPED_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    sys.exit(main(os.environ, run))
