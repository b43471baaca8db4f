"""The page on load balancers: each of its settings can be used as it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flask_secure_ml.config import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "load_balancers.rst").read_text(encoding="utf-8")
NETWORKS = re.findall(r"FLASK_SECURE_ML_TRUSTED_PROXIES='(.*?)'", PAGE)
HEADERS = re.findall(r"FLASK_SECURE_ML_CLIENT_CERTIFICATE_HEADER=([\w-]+)", PAGE)


@pytest.mark.parametrize("networks", NETWORKS)
def test_networks(networks: str) -> None:
    """They are accepted, and none is open to all."""
    found = Settings.load({"SECURE_ML_TRUSTED_PROXIES": json.loads(networks)}).trusted_proxies
    assert len(found.networks) == len(json.loads(networks))


@pytest.mark.parametrize("header", HEADERS)
def test_headers(header: str) -> None:
    """The app reads them."""
    config = {"SECURE_ML_CLIENT_CERTIFICATE_HEADER": header, "SECURE_ML_TRUSTED_PROXIES": ["10.0.0.0/20"]}
    assert Settings.load(config).client_certificate_header == header


def test_every_provider_has_settings() -> None:
    """The tests above have found their input."""
    assert (len(NETWORKS), sorted(HEADERS)) == (3, ["Client-Cert", "X-Amzn-Mtls-Clientcert-Leaf"])


@pytest.mark.parametrize(
    "provider", ["AWS Application Load Balancer", "Google Cloud Application Load Balancer", "Azure"]
)
def test_headers_that_clients_choose(provider: str) -> None:
    """Each section says what to do about a host that a client sends."""
    section = re.split(r"\n[^\n]+\n-{4,}\n", PAGE.partition(f"\n{provider}\n")[2].partition("\n")[2])[0]
    assert "X-Forwarded-Host" in section
