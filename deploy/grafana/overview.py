"""What an operator looks at first."""

from __future__ import annotations

import re
from pathlib import Path

from .panels import BAD, GOOD, PLAIN, STATES, WARN, Panel, number, states
from .queries import (
    CERTIFICATES,
    CHECKPOINT,
    KEY,
    REQUESTS,
    SECONDS,
    SLOW,
    age,
    count_of,
    days_until,
    firing,
    of,
    pending,
    quantile,
    rate,
    share,
    within,
)

RULES = Path(__file__).parents[2] / "flask_secure_ml/deploy/templates/prometheus/alerts.yml"
NAMES = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))


def numbers() -> list[Panel]:
    """Return the panels of current numbers."""
    ready = of("secure_ml_part_ready")
    return [
        number(
            "Instances",
            "Instances that do not respond to Prometheus.",
            count_of(f"{of('up')} == 0", of("up")),
            "suffix: down",
            [(0, GOOD), (1, BAD)],
            mappings={"0": ("all up", GOOD)},
            none="no target",
            without=BAD,
            runbooks=["SecureMLDown"],
        ),
        *(
            number(
                title,
                f"Alerts of flask-secure-ml that fire, of the severity {severity}, on any instance.",
                f"count(count by (alertname) ({firing(severity)})) or vector(0)",
                "none",
                [(0, GOOD), (1, colour)],
                mappings={"0": ("none", GOOD)},
            )
            for title, severity, colour in (("Critical alerts", "critical", BAD), ("Warnings", "warning", WARN))
        ),
        number(
            "Server errors",
            "The share of responses with a status of 5xx.",
            share(REQUESTS, 'status=~"5.."'),
            "percentunit",
            [(0, GOOD), (0.01, WARN), (0.05, BAD)],
            none="no traffic",
            runbooks=["SecureMLErrors"],
        ),
        number(
            "Latency, p99",
            "1 % of requests take longer.",
            quantile(0.99, SECONDS),
            "s",
            [(0, GOOD), (SLOW, WARN), (10, BAD)],
            none="no traffic",
            runbooks=["SecureMLSlow"],
        ),
        number("Requests", "Of all endpoints, with those that were rejected.", rate(REQUESTS), "reqps", [(0, PLAIN)]),
        number(
            "Limit store",
            "down: a worker could not use it last time.",
            f"min({of('secure_ml_limit_store_up')})",
            "none",
            [],
            mappings=STATES,
            runbooks=["SecureMLStoreDown"],
        ),
        number(
            "Parts",
            "Dependencies that are not ready on an instance: API keys, issuers, stores.",
            count_of(f"{ready} == 0", ready),
            "suffix: down",
            [(0, GOOD), (1, BAD)],
            mappings={"0": ("all ready", GOOD)},
            runbooks=["SecureMLPartNotReady"],
        ),
        number(
            "Rejected requests",
            "The share of responses with a status of 4xx. The requests of an attack count too.",
            share(REQUESTS, 'status=~"4.."'),
            "percentunit",
            [(0, GOOD), (0.2, WARN)],
            none="no traffic",
            runbooks=["SecureMLManyLimited", "SecureMLCredentialStuffing", "SecureMLScraping"],
        ),
        number(
            "Anomalies in an hour",
            "Callers and networks with unusual traffic. Needs SECURE_ML_ANOMALIES.",
            f"round({within('secure_ml_anomalies_total', '1h')})",
            "none",
            [(0, GOOD), (1, "yellow"), (10, WARN)],
            none="off",
            runbooks=["SecureMLUnusualTraffic"],
        ),
        number(
            "Next expiry",
            "Of a certificate or an API key. A large negative number means that a certificate cannot be read.",
            days_until(CERTIFICATES, KEY),
            "suffix: days",
            [(-1e9, BAD), (7, WARN), (14, GOOD)],
            none="none",
            runbooks=["SecureMLCertificateExpires", "SecureMLApiKeysExpire"],
        ),
        number(
            "Last audit checkpoint",
            "Its age, for the worker with the oldest one. Needs SECURE_ML_AUDIT_LOG.",
            age(CHECKPOINT, more='sink="index"'),
            "s",
            [(0, GOOD), (300, WARN), (600, BAD)],
            none="off",
            runbooks=["SecureMLAuditBehind"],
        ),
    ]


def alerts() -> list[Panel]:
    """Return the panels of alerts over time."""
    return [
        states(
            "Alerts",
            "Pending: the condition is true, but not for long enough yet. Click a line to open its runbook.",
            [
                (
                    f"max by (alertname) (3 * {firing('critical')} or 2 * {firing('warning')} or {pending()})",
                    "{{alertname}}",
                )
            ],
            mappings={"1": ("pending", "yellow"), "2": ("warning", WARN), "3": ("critical", BAD)},
            links=NAMES,
            none="No alert was pending or firing.",
        )
    ]
