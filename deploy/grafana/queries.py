"""The expressions of PromQL that panels share."""

from __future__ import annotations

AT = 'job="$job", instance=~"$instance"'
"""The labels that the variables of the dashboard choose."""

MOST = 10
"""The number of series that a graph by endpoint has at most."""

REQUESTS = "secure_ml_requests_total"
SECONDS = "secure_ml_request_duration_seconds"
AUTHENTICATIONS = "secure_ml_authentications_total"
CHECKPOINT = "secure_ml_audit_checkpoint_timestamp_seconds"
CERTIFICATES, KEY = "secure_ml_certificate_expiry_timestamp_seconds", "secure_ml_api_key_expiry_timestamp_seconds"

SLOW = 2.5
"""Seconds above which SecureMLSlow fires."""

Query = tuple[str, str]
"""An expression and the legend of its series."""


def of(name: str, more: str = "") -> str:
    """Return the series of a metric, of the chosen instances."""
    return f"{name}{{{AT}, {more}}}" if more else f"{name}{{{AT}}}"


def firing(severity: str) -> str:
    """Return the alerts of this package that fire, of a severity. Some have no instance."""
    return f'ALERTS{{alertname=~"SecureML.+", job="$job", severity="{severity}", alertstate="firing"}}'


def pending() -> str:
    """Return the alerts of this package whose condition holds, but not long enough yet."""
    return 'ALERTS{alertname=~"SecureML.+", job="$job", alertstate="pending"}'


def new(name: str, by: str) -> str:
    """Return the labels of a metric with which it had no series two minutes before."""
    return f"count by ({by}) ({of(name)}) unless on ({by}) {of(name)} offset 2m"


def rate(name: str, by: str = "", more: str = "", within: str = "[$__rate_interval]") -> str:
    """Return the rate of a counter, by labels or of everything."""
    return f"sum{_by(by)} (rate({of(name, more)}{within}))"


def busiest(name: str, by: str, more: str = "") -> str:
    """Return the rates of a counter by a label, for the ten values that have most in the whole time range.

    ``topk`` alone chooses for each point of time, which shows more than ten, in pieces.
    """
    whole = rate(name, by, more, "[$__range] @ end()")
    return f"{rate(name, by, more)} and on ({by}) topk({MOST}, {whole} > 0)"


def quantile(share: float, name: str, by: str = "", within: str = "[$__rate_interval]") -> str:
    """Return a quantile of a histogram, by a label or of everything."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', labels, within=within)})"


def slowest(share: float, name: str, by: str) -> str:
    """Return a quantile by a label, for the ten values where it is highest in the whole time range."""
    whole = quantile(share, name, by, "[$__range] @ end()")
    return f"{quantile(share, name, by)} and on ({by}) topk({MOST}, {whole} > 0)"


def events(name: str, by: str, more: str = "") -> str:
    """Return the events in one bar of a graph, for labels that have any in the time range."""
    counted, whole = (
        f"sum by ({by}) (increase({of(name, more)}{time}))" for time in ("[$__interval]", "[$__range] @ end()")
    )
    return f"{counted} and on ({by}) {whole} > 0"


def within(name: str, time: str) -> str:
    """Return the events within a time."""
    return f"sum(increase({of(name)}[{time}]))"


def count_of(condition: str, all_of: str) -> str:
    """Return how many series meet a condition: 0 if there are others, and nothing if there are none."""
    return f"count({condition}) or 0 * count({all_of})"


def share(name: str, more: str) -> str:
    """Return the share of a counter that has labels, which is 0 where no series has them."""
    return f"({rate(name, more=more)} or 0 * {rate(name)}) / {rate(name)}"


def age(name: str, by: str = "", more: str = "") -> str:
    """Return the seconds since the earliest time of a gauge, by labels."""
    return f"max{_by(by)} (time() - {of(name, more)})"


def days_until(*names: str, by: str = "") -> str:
    """Return the days until the earliest time of gauges, by labels."""
    return f"min{_by(by)} (({' or '.join(of(each) for each in names)}) - time()) / 86400"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
