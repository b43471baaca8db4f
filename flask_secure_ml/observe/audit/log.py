"""The audit log of one app: records of requests and of other events."""

from __future__ import annotations

import hmac
import json
import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...describing import is_command
from ...errors import ConfigError, DependencyUnavailable
from ...exchange import Exchange
from ...principal import Clock
from ...refresh import Changed, Outage, PerProcess, failure_reason, sentence_of
from ..request_log.drops import handlers_of
from ..request_log.entry import clean
from .counts import INDEX, Counts, Uncounted
from .keys import AppKeys, KeyFileError, load_app_keys
from .records import MAX_TEXT, Members, canonical, checked
from .requests import members_of, stream_end_of
from .sinks import sink_names
from .stream import STREAMS, StreamOptions
from .writer import LogOptions, Writer

if TYPE_CHECKING:
    from ...config import Settings
    from ...config.audit import SinkAddress

# Loggers of this package whose warnings are recorded; the first match is used.
_LOGGERS = {
    "flask_secure_ml.limits.failure_throttle": "block",
    "flask_secure_ml.limits.engine": "block",
    "flask_secure_ml.limits": "limits",
    "flask_secure_ml.refresh.breaker": "outage",
    "flask_secure_ml.authentication.tokens.key_set": "key_set",
}
LARGEST_EVENT = 60_000
"""Maximum size of an event in bytes: the stream adds some members, and a line has at most 65,536 bytes."""

_PACKAGE = "flask_secure_ml"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DAY = 86_400
_BEGAN = "the audit log cannot be written"


class AuditLog:
    """Writes a record for each response and each event.

    :param folder: the directory, with the keys of the app.
    :param required: replace a response whose record cannot be written.
    :param model: the model of requests for which the view names none.
    :param counts: counts failed records, and checkpoints.
    :param changed: called when records or checkpoints cannot be written or sent, and when they can be again.
    """

    def __init__(
        self,
        folder: Path,
        keys: AppKeys,
        clock: Clock,
        options: LogOptions,
        *,
        required: bool,
        model: str = "",
        counts: Counts | None = None,
        changed: Changed = lambda _up, _line: None,
    ) -> None:
        self.required = required
        self.sinks: tuple[str, ...] = (INDEX, *sink_names(options.sinks))
        """The names of the checkpoint sinks in metrics."""
        self._model = model
        self._counts = counts or Uncounted()
        self._outage = Outage(_BEGAN, "the audit log is written again", clock.monotonic, changed)
        self._writers: PerProcess[Writer] = PerProcess(partial(Writer, folder, keys, clock, options, counts, changed))
        weakref.finalize(self, _close, self._writers)
        os.register_at_fork(after_in_child=partial(_discard, weakref.ref(self._writers)))
        self._events = _LogEvents(self)
        self._follow()
        weakref.finalize(self, _remove, self._events)

    def record(self, exchange: Exchange) -> str | None:
        """Write the record of a response before it starts; return the reason of a failure."""
        return self._write(members_of, exchange, self._model)

    def record_stream_end(self, exchange: Exchange) -> None:
        """Write the second record of a streamed response."""
        self._write(stream_end_of, exchange, self._model)

    def event(self, action: str, members: Mapping[str, Any]) -> str | None:
        """Write the record of an event; return the reason of a failure.

        :raises ValueError: the members are invalid or too large.
        """
        record = {**checked(members), "action": checked(action)}
        if len(canonical(record)) > LARGEST_EVENT:
            raise ValueError(f"the members of an audit record may have {LARGEST_EVENT} bytes of JSON in total")
        return self._write(dict, record)

    def start(self) -> None:
        """Start the stream of this process; otherwise the first record does."""
        self._write()

    def ready(self) -> None:
        """Check that records can be written.

        :raises DependencyUnavailable: the last record failed, and so does a record of the number of missing ones.
        """
        writer = self._writers.made()
        if writer is not None and writer.lost and (reason := self._write()):
            raise DependencyUnavailable(reason)

    def checkpoint(self) -> None:
        """Publish a checkpoint now.

        :raises OSError: the index cannot be written.
        """
        self._writers.get().checkpoint()

    def close(self) -> None:
        """End the stream of this process."""
        _close(self._writers)

    def _write(self, make: Callable[..., Members] | None = None, *source: object) -> str | None:
        """Write the record that a function creates; without one, only the number of missing records."""
        try:
            writer = self._writers.get()
            if not writer.used:
                writer.used = True
                if off := self._follow():
                    writer.append({"action": "events_off", "loggers": off})
            writer.append(None if make is None else make(*source))
        except Exception as error:  # noqa: BLE001  whatever it is, the record is missing
            reason = failure_reason(error)
            self._outage.failed(reason)
            if make is not None:
                self._counts.audit_record_failed()
            return f"{_BEGAN}: {reason}"
        self._outage.ended()
        return None

    def _follow(self) -> list[str]:
        """Follow the messages of the package, and return the loggers that are off.

        Called again when a process writes its first record, because the app may have configured logging meanwhile,
        which removes handlers.
        """
        package = logging.getLogger(_PACKAGE)
        if self._events not in package.handlers:
            package.addHandler(self._events)
        return [name for name in _LOGGERS if not logging.getLogger(name).isEnabledFor(logging.WARNING)]


def open_audit_log(
    settings: Settings,
    clock: Clock,
    config: Mapping[str, Any],
    counts: Counts | None = None,
    changed: Changed = lambda _up, _line: None,
) -> tuple[AuditLog, AppKeys]:
    """Return the log of an app and its keys.

    :param config: the configuration of the app.
    :param counts: counts failed records, and checkpoints.
    :param changed: called when the log is degraded, and when it works again.
    :raises ConfigError: the directory has no keys or is not writable.
    """
    folder = Path(settings.audit_log).absolute()
    try:
        keys = load_app_keys(folder)
        (folder / STREAMS).mkdir(mode=0o700, exist_ok=True)
    except (KeyFileError, OSError) as error:
        raise ConfigError([f"SECURE_ML_AUDIT_LOG: {sentence_of(error)}"]) from None
    digests = _digests(config, keys.digest)
    options = LogOptions(
        StreamOptions(settings.audit_sync, settings.audit_rotate_bytes, settings.audit_rotate_seconds),
        settings.audit_checkpoint_seconds,
        settings.audit_checkpoint_records,
        settings.audit_retention_days * _DAY,
        _sinks(settings.audit_checkpoint_sinks),
        {
            "boot": _boot_id(),
            "command": is_command(),
            "configuration": hmac.digest(keys.digest, canonical(digests), "sha256").hex(),
            "origin": keys.origin,
            "version": version("flask-secure-ml"),
        },
        digests,
    )
    model = "" if settings.model is None else str(settings.model)
    required = settings.audit_required
    audit = AuditLog(folder, keys, clock, options, required=required, model=model, counts=counts, changed=changed)
    return audit, keys


def _digests(config: Mapping[str, Any], key: bytes) -> dict[str, str]:
    """Return a keyed digest of each setting, so that records show which settings changed but not their values."""
    given = {name: value for name, value in config.items() if name.startswith(("SECURE_ML_", "RATELIMIT_"))}
    return {
        name: hmac.digest(
            key,
            f"{name}={json.dumps(value, sort_keys=True, default=lambda each: type(each).__name__)}".encode(),
            "sha256",
        ).hex()
        for name, value in given.items()
    }


def _sinks(addresses: Sequence[SinkAddress]) -> tuple[SinkAddress, ...]:
    """Return the checkpoint sinks of this process.

    A command writes to standard error, because its standard output contains its result, such as a key.
    """
    moved = {"stdout": "stderr"} if is_command() else {}
    return tuple(replace(each, kind=moved.get(each.kind, each.kind)) for each in addresses)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def _close(writers: PerProcess[Writer]) -> None:
    writer = writers.made()
    if writer is not None:
        writer.close()


def _discard(writers: weakref.ref[PerProcess[Writer]]) -> None:
    """Overwrite the keys of parent processes in a forked child."""
    found = writers()
    for each in found.inherited() if found is not None else ():
        each.discard()


class _LogEvents(logging.Handler):
    """Records the log messages of this package about blocks and outages.

    If an app configures no logging, Python prints warnings to standard error while there is no handler. This handler
    passes them on, so that they are still printed.
    """

    def __init__(self, audit: AuditLog) -> None:
        super().__init__(logging.WARNING)
        self._audit = weakref.ref(audit)

    @property
    def stream(self) -> Any:
        """The stream that messages of the package are printed to; None if there are other handlers."""
        return getattr(logging.lastResort, "stream", None) if self._is_last(_PACKAGE) else None

    def emit(self, record: logging.LogRecord) -> None:
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and self._is_last(record.name):
            last.handle(record)
        audit = self._audit()
        action = next((each for name, each in _LOGGERS.items() if f"{record.name}.".startswith(f"{name}.")), None)
        message = record.getMessage()
        # The audit log cannot record its own outage.
        if audit is not None and action is not None and not message.startswith("the audit log"):
            audit.event(action, {"message": clean(message, MAX_TEXT)})

    def _is_last(self, logger: str) -> bool:
        """Return True if a logger has only handlers of audit logs, and this is the first."""
        found = handlers_of(logging.getLogger(logger))
        return found[:1] == [self] and all(isinstance(each, _LogEvents) for each in found)


def _remove(handler: logging.Handler) -> None:
    # removeHandler() changes the list in place. The garbage collector may run this while logging iterates over the
    # list, and logging would then skip the handler of another audit log.
    package = logging.getLogger(_PACKAGE)
    package.handlers = [each for each in package.handlers if each is not handler]
