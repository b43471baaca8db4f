"""The monitoring files, the names of the metrics, and a real Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import yaml

from deployed_app import own_facts
from flask_secure_ml.deploy.targets import targets
from flask_secure_ml.deploy.templates import DIRECTORY as TEMPLATES
from flask_secure_ml.observe.metrics import Metrics
from flask_secure_ml.observe.metrics.facts import FAMILIES
from servers import free_port, started

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ALERTS = TEMPLATES / "prometheus" / "alerts.yml"
DASHBOARD = TEMPLATES / "grafana" / "dashboard.json"
ALERTS_PAGE = ROOT / "docs" / "howto" / "alerts.rst"
METRICS_PAGE = ROOT / "docs" / "howto" / "metrics.rst"


def metric_names() -> set[str]:
    """Return the names of all series that the app can have."""
    found = {each.name for each in FAMILIES}
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
        """Return the data of an API response.

        :raises HTTPError: the query is invalid.
        """
        with self._opener.open(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=10) as response:
            return json.loads(response.read())["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the current samples of an expression."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found


@contextmanager
def prometheus(
    folder: Path, places: list[str], key: str, authority: Path, ports: Sequence[str] = ()
) -> Iterator[Prometheus]:
    """Run Prometheus with the generated configuration, adapted to this machine, and a short interval.

    :param ports: ports that serve only metrics, which a job "port" scrapes with default settings.
    """
    facts = own_facts(upstream_ca="/etc/prometheus/ca.pem", upstream_name="localhost")
    config = yaml.safe_load(targets()["prometheus"].make(facts)["prometheus.yml"])
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    del config["alerting"]
    (job,) = config["scrape_configs"]
    (folder / "key").write_text(key)
    job["authorization"]["credentials_file"] = str(folder / "key")
    job["tls_config"]["ca_file"] = str(authority)
    job["scrape_timeout"] = "1s"
    job["static_configs"] = [{"targets": places}]
    config["scrape_configs"].append({"job_name": "port", "static_configs": [{"targets": [*ports]}]})
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port, log = free_port(), folder / "prometheus.log"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    found = Prometheus(port, log)
    with started(command, found.is_ready, log, cwd=folder):
        yield found
