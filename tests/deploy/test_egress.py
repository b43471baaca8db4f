"""Where network policies let an app connect to."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from deployed_app import create_app
from flask_secure_ml.deploy.egress import Egress, egress_of
from flask_secure_ml.deploy.facts import facts_of


def rule(uri: str) -> Egress | None:
    found = [each for each in egress_of(facts_of(create_app(SECURE_ML_STORE_URI=uri))) if each.purpose == "store"]
    return found[0] if found else None


def allows(found: Egress, address: str) -> bool:
    """Return the decision of Kubernetes for the rule."""
    where = ip_address(address)
    return any(
        where in ip_network(block.cidr) and not any(where in ip_network(each) for each in block.besides)
        for block in found.blocks
        if ip_network(block.cidr).version == where.version
    )


@pytest.mark.parametrize(
    ("uri", "allowed", "denied", "port"),
    [
        ("redis://10.1.2.3/0", ["10.1.2.3"], ["10.1.2.4", "::1"], 6379),
        ("rediss://[fd00::7]:7000/0", ["fd00::7"], ["fd00::8"], 7000),
        (
            "rediss://valkey.example.com:6380/0",
            ["10.1.2.3", "192.168.0.9", "fd00::7"],
            ["169.254.169.254", "8.8.8.8"],
            6380,
        ),
    ],
)
def test_stores(uri: str, allowed: list[str], denied: list[str], port: int) -> None:
    """An address is the only one; a name is somewhere in the private networks."""
    found = rule(uri)
    assert found is not None
    assert found.port == port
    assert all(allows(found, each) for each in allowed)
    assert not [each for each in denied if allows(found, each)]


def test_stores_of_the_cluster() -> None:
    """A service is found by its namespace, and no address is opened."""
    found = rule("redis://valkey.stores.svc.cluster.local/0")
    assert found is not None
    assert (found.namespace, found.blocks) == ("stores", ())
    found = rule("redis://valkey/0")
    assert found is not None
    assert (found.own_namespace, found.namespace, found.blocks) == (True, None, ())


@pytest.mark.parametrize("uri", ["memory:", "redis://127.0.0.1/0", "redis://localhost/0"])
def test_what_stays_in_the_pod(uri: str) -> None:
    """It needs no rule."""
    assert rule(uri) is None


@pytest.mark.parametrize("private", [False, True])
def test_issuers(private: bool) -> None:
    """One on the internet is at a public address only, so never at the metadata of a cloud; a private one is not."""
    issuer = {"issuer": "https://id.example.com", "audience": "a", "algorithms": ["ES256"], "private_network": private}
    app = create_app(SECURE_ML_TOKEN_ISSUERS=[issuer | {"jwks_uri": "https://id.example.com/keys"}])
    (found,) = (each for each in egress_of(facts_of(app)) if each.purpose == "issuer")
    public, inside = ["93.184.216.34", "2606:4700::1111"], ["10.0.0.1", "192.168.1.1", "fd00::1"]
    assert [allows(found, each) for each in public] == [not private] * 2
    assert [allows(found, each) for each in inside] == [private] * 3
    assert not allows(found, "169.254.169.254")
    assert not allows(found, "127.0.0.1")


PUBLIC, PRIVATE = "93.184.216.34", "10.0.0.1"


@pytest.mark.parametrize(
    ("settings", "purpose", "port", "protocol", "allowed"),
    [
        ({"RATELIMIT_STORAGE_URI": "redis://limits.example.com/0"}, "limits", 6379, "TCP", [PRIVATE]),
        ({"SECURE_ML_SENTRY_DSN": "env:DSN"}, "errors", 443, "TCP", [PUBLIC, PRIVATE]),
        ({"SECURE_ML_AUDIT_CHECKPOINT_SINKS": ["https://witness.example.com/x"]}, "checkpoints", 443, "TCP", [PUBLIC]),
        (
            {"SECURE_ML_AUDIT_CHECKPOINT_SINKS": ["https+private://witness.example.com:8443/x"]},
            "checkpoints",
            8443,
            "TCP",
            [PRIVATE],
        ),
        (
            {"SECURE_ML_AUDIT_CHECKPOINT_SINKS": ["syslog+tcp://log.example.com:6514"]},
            "checkpoints",
            6514,
            "TCP",
            [PUBLIC, PRIVATE],
        ),
        (
            {"SECURE_ML_AUDIT_CHECKPOINT_SINKS": ["syslog+udp://log.example.com"]},
            "checkpoints",
            514,
            "UDP",
            [PUBLIC, PRIVATE],
        ),
        (
            {
                "SECURE_ML_ALERT_WEBHOOK": "https+private://alerts.example.com/x",
                "SECURE_ML_ALERT_WEBHOOK_SECRET": "env:S",
            },
            "alerts",
            443,
            "TCP",
            [PRIVATE],
        ),
    ],
    ids=["limits", "sentry", "https", "private", "syslog", "udp", "alerts"],
)
def test_receivers(settings: dict[str, Any], purpose: str, port: int, protocol: str, allowed: list[str]) -> None:
    """Alerts, checkpoints and errors reach their receivers, and never the metadata of a cloud."""
    facts = facts_of(create_app(SECURE_ML_AUDIT_LOG="/var/log/own", **settings))
    (found,) = (each for each in egress_of(facts) if each.purpose == purpose)
    assert (found.port, found.protocol) == (port, protocol)
    assert [address for address in (PUBLIC, PRIVATE) if allows(found, address)] == allowed
    assert not allows(found, "169.254.169.254")


def test_an_issuer_behind_a_proxy() -> None:
    """The app connects to the proxy only."""
    issuer = {"issuer": "https://id.example.com", "audience": "a", "algorithms": ["ES256"]}
    more = {"jwks_uri": "https://id.example.com/keys", "proxy": "http://proxy.example.com:3128"}
    facts = facts_of(create_app(SECURE_ML_TOKEN_ISSUERS=[issuer | more]))
    assert [(each.place, each.port) for each in egress_of(facts) if each.purpose == "issuer"] == [
        ("proxy.example.com:3128", 3128)
    ]
