"""The variables, files and writable directories that an app needs in addition to its code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from posixpath import basename, dirname, normpath

from .environment import store_authorities
from .facts import Facts
from .target import quoted

_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9._-]")
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9-]+")
_NOT_IN_A_MOUNT = re.compile(r"[\x00-\x1f\x7f:]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, order=True)
class FileMount:
    """A file that the app reads and that is not in its image.

    :param path: the path that the app reads.
    :param key: its unique name in a store of secrets or configuration.
    """

    path: str
    key: str

    @property
    def folder(self) -> str:
        """The directory of the file."""
        return dirname(self.path)

    @property
    def name(self) -> str:
        """The name of the file in its directory."""
        return basename(self.path)

    @property
    def slug(self) -> str:
        """The key as a DNS label (RFC 1123 section 2.1)."""
        return _NOT_IN_A_NAME.sub("-", self.key.lower()).strip("-")[:40] or "file"


def secret_variables(facts: Facts) -> tuple[str, ...]:
    """Return the valid names of environment variables with secrets, sorted."""
    return tuple(name for name in _variables(facts) if _VARIABLE.fullmatch(name))


def _variables(facts: Facts) -> list[str]:
    return sorted({each.location for each in facts.secrets if each.scheme == "env"})


def secret_files(facts: Facts) -> tuple[FileMount, ...]:
    """Return the files with secrets and the file of API keys, sorted by path."""
    paths = {each.location for each in facts.secrets if each.scheme == "file"}
    if facts.settings.api_keys not in {None, "store", "off"}:
        paths.add(str(facts.settings.api_keys))
    return _mounts(paths)


def public_files(facts: Facts) -> tuple[FileMount, ...]:
    """Return the files with certificate authorities and public keys, which are not secret."""
    settings = facts.settings
    found = [settings.mtls_ca_file, store_authorities(settings)]
    found += [each for issuer in settings.token_issuers for each in _files_of(issuer)]
    return _mounts(each for each in found if each)


def _files_of(issuer: object) -> Iterator[str | None]:
    yield getattr(issuer, "jwks_file", None)
    yield getattr(issuer, "ca_file", None)


def written_folders(facts: Facts) -> tuple[str, ...]:
    """Return the directories that the app writes to: audit log, checkpoints, request log and SQLite store."""
    settings = facts.settings
    found = {str(settings.audit_log)} if settings.audit_log != "off" else set()
    checkpoints = [each.target for each in settings.audit_checkpoint_sinks if each.kind == "file"]
    for path in (*checkpoints, settings.request_log, settings.store_uri.partition("sqlite:")[2]):
        if str(path).startswith("/"):
            found.add(dirname(normpath(str(path))))
    return tuple(sorted(path for path in map(normpath, found) if path.startswith("/") and _is_mountable(path)))


def unusable_paths(facts: Facts) -> tuple[str, ...]:
    """Return unsupported paths, such as relative ones, and invalid names of environment variables."""
    mounts = (*secret_files(facts), *public_files(facts))
    paths = [each.path for each in mounts if each not in usable(mounts)]
    return (*paths, *(name for name in _variables(facts) if not _VARIABLE.fullmatch(name)))


def usable(mounts: Iterable[FileMount]) -> tuple[FileMount, ...]:
    """Return the mounts with a supported absolute path."""
    return tuple(each for each in mounts if each.path.startswith("/") and _is_mountable(each.path))


def _is_mountable(path: str) -> bool:
    return not _NOT_IN_A_MOUNT.search(path)


def _mounts(paths: Iterable[str]) -> tuple[FileMount, ...]:
    found: list[FileMount] = []
    taken: set[str] = set()
    for path in sorted({normpath(path) for path in paths}):
        key = name = _NOT_IN_A_KEY.sub("_", basename(path))[:200] or "file"
        number = 2
        while key in taken:
            key, number = f"{name}-{number}", number + 1
        taken.add(key)
        found.append(FileMount(path, key))
    return tuple(found)


def warnings(facts: Facts, *, image: bool) -> Iterator[str]:
    """Yield warnings about an app in a container or systemd unit.

    :param image: the app runs in a container without files of the machine.
    """
    if facts.live_path is None:
        yield "the app has no probes; set SECURE_ML_PROBES, so that only working processes get requests"
    for each in unusable_paths(facts):
        yield f"{quoted(each)} cannot be mounted; use an absolute path, or a variable with a valid name"
    for each in facts.withheld:
        yield f"{each} may contain a secret, so it is not in these files; set it where the app runs"
    if any(each.scheme == "vault" for each in facts.secrets):
        yield "the app reads secrets from Vault; set VAULT_ADDR, its credential and the network access in the overlay"
    if image and facts.settings.api_keys not in {None, "store", "off"}:
        yield "API keys are in a file, which containers do not share; use SECURE_ML_API_KEYS=store"
    listen = facts.settings.metrics_listen
    if image and listen is not None and listen.is_local and facts.settings.metrics is None:
        yield f"other containers cannot scrape {listen}; set SECURE_ML_METRICS_LISTEN to 0.0.0.0:{listen.port}"
    if image and any(each.kind == "syslog+unix" for each in facts.settings.audit_checkpoint_sinks):
        yield "containers have no /dev/log; use a sink syslog+tcp:// or https:// of SECURE_ML_AUDIT_CHECKPOINT_SINKS"
    if image and written_folders(facts):
        yield (f"the app writes to {', '.join(written_folders(facts))}; keep these directories on a persistent volume")
    if facts.settings.deploy and facts.options.client_certificates == "required" and image and not facts.behind_proxy:
        yield (
            "probes have no certificate, so gunicorn requests client certificates without requiring them; the policies"
            " decide who may call without one"
        )
