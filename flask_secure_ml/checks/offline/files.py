"""Checks of the permissions of files that the app trusts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ...config import key_of
from ...config.audit import OFF
from ...config.settings import IN_STORE
from ...stores import sqlite_path
from ..finding import Check, Found, Severity, Where, setting
from ..setup import Setup

_REFERENCE = "file:"
_NO_FILE = ("stderr", "stdout", "off", "logging:")


def others_may(path: Path, *, read: bool = False) -> bool:
    """Return True if users other than the owner and root may change a file, or with ``read`` open it.

    Other users can replace a file in a directory that they may write to and that has no sticky bit.
    """
    try:
        mode = path.stat().st_mode
        parent = path.parent.stat().st_mode
    except OSError:
        return False
    if mode & (0o077 if read else 0o022):
        return True
    return bool(parent & 0o002) and not parent & stat.S_ISVTX


def writable_files(setup: Setup) -> Iterator[Found]:
    """Yield the files that control access and that other users may change."""
    for name, path in _trusted(setup):
        if others_may(path):
            what = f"{path} ({name}) can be changed by other users of this machine"
            yield Found(Where("file", str(path)), what, f"chmod go-w {path}")


def _trusted(setup: Setup) -> Iterator[tuple[str, Path]]:
    settings = setup.settings
    if settings.api_keys not in {None, IN_STORE}:
        yield "SECURE_ML_API_KEYS", Path(str(settings.api_keys))
    if settings.mtls_ca_file:
        yield "SECURE_ML_MTLS_CA_FILE", Path(settings.mtls_ca_file)
    if settings.store_uri.startswith("sqlite:"):
        yield "SECURE_ML_STORE_URI", Path(sqlite_path(settings.store_uri, "SECURE_ML_STORE_URI"))
    for issuer in settings.token_issuers:
        for path in (issuer.jwks_file, issuer.ca_file):
            if path:
                yield "SECURE_ML_TOKEN_ISSUERS", Path(path)


def readable_secrets(setup: Setup) -> Iterator[Found]:
    """Yield the files with secrets that all users of the machine may read."""
    for reference in sorted(_references(setup.app.config)):
        path = Path(reference.removeprefix(_REFERENCE))
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        # The group may be the one of the server: Kubernetes mounts secrets with a group.
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            what = f"{path} contains a secret, and all users of this machine may read it"
            yield Found(Where("file", str(path)), what, f"chmod o= {path}")


def _references(value: object) -> Iterator[str]:
    """Yield the ``file:`` references in a configuration value, including those in lists and objects."""
    if isinstance(value, str) and value.startswith(f"{_REFERENCE}/"):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            # Checkpoints of the audit log are written to such a path, but are not secret.
            if not (isinstance(name, str) and name.isupper() and not _holds_secrets(name)):
                yield from _references(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _references(each)


def _holds_secrets(name: str) -> bool:
    return name.startswith("SECURE_ML_") and name != "SECURE_ML_AUDIT_CHECKPOINT_SINKS"


def relative_paths(setup: Setup) -> Iterator[Found]:
    """Yield the settings whose path is relative to the working directory."""
    settings = setup.settings
    given = {
        "api_keys": settings.api_keys if settings.api_keys != IN_STORE else None,
        "audit_log": settings.audit_log if settings.audit_log != OFF else None,
        "mtls_ca_file": settings.mtls_ca_file,
        "request_log": None if settings.request_log.startswith(_NO_FILE) else settings.request_log,
    }
    for name, path in given.items():
        if path and not Path(str(path)).is_absolute():
            what = f"{key_of(name)} is {str(path)!r}, which is relative to the working directory of each process"
            yield Found(setting(name), what, f'{key_of(name)} = "{setup.folder / str(path)}"')


def root(setup: Setup) -> Iterator[Found]:
    """Yield a finding if the app runs as root in a container."""
    if os.geteuid() == 0 and setup.environ.get("KUBERNETES_SERVICE_HOST"):
        yield Found(Where("app", setup.app.name), "the process runs as root in its container")


CHECKS = (
    Check(
        "SML611",
        Severity.WARNING,
        "Other users can change a trusted file",
        "Anyone who changes it can grant access.",
        "chmod go-w FILE",
        writable_files,
    ),
    Check(
        "SML612",
        Severity.WARNING,
        "Other users can read a secret",
        "Anyone who reads it can forge credentials.",
        "chmod o= FILE",
        readable_secrets,
    ),
    Check(
        "SML613",
        Severity.NOTE,
        "The container runs as root",
        "Malicious code in a model or library controls the whole container.",
        "securityContext: {runAsNonRoot: true}",
        root,
    ),
    Check(
        "SML614",
        Severity.NOTE,
        "A path depends on the working directory",
        "A command that runs in another directory than the server uses other files, such as another API key file.",
        'SECURE_ML_API_KEYS = "/var/lib/model/keys.json"',
        relative_paths,
    ),
)
