"""The panels about requests and their responses."""

from __future__ import annotations

from .panels import BAD, GOOD, MUTED, PLAIN, WARN, Panel, bars, graph
from .queries import AUTHENTICATIONS, REQUESTS, SECONDS, SLOW, busiest, events, of, quantile, rate, slowest

STATUS = {"2": GOOD, "3": PLAIN, "4": "light-orange", "401": "yellow", "429": "dark-orange", "5": BAD}
UNKNOWN = {"unknown$": MUTED}
"""URLs without a route."""

CODES = {
    "(not_authenticated|insufficient_scope|forbidden|tls_required|origin_not_allowed)": "yellow",
    "(rate_limited|quota_exceeded|too_many_in_flight|abnormal_usage)": WARN,
    "(not_found|method_not_allowed)": PLAIN,
    "(malformed_request|validation_failed|payload_too_large|unsupported_media_type|not_acceptable)": "purple",
    "(internal_error|dependency_unavailable)": BAD,
}
"""Credentials, limits, URLs, inputs, the server."""


def traffic() -> list[Panel]:
    """Return the panels about requests."""
    return [
        graph(
            "Requests by status",
            "Responses that started.",
            "reqps",
            [(rate(REQUESTS, "status"), "{{status}}")],
            stacked=True,
            colours=STATUS,
            runbooks=["SecureMLErrors"],
        ),
        graph(
            "Requests by endpoint",
            "The ten busiest endpoints. unknown: URLs that do not exist.",
            "reqps",
            [(busiest(REQUESTS, "endpoint"), "{{endpoint}}")],
            stacked=True,
            colours=UNKNOWN,
            runbooks=["SecureMLScraping"],
        ),
        graph(
            "Input rows",
            "Charged rows, on routes with cost=.",
            "rowsps",
            [(busiest("secure_ml_rows_total", "endpoint"), "{{endpoint}}")],
            stacked=True,
            none="No rows were charged.",
        ),
        graph(
            "Received bodies",
            "Bytes of request bodies that were read.",
            "Bps",
            [(busiest("secure_ml_received_bytes_total", "endpoint"), "{{endpoint}}")],
            stacked=True,
            none="No bodies were received.",
        ),
    ]


def failures() -> list[Panel]:
    """Return the panels about errors of the app."""
    return [
        graph(
            "Server errors by endpoint",
            "Responses with a status of 5xx: the ten endpoints with the most.",
            "reqps",
            [(busiest(REQUESTS, "endpoint", 'status=~"5.."'), "{{endpoint}}")],
            stacked=True,
            colours={"": BAD},
            none="No server errors.",
            runbooks=["SecureMLErrors"],
        ),
        bars(
            "Broken streams",
            "Streamed responses that ended too early, by endpoint.",
            [(events("secure_ml_broken_streams_total", "endpoint"), "{{endpoint}}")],
            colours={"": BAD},
            none="No stream broke.",
        ),
    ]


def latency() -> list[Panel]:
    """Return the panels about durations."""
    shares = ((0.99, "purple"), (0.95, PLAIN), (0.5, GOOD))
    return [
        graph(
            "Percentiles",
            "From the first byte of a request to the first byte of its response, over all endpoints.",
            "s",
            [(quantile(each, SECONDS), f"p{each * 100:.0f}") for each, _ in shares],
            colours={f"p{each * 100:.0f}": colour for each, colour in shares},
        ),
        graph(
            "p95 by endpoint",
            "5 % of requests take longer: the ten slowest endpoints. The alert fires above 2.5 s (dashed).",
            "s",
            [(slowest(0.95, SECONDS, "endpoint"), "{{endpoint}}")],
            colours=UNKNOWN,
            limits=[(SLOW, BAD)],
            runbooks=["SecureMLSlow"],
        ),
    ]


def rejections() -> list[Panel]:
    """Return the panels about rejections."""
    return [
        graph(
            "Error responses by code",
            "Yellow: credentials. Orange: limits. Blue: URLs. Purple: inputs. Red: errors of the server.",
            "reqps",
            [(busiest("secure_ml_rejections_total", "code"), "{{code}}")],
            stacked=True,
            colours=CODES,
            none="No error responses.",
        ),
        graph(
            "Error responses by endpoint",
            "The ten endpoints with the most error responses.",
            "reqps",
            [(busiest("secure_ml_rejections_total", "endpoint"), "{{endpoint}}")],
            stacked=True,
            colours=UNKNOWN,
            none="No error responses.",
        ),
        graph(
            "Accepted credentials",
            "By authentication method.",
            "reqps",
            [(rate(AUTHENTICATIONS, "method", 'result="accepted"'), "{{method}}")],
            stacked=True,
            colours={"": GOOD},
            none="No requests with a credential.",
        ),
        graph(
            "Rejected credentials",
            "Unknown, wrong, expired or revoked ones. Requests without a credential are not counted. "
            "The alert fires above 0.5 a second (dashed).",
            "reqps",
            [(rate(AUTHENTICATIONS, "method", 'result="rejected"'), "{{method}}")],
            stacked=True,
            colours={"": "yellow"},
            limits=[(0.5, BAD)],
            none="No credential was rejected.",
            runbooks=["SecureMLCredentialStuffing"],
        ),
    ]


def limits() -> list[Panel]:
    """Return the panels about limits."""
    return [
        graph(
            "Usage of the tightest limit",
            "The used share of the limit that is nearest to its end: one charge in twenty finds more than this. "
            "The alert fires when the median is above 90 % (dashed).",
            "percentunit",
            [(quantile(0.95, "secure_ml_limit_use_ratio", "limit"), "{{limit}}")],
            limits=[(0.9, WARN)],
            highest=1,
            none="No limit was charged.",
            runbooks=["SecureMLLimitNearlyUsed"],
        ),
        graph(
            "Rejections by limit",
            "backoff: the penalty of callers that went on beyond a limit.",
            "reqps",
            [(busiest("secure_ml_limit_rejections_total", "limit"), "{{limit}}")],
            stacked=True,
            colours={"": WARN},
            none="No limit rejected a request.",
            runbooks=["SecureMLManyLimited"],
        ),
    ]


def anomalies() -> list[Panel]:
    """Return the panels about anomalies."""
    return [
        bars(
            "Anomalies",
            "Callers and networks with unusual traffic, by signal.",
            [(events("secure_ml_anomalies_total", "signal"), "{{signal}}")],
            none="No anomalies. They need SECURE_ML_ANOMALIES.",
            runbooks=["SecureMLUnusualTraffic"],
        ),
        graph(
            "Anomaly scores",
            "The highest score by signal, of subjects that were active within ten minutes. 1 is unusual (dashed).",
            "none",
            [(f"max by (signal) ({of('secure_ml_anomaly_score')}) > 0", "{{signal}}")],
            limits=[(1, BAD)],
            highest=1.1,
            current=True,
            none="No score above 0. Scores need SECURE_ML_ANOMALIES.",
            runbooks=["SecureMLUnusualTraffic"],
        ),
    ]
