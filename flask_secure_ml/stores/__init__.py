"""State that workers and machines share: one protocol, three stores."""

from __future__ import annotations

from ..errors import ConfigError
from ..principal import Clock
from ..secrets import SecretRing
from .base import SharedStore

__all__ = ["SharedStore"]


def open_store(uri: str, password: SecretRing | None, clock: Clock) -> SharedStore:
    """Return the store for a URI. A server or a disk may be down; the store is then unavailable until it is up.

    :param password: of a server, the newest first.
    :raises ConfigError: the file can never be used, the client library is missing, or the URI cannot be parsed.
    """
    scheme = uri.partition(":")[0]
    if scheme == "memory":
        return _memory(clock)
    if scheme == "sqlite":
        return _sqlite(uri, clock)
    return _redis(uri, password, clock)


# Each kind is imported only where it is configured.


def _memory(clock: Clock) -> SharedStore:
    from .memory import MemoryStore

    return MemoryStore(clock)


def sqlite_path(uri: str, name: str) -> str:
    """Return the path in a URI of a file.

    :param name: of the setting, for the message.
    :raises ConfigError: it is not absolute.
    """
    rest = uri.partition(":")[2]
    # As in other URIs of files, an absolute path may follow two slashes.
    path = rest[2:] if rest.startswith("///") else rest
    if not path.startswith("/") or path.startswith("//"):
        # Commands and workers run in different folders and must mean the same file.
        raise ConfigError([f"{name} must name an absolute path, such as sqlite:/var/lib/model/state.db"])
    return path


def _sqlite(uri: str, clock: Clock) -> SharedStore:
    from .sqlite import SqliteStore

    try:
        return SqliteStore(sqlite_path(uri, "SECURE_ML_STORE_URI"), clock)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([f"SECURE_ML_STORE_URI cannot be used: {error}"]) from None


def _redis(uri: str, password: SecretRing | None, clock: Clock) -> SharedStore:
    try:
        from .redis import RedisStore
    except ImportError:
        raise ConfigError(['SECURE_ML_STORE_URI needs: pip install "flask-secure-ml[redis]"']) from None
    try:
        return RedisStore(uri, password, clock)
    except Exception as error:  # noqa: BLE001  of several kinds, and their messages may contain the password
        problem = f"SECURE_ML_STORE_URI cannot be used ({type(error).__name__}): it must be such as redis://host:6379/0"
        raise ConfigError([problem]) from None
