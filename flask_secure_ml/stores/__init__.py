"""State that is shared by workers and machines: one protocol, three stores."""

from __future__ import annotations

from ..describing import is_described_only
from ..errors import ConfigError
from ..principal import Clock
from ..secrets import SecretRing
from .base import SharedStore

__all__ = ["SharedStore"]


def open_store(uri: str, password: SecretRing | None, clock: Clock) -> SharedStore:
    """Return the store for a URI.

    If its server or disk is down, the store is unavailable until that is up again.

    :param password: the passwords of a server, newest first.
    :raises ConfigError: the file cannot be used, the client library is missing, or the URI cannot be parsed.
    """
    scheme = uri.partition(":")[0]
    if scheme == "memory":
        return _memory(clock)
    if scheme == "sqlite":
        return _sqlite(uri, clock)
    return _redis(uri, password, clock)


# Each kind of store is imported only if it is configured.


def _memory(clock: Clock) -> SharedStore:
    from .memory import MemoryStore

    return MemoryStore(clock)


def sqlite_path(uri: str, name: str) -> str:
    """Return the path in the URI of a file.

    :param name: the name of the setting, for the message.
    :raises ConfigError: the path is not absolute.
    """
    rest = uri.partition(":")[2]
    # As in file URIs, two slashes may precede an absolute path.
    path = rest[2:] if rest.startswith("///") else rest
    if not path.startswith("/") or path.startswith("//"):
        # Commands and workers run in different directories, but must use the same file.
        raise ConfigError([f"{name} must have an absolute path, such as sqlite:/var/lib/model/state.db"])
    return path


def _sqlite(uri: str, clock: Clock) -> SharedStore:
    from .sqlite import SqliteStore

    try:
        path = sqlite_path(uri, "SECURE_ML_STORE_URI")
        return _memory(clock) if is_described_only() else SqliteStore(path, clock)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([f"SECURE_ML_STORE_URI cannot be used: {error}"]) from None


def _redis(uri: str, password: SecretRing | None, clock: Clock) -> SharedStore:
    try:
        from .redis import RedisStore
    except ImportError:
        raise ConfigError(['SECURE_ML_STORE_URI requires: pip install "flask-secure-ml[redis]"']) from None
    try:
        return RedisStore(uri, password, clock)
    except Exception as error:  # noqa: BLE001  of several kinds, and their messages may contain the password
        problem = (
            f"SECURE_ML_STORE_URI cannot be used ({type(error).__name__}): it must be a URL such as redis://host:6379/0"
        )
        raise ConfigError([problem]) from None
