"""Checks of the audit log, the request log, metrics, the OpenAPI description and the model's version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...config.audit import OFF
from ...observe.audit.keys import APP_KEYS
from ..finding import Check, Found, Severity, Where, setting
from ..setup import Setup
from .files import others_may

_MOST_FILES = 1000


def no_checkpoints(setup: Setup) -> Iterator[Found]:
    """Yield an audit log without checkpoints on another machine."""
    if setup.settings.audit_log != OFF and not setup.settings.audit_checkpoint_sinks:
        yield Found(setting("audit_checkpoint_sinks"), "SECURE_ML_AUDIT_CHECKPOINT_SINKS is empty")


def readable_audit_log(setup: Setup) -> Iterator[Found]:
    """Yield an audit log that other users of the machine can read or change."""
    if setup.settings.audit_log == OFF or setup.described:
        return
    folder = Path(setup.settings.audit_log)
    for path in (folder, folder / APP_KEYS):
        if others_may(path, read=True):
            yield Found(Where("file", str(path)), f"other users of this machine may open {path}", f"chmod go= {path}")


def verification_key(setup: Setup) -> Iterator[Found]:
    """Yield a verification key in the directory of the log that it verifies."""
    from ...observe.audit.keys import KeyFileError, load_verification_key

    if setup.settings.audit_log == OFF or setup.described:
        return
    for number, path in enumerate(sorted(Path(setup.settings.audit_log).iterdir())):
        if number >= _MOST_FILES:
            return
        if path.name == APP_KEYS or not path.is_file():
            continue
        try:
            load_verification_key(path)
        except (KeyFileError, OSError):
            continue
        yield Found(Where("file", str(path)), f"the verification key {path} is in the directory of the audit log")


def no_record(setup: Setup) -> Iterator[Found]:
    """Yield a finding if requests are not recorded."""
    settings = setup.settings
    if settings.request_log == "off" and settings.audit_log == OFF and not _own_sink(setup):
        yield Found(setting("request_log"), "SECURE_ML_REQUEST_LOG and SECURE_ML_AUDIT_LOG are off")


def _own_sink(setup: Setup) -> bool:
    from ...observe.request_log import RequestLog

    return any(isinstance(each, RequestLog) for each in setup.state.pipeline.recorders)


def public_description(setup: Setup) -> Iterator[Found]:
    """Yield an OpenAPI description that is public."""
    if setup.settings.openapi == "public":
        yield Found(setting("openapi"), "SECURE_ML_OPENAPI is public")


def no_model_version(setup: Setup) -> Iterator[Found]:
    """Yield a model without a version."""
    model = setup.settings.model
    if model is not None and model.version is None:
        yield Found(setting("model"), f"the model {model.name} has no version")


def open_metrics(setup: Setup) -> Iterator[Found]:
    """Yield a metrics port that other machines can connect to."""
    listen = setup.settings.metrics_listen
    if listen is not None and not listen.is_local:
        yield Found(setting("metrics_listen"), f"SECURE_ML_METRICS_LISTEN is {listen}")


CHECKS = (
    Check(
        "SML601",
        Severity.WARNING,
        "Audit log checkpoints are not sent to another machine",
        "An attacker who compromises the app can replace the whole audit log.",
        'SECURE_ML_AUDIT_CHECKPOINT_SINKS = ["file:/mnt/witness/checkpoints"]',
        no_checkpoints,
    ),
    Check(
        "SML602",
        Severity.WARNING,
        "Other users can open the audit log",
        "They can read who called and when, or sign forged checkpoints.",
        "chmod go= DIRECTORY",
        readable_audit_log,
    ),
    Check(
        "SML603",
        Severity.WARNING,
        "The verification key is on this machine",
        "An attacker who compromises the app can recompute the codes of records that were already written.",
        "move the key to the machine that verifies the log",
        verification_key,
    ),
    Check(
        "SML604",
        Severity.WARNING,
        "Requests are not recorded",
        "An incident cannot be investigated afterwards.",
        'SECURE_ML_REQUEST_LOG = "stderr"',
        no_record,
    ),
    Check(
        "SML605",
        Severity.NOTE,
        "The OpenAPI description is public",
        "Anyone can list the routes and their schemas.",
        'SECURE_ML_OPENAPI = "protected"',
        public_description,
    ),
    Check(
        "SML606",
        Severity.NOTE,
        "The model has no version",
        "Records and metrics do not show which version of the model responded.",
        'SECURE_ML_MODEL = {"name": "digits", "version": "3"}',
        no_model_version,
    ),
    Check(
        "SML607",
        Severity.WARNING,
        "Metrics are sent over the network in clear text",
        "An attacker on the network can read the metrics and the token that protects them.",
        'SECURE_ML_METRICS_LISTEN = "127.0.0.1:9100"',
        open_metrics,
    ),
)
