"""Gauges that are computed for each scrape by any worker, so that workers do not keep old values.

A gauge in the shared directory keeps the last value that its worker wrote. For values that depend on time, files or a
store, that value would be out of date.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from cryptography import x509
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from ...errors import SecureMLError
from ...refresh import Outage, WatchedFile

log: logging.Logger = logging.getLogger(__name__)

DAY = 86_400
WITHIN = (1, 7, 30)
"""API keys that expire within this many days are counted."""

_ACTIVE = "active"


class Family(NamedTuple):
    """One metric: its name, help and label name, which is empty for none."""

    name: str
    text: str
    label: str = ""

    def gauge(self) -> GaugeMetricFamily:
        """Return the gauge without samples."""
        return GaugeMetricFamily(self.name, self.text, labels=[self.label] if self.label else [])


PART_READY = Family("secure_ml_part_ready", "1 while a part that requests need is up, for the scraped worker.", "part")
CERTIFICATE = Family(
    "secure_ml_certificate_expiry_timestamp_seconds",
    "Expiry of the first certificate in a file to expire; 0 if the file cannot be read.",
    "certificate",
)
KEY_EXPIRY = Family("secure_ml_api_key_expiry_timestamp_seconds", "Expiry of the API key in use that expires next.")
KEYS_EXPIRING = Family("secure_ml_api_keys_expiring", "API keys in use that expire within this many days.", "days")
ANOMALY_SCORE = Family(
    "secure_ml_anomaly_score", "Highest anomaly score of recently active subjects; 1 and above is unusual.", "signal"
)
FAMILIES = (PART_READY, CERTIFICATE, KEY_EXPIRY, KEYS_EXPIRING, ANOMALY_SCORE)

Sample = tuple[Family, str, float]
"""A metric, the value of its label and its value."""

Source = Callable[[], Iterable[Sample]]


class Facts:
    """The gauges that are computed for each scrape."""

    def __init__(self) -> None:
        self._sources: list[Source] = []

    def add(self, source: Source) -> None:
        """Add a source that is called for each scrape; if it raises, its samples are omitted."""
        self._sources.append(source)

    def describe(self) -> Iterator[Metric]:
        """Yield each metric without samples."""
        return (each.gauge() for each in FAMILIES)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that have samples now."""
        found = {each: each.gauge() for each in FAMILIES}
        for source in self._sources:
            for family, label, value in _called(source):
                found[family].add_metric([label] if family.label else [], value)
        return (each for each in found.values() if each.samples)


def _called(source: Source) -> Sequence[Sample]:
    try:
        return list(source())
    except SecureMLError as error:
        # The failing part reports its own outage.
        log.debug("a metrics source is not available: %s", error.reason)
    except Exception:
        log.exception("a metrics source failed")
    return ()


class Readiness(Protocol):
    """The parts that requests need, and which of them are down."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all parts."""

    def problems(self) -> Sequence[str]:
        """Return the names of the parts that are down."""


def readiness_facts(readiness: Readiness) -> Source:
    """Return the source for the parts that requests need."""

    def found() -> Iterator[Sample]:
        down = set(readiness.problems())
        for part in readiness.names:
            yield PART_READY, part, float(part not in down)

    return found


def score_facts(scores: Callable[[], Mapping[str, float]]) -> Source:
    """Return the source for the scores of anomaly signals.

    :param scores: returns the highest score of each signal.
    """
    return lambda: ((ANOMALY_SCORE, signal, score) for signal, score in scores().items())


class Key(Protocol):
    """The members of an API key record that the metrics use."""

    @property
    def expires(self) -> float | None:
        """Seconds since the epoch, or None."""

    @property
    def status(self) -> str:
        """``active``, or the reason why it is not accepted."""

    @property
    def replaced_by(self) -> str | None:
        """The id of its successor."""


def key_facts(records: Callable[[], Iterable[Key]], now: Callable[[], float]) -> Source:
    """Return the source for the expiry of API keys.

    Keys that are revoked, disabled, expired or replaced by a rotation are not counted.

    :param records: returns all records; if it raises, the samples are omitted.
    :param now: returns seconds since the epoch.
    """

    def found() -> Iterator[Sample]:
        current = now()
        ends = [
            each.expires
            for each in records()
            if each.expires is not None
            and each.expires > current
            and each.status == _ACTIVE
            and each.replaced_by is None
        ]
        if ends:
            yield KEY_EXPIRY, "", min(ends)
        for days in WITHIN:
            yield KEYS_EXPIRING, str(days), float(sum(end <= current + days * DAY for end in ends))

    return found


class Certificates:
    """The source for the expiry of certificates in files, which are reloaded when they change.

    :param paths: the paths by label value.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._files: dict[str, tuple[WatchedFile[float], Outage]] = {}
        for name, path in paths.items():
            self.watch(name, path)

    def watch(self, name: str, path: str) -> None:
        """Add a file, unless the name already exists."""
        outage = Outage(f"the expiry of {path} is unknown", f"the expiry of {path} is known again")
        self._files.setdefault(name, (WatchedFile(path, first_expiry), outage))

    def __call__(self) -> Iterator[Sample]:
        """Yield the earliest expiry in each file."""
        for name, (file, outage) in tuple(self._files.items()):
            try:
                ends = file.read()
            except (OSError, ValueError) as error:
                outage.failed(str(error))
                # Report it as expired, so that the alert fires when the expiry is unknown.
                ends = 0.0
            else:
                outage.ended()
            yield CERTIFICATE, name, ends


def first_expiry(raw: bytes) -> float:
    """Return the earliest expiry of PEM certificates, in seconds since the epoch.

    :raises ValueError: there is none, or one is damaged.
    """
    return min(each.not_valid_after_utc.timestamp() for each in x509.load_pem_x509_certificates(raw))
