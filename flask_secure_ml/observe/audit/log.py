"""The audit log of one app: the recorder of requests, and records of everything else."""

from __future__ import annotations

import hmac
import json
import logging
import os
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DependencyUnavailable
from ...exchange import Exchange
from ...principal import Clock
from ...refresh import Outage, PerProcess
from .keys import AppKeys, KeyFileError, load_app_keys
from .records import Members, canonical, checked
from .requests import members_of, stream_end_of
from .stream import STREAMS, StreamOptions
from .writer import LogOptions, Writer

if TYPE_CHECKING:
    from ...config import Settings

# What is recorded of the logs of this package; the first one that matches counts.
_LOGGERS = {
    "flask_secure_ml.limits.failure_throttle": "block",
    "flask_secure_ml.limits": "limits",
    "flask_secure_ml.refresh.breaker": "outage",
}
_PACKAGE = "flask_secure_ml"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DAY = 86_400
_BEGAN = "the audit log cannot be written"


class AuditLog:
    """Writes a record for each response, and for events.

    :param folder: the directory, with the keys of the app.
    :param required: a response whose record cannot be written must not leave.
    """

    def __init__(self, folder: Path, keys: AppKeys, clock: Clock, options: LogOptions, *, required: bool) -> None:
        self.required = required
        self._outage = Outage(_BEGAN, "the audit log is written again", clock.monotonic)
        self._writers: PerProcess[Writer] = PerProcess(partial(Writer, folder, keys, clock, options))
        weakref.finalize(self, _close, self._writers)
        os.register_at_fork(after_in_child=partial(_forget, weakref.ref(self._writers)))
        _follow_logs(self)

    def record(self, exchange: Exchange) -> str | None:
        """Write the record of a response that is about to start; return the reason if it cannot be written."""
        return self._write(lambda: members_of(exchange))

    def record_stream_end(self, exchange: Exchange) -> None:
        """Write the second record of a streamed response."""
        self._write(lambda: stream_end_of(exchange))

    def event(self, action: str, members: Mapping[str, Any]) -> str | None:
        """Write the record of an event; return the reason if it cannot be written.

        :raises ValueError: the members cannot be recorded.
        """
        found: Members = checked(members)
        return self._write(lambda: {**found, "action": checked(action)})

    def start(self) -> None:
        """Begin the stream of this process, which the first record does otherwise."""
        self._write(None)

    def ready(self) -> None:
        """Check that records can be written.

        :raises DependencyUnavailable: the last one could not, and neither can the number of those that are missing.
        """
        writer = self._writers.made()
        if writer is not None and writer.lost and (reason := self._write(None)):
            raise DependencyUnavailable(reason)

    def checkpoint(self) -> None:
        """Publish a checkpoint now.

        :raises OSError: the index cannot be written.
        """
        self._writers.get().checkpoint()

    def close(self) -> None:
        """End the stream of this process."""
        _close(self._writers)

    def _write(self, members: Callable[[], Members] | None) -> str | None:
        try:
            self._writers.get().append(None if members is None else members())
        except Exception as error:  # noqa: BLE001  whatever it is, the record is missing
            reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            self._outage.failed(reason)
            return f"{_BEGAN}: {reason}"
        self._outage.ended()
        return None


def open_audit_log(settings: Settings, clock: Clock, config: Mapping[str, Any]) -> tuple[AuditLog, AppKeys]:
    """Return the log of an app and its keys.

    :param config: the configuration of the app.
    :raises ConfigError: the directory has no keys, or cannot be written.
    """
    folder = Path(settings.audit_log).absolute()
    try:
        keys = load_app_keys(folder)
        (folder / STREAMS).mkdir(mode=0o700, exist_ok=True)
    except (KeyFileError, OSError) as error:
        raise ConfigError([f"SECURE_ML_AUDIT_LOG: {error}"]) from None
    digests = _digests(config, keys.digest)
    options = LogOptions(
        StreamOptions(settings.audit_sync, settings.audit_rotate_bytes, settings.audit_rotate_seconds),
        settings.audit_checkpoint_seconds,
        settings.audit_checkpoint_records,
        settings.audit_retention_days * _DAY,
        settings.audit_checkpoint_sinks,
        {
            "boot": _boot_id(),
            "configuration": hmac.digest(keys.digest, canonical(digests), "sha256").hex(),
            "origin": keys.origin,
            "version": version("flask-secure-ml"),
        },
        digests,
    )
    return AuditLog(folder, keys, clock, options, required=settings.audit_required), keys


def _digests(config: Mapping[str, Any], key: bytes) -> dict[str, str]:
    """Return a keyed digest of each setting, so that a record says what changed and not from what to what."""
    given = {name: value for name, value in config.items() if name.startswith(("SECURE_ML_", "RATELIMIT_"))}
    return {
        name: hmac.digest(
            key,
            f"{name}={json.dumps(value, sort_keys=True, default=lambda each: type(each).__name__)}".encode(),
            "sha256",
        ).hex()
        for name, value in given.items()
    }


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def _close(writers: PerProcess[Writer]) -> None:
    writer = writers.made()
    if writer is not None:
        writer.close()


def _forget(writers: weakref.ref[PerProcess[Writer]]) -> None:
    """Overwrite, in a child, the keys of the processes that it was forked from."""
    found = writers()
    for each in found.inherited() if found is not None else ():
        each.discard()


class _LogEvents(logging.Handler):
    """Makes records of what the parts of this package log about blocks and outages."""

    def __init__(self, audit: AuditLog) -> None:
        super().__init__(logging.WARNING)
        self._audit = weakref.ref(audit)

    def emit(self, record: logging.LogRecord) -> None:
        audit = self._audit()
        action = next((each for name, each in _LOGGERS.items() if f"{record.name}.".startswith(f"{name}.")), None)
        message = record.getMessage()
        # What this log reports about itself cannot be written to it.
        if audit is not None and action is not None and not message.startswith("the audit log"):
            audit.event(action, {"message": message})


def _follow_logs(audit: AuditLog) -> None:
    package, handler = logging.getLogger(_PACKAGE), _LogEvents(audit)
    package.addHandler(handler)
    weakref.finalize(audit, package.removeHandler, handler)
