"""The files for monitoring in deploy/, the names of the metrics, and a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import yaml

from flask_secure_ml.observe.metrics import Metrics
from servers import PATIENCE, free_port, wait_until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
ALERTS_PAGE = ROOT / "docs" / "howto" / "alerts.rst"
METRICS_PAGE = ROOT / "docs" / "howto" / "metrics.rst"


def metric_names() -> set[str]:
    """Return the names of all series that the app can have."""
    found = set()
    for family in Metrics().registry.collect():
        if family.type == "counter":
            found.add(f"{family.name}_total")
        elif family.type == "histogram":
            found |= {f"{family.name}_{suffix}" for suffix in ("bucket", "count", "sum")}
        else:
            found.add(family.name)
    return found


def names_in(query: str) -> set[str]:
    """Return the names of the metrics in a query."""
    return set(re.findall(r"\b(?:secure_ml_\w+|up)\b", query))


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._opener = build_opener(ProxyHandler({}))

    def is_ready(self) -> bool:
        """Return True if it responds to queries; it listens earlier, with 503."""
        try:
            with self._opener.open(f"{self.url}/-/ready", timeout=10) as response:
                return bool(response.status == HTTPStatus.OK)
        except OSError:
            return False

    def get(self, path: str, **query: str) -> Any:
        """Return the data of a response of the API.

        :raises HTTPError: the query is wrong.
        """
        with self._opener.open(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=10) as response:
            return json.loads(response.read())["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found


@contextmanager
def prometheus(folder: Path, targets: list[str], key: str, authority: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the configuration in deploy/, changed where a machine differs, and a short interval."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    del config["alerting"]
    (job,) = config["scrape_configs"]
    (folder / "key").write_text(key)
    job["authorization"]["credentials_file"] = str(folder / "key")
    job["tls_config"]["ca_file"] = str(authority)
    job["scrape_timeout"] = "1s"
    job["static_configs"] = [{"targets": targets}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port, log = free_port(), folder / "prometheus.log"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=output, stderr=subprocess.STDOUT, cwd=folder
        )
        try:
            found = Prometheus(port, log)
            wait_until(lambda: found.is_ready() or process.poll() is not None, "Prometheus is not ready")
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            yield found
        finally:
            process.terminate()
            process.wait(PATIENCE)
