"""Whether all parts of the app work."""

from __future__ import annotations

from .panels import BAD, GOOD, WARN, Panel, bars, gauges, graph, states
from .queries import CERTIFICATES, CHECKPOINT, KEY, age, days_until, events, of

SENT = {"sent": GOOD, "failed": WARN, "dropped": BAD}


def instances() -> list[Panel]:
    """Return the panels about instances and when they started."""
    ready = of("secure_ml_part_ready")
    return [
        states(
            "Parts",
            "Dependencies of requests: up if ready on all instances. Below are the instances where a part is down.",
            [
                (f"min by (part) ({ready})", "{{part}}"),
                (f"min({of('secure_ml_limit_store_up')})", "limit store, last use"),
                (f"min by (issuer) ({of('secure_ml_jwks_refresh_ok')})", "last fetch of {{issuer}}"),
                (f"min by (part, instance) ({ready}) == 0", "{{part}} on {{instance}}"),
            ],
            runbooks=["SecureMLPartNotReady", "SecureMLStoreDown"],
        ),
        states(
            "Instances",
            "Whether the app responds to Prometheus.",
            [(of("up"), "{{instance}}")],
            none="No instance is scraped.",
            runbooks=["SecureMLDown"],
        ),
        bars(
            "Outages of the limit store",
            "Each worker reports separately when the store goes down and when it is up again.",
            [(events("secure_ml_limit_store_changes_total", "to, instance"), "{{to}} on {{instance}}")],
            colours={"down": BAD, "up": GOOD},
            none="No outages.",
            runbooks=["SecureMLStoreUnstable"],
        ),
        bars(
            "Worker starts",
            "Frequent starts mean that workers are killed or time out.",
            [(events("secure_ml_worker_starts_total", "instance"), "{{instance}}")],
            none="No worker started.",
            runbooks=["SecureMLWorkersRestart"],
        ),
        graph(
            "Workers and requests in flight",
            "Processes that serve requests, and requests that wait for their response.",
            "none",
            [
                (f"sum by (instance) ({of('secure_ml_workers')})", "{{instance}} workers"),
                (f"sum by (instance) ({of('secure_ml_requests_in_flight')})", "{{instance}} requests"),
            ],
            highest=1,
            current=True,
            whole=True,
        ),
        bars(
            "Alerts for the webhook",
            "By result.",
            [(events("secure_ml_alerts_total", "result"), "{{result}}")],
            colours=SENT,
            none="No alerts were posted. They need SECURE_ML_ALERT_WEBHOOK.",
            runbooks=["SecureMLAlertsLost"],
        ),
    ]


def keys() -> list[Panel]:
    """Return the panels about expiry dates and the verification of tokens."""
    expiring = "secure_ml_api_keys_expiring"
    return [
        gauges(
            "Days until certificates and API keys expire",
            "The first certificate in each file to expire, and the next API key.",
            "suffix: days",
            [
                (days_until(CERTIFICATES, by="certificate, instance"), "{{certificate}} on {{instance}}"),
                (days_until(KEY), "next API key"),
            ],
            [(0, BAD), (7, WARN), (14, GOOD)],
            highest=90,
            none="Nothing expires.",
            broken="the file cannot be read",
            runbooks=["SecureMLCertificateExpires", "SecureMLApiKeysExpire"],
        ),
        gauges(
            "Expiring API keys",
            "Within the given number of days. Rotated, disabled and revoked keys are not counted.",
            "none",
            [
                ("max(" + of(expiring, f'days="{days}"') + ")", f"within {text}")
                for days, text in ((1, "a day"), (7, "a week"), (30, "30 days"))
            ],
            [(0, GOOD), (1, WARN)],
            highest=10,
            none="No API keys.",
            runbooks=["SecureMLApiKeysExpire"],
        ),
        graph(
            "Age of key sets",
            "Time since a worker last fetched the keys of an issuer.",
            "s",
            [(age("secure_ml_jwks_fetched_timestamp_seconds", "issuer, instance"), "{{issuer}} on {{instance}}")],
            current=True,
            below=True,
            none="No issuers.",
            runbooks=["SecureMLKeySetStale"],
        ),
        bars(
            "Key set fetches",
            "By result.",
            [(events("secure_ml_jwks_refreshes_total", "issuer, result"), "{{result}}: {{issuer}}")],
            colours={"failed": BAD, "fetched": GOOD},
            none="No fetches.",
            runbooks=["SecureMLKeySetStale"],
        ),
    ]


def logs() -> list[Panel]:
    """Return the panels about logs."""
    return [
        graph(
            "Age of audit checkpoints",
            "Time since the last one was signed (index) or reached a sink, for the slowest worker. "
            "The alert fires above ten minutes (dashed).",
            "s",
            [(age(CHECKPOINT, "sink, instance"), "{{sink}} on {{instance}}")],
            current=True,
            limits=[(600, BAD)],
            none="No checkpoints. They need SECURE_ML_AUDIT_LOG.",
            runbooks=["SecureMLAuditBehind", "SecureMLAuditSinkDown"],
        ),
        bars(
            "Audit checkpoints",
            "By result and sink. Failed ones are sent again.",
            [(events("secure_ml_audit_checkpoints_total", "sink, result"), "{{result}}: {{sink}}")],
            colours=SENT,
            none="No checkpoints. They need SECURE_ML_AUDIT_LOG.",
            runbooks=["SecureMLAuditSinkDown"],
        ),
        graph(
            "Audit records without a checkpoint",
            "As of each worker's last attempt to create a checkpoint.",
            "none",
            [(f"sum by (instance) ({of('secure_ml_audit_uncovered_records')})", "{{instance}}")],
            highest=10,
            current=True,
            none="No records. They need SECURE_ML_AUDIT_LOG.",
        ),
        bars(
            "Lost records and lines",
            "Audit records that could not be written, and request log lines that were dropped.",
            [
                (events("secure_ml_audit_failed_records_total", "instance"), "audit records of {{instance}}"),
                (events("secure_ml_log_dropped_lines_total", "instance"), "lines of {{instance}}"),
            ],
            colours={"audit": BAD, "lines": WARN},
            none="Nothing was lost.",
            runbooks=["SecureMLAuditRecordsLost", "SecureMLLogDropped"],
        ),
    ]
