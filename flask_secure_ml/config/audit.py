"""The settings of the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from marshmallow import ValidationError

from ..policy.fields import Boolean, Choice, Integer, Strings
from ..policy.schema import Problem
from .fields import Location, setting

if TYPE_CHECKING:
    from . import Settings

OFF = "off"
_SYSLOG_PORTS = {"syslog+udp": 514, "syslog+tcp": 601}
_EXAMPLES = (
    "'file:/path', 'stdout', 'syslog+udp://host:514', 'syslog+tcp://host:601', 'syslog+unix:/dev/log', "
    "'https://host/path' or 'https+private://host/path'"
)


@dataclass(frozen=True)
class SinkAddress:
    """The destination of checkpoints.

    :param kind: ``file``, ``stdout`` (``stderr`` in commands), ``syslog+udp``, ``syslog+tcp``, ``syslog+unix`` or
        ``https``.
    :param target: the path or URL. A URL may contain the secret that authenticates the sender.
    :param private_network: the host of the URL may resolve to a private IP address.
    """

    kind: str
    target: str = field(default="", repr=False)
    host: str = ""
    port: int = 0
    private_network: bool = False


class AuditLocation(Location):
    """A directory, or ``off``."""

    def __init__(self) -> None:
        super().__init__(OFF)
        self.takes: str = "'off' or the path of a directory"


def sink_address(entry: str) -> SinkAddress:
    """Parse the address of a sink.

    :raises ValidationError: it is not one.
    """
    if entry == "stdout":
        return SinkAddress("stdout")
    kind, _, rest = entry.partition(":")
    if kind in {"file", "syslog+unix"} and rest.startswith("/") and not rest.startswith("//"):
        return SinkAddress(kind, rest)
    try:
        found = _remote(kind, entry)
    except ValueError:
        found = None
    if found is None:
        # The message does not repeat the value, which may contain a password.
        raise ValidationError(f"must be {_EXAMPLES}")
    return found


def _remote(kind: str, entry: str) -> SinkAddress | None:
    parts = urlsplit(entry)
    if not parts.hostname or parts.username is not None or parts.fragment:
        return None
    if kind in _SYSLOG_PORTS and not parts.path.strip("/") and not parts.query:
        return SinkAddress(kind, entry, parts.hostname, parts.port or _SYSLOG_PORTS[kind])
    if kind in {"https", "https+private"}:
        return SinkAddress("https", f"https:{entry.partition(':')[2]}", private_network=kind != "https")
    if kind == "http" and ip_address(parts.hostname).is_loopback:
        return SinkAddress("https", entry)
    return None


@dataclass(frozen=True)
class AuditSettings:
    """The audit log, which is tamper-evident up to the last external checkpoint."""

    audit_log: str = setting(
        AuditLocation(),
        OFF,
        """The directory of the audit log, which ``flask secure-ml audit init`` creates, or ``off``. See
        :doc:`/howto/audit`.""",
    )
    audit_required: bool = setting(
        Boolean(),
        False,
        """Replace a response by 503 if its record cannot be written (disk full, no permission). Otherwise the response
        is sent, the outage is logged, the signal ``audit_unavailable`` is sent, and the next record contains the number
        of missing records.""",
    )
    audit_sync: str = setting(
        Choice("off", "checkpoint", "record"),
        "checkpoint",
        """Which records survive a loss of power: with ``record`` all records, with ``checkpoint`` those that a
        checkpoint covers, with ``off`` those that the operating system has flushed. If only a process dies, no record
        is lost.""",
    )
    audit_input_digest: bool = setting(
        Boolean(),
        True,
        """Record the HMAC-SHA-256 of each request body that was read, with a key of the audit log. It can later prove
        which body was sent, and reveals nothing without the key.""",
    )
    audit_checkpoint_sinks: tuple[SinkAddress, ...] = setting(
        Strings("file:/mnt/witness/checkpoints", sink_address),
        [],
        """Where signed checkpoints are sent, so that an attacker who compromises the app cannot change them:
        ``file:/path``, ``stdout``, ``syslog+udp://host:514``, ``syslog+tcp://host:601``, ``syslog+unix:/dev/log`` (RFC
        5424), ``https://host/path`` (POST) or ``https+private://host/path`` for a private IP address. Commands write to
        standard error instead of ``stdout``.""",
    )
    audit_checkpoint_records: int = setting(
        Integer(1, 10_000_000), 10_000, "A worker signs a checkpoint early after this many records."
    )
    audit_checkpoint_seconds: int = setting(
        Integer(1, 86_400, unit="seconds"),
        60,
        "Seconds between two checkpoints of a worker, even if there are no new records.",
    )
    audit_rotate_bytes: int = setting(
        Integer(4096, unit="bytes"), 100_000_000, "The size at which a worker starts a new file of its stream."
    )
    audit_rotate_seconds: int = setting(
        Integer(1, unit="seconds"), 86_400, "The age at which a worker starts a new file of its stream."
    )
    audit_retention_days: int = setting(
        Integer(0, 36_500, unit="days"),
        0,
        """Days after which closed files that a checkpoint covers are deleted; 0 keeps them. The deletion is recorded in
        the index.""",
    )


def check_audit(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if records are required but the audit log is off."""
    if settings.audit_required and settings.audit_log == OFF:
        yield ("audit_required",), "requires SECURE_ML_AUDIT_LOG, the directory of the audit log"
