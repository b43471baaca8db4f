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
    scheme, _, rest = uri.partition(":")
    if scheme == "memory":
        return _memory(clock)
    if scheme == "sqlite":
        return _sqlite(rest, clock)
    return _redis(uri, password, clock)


# Each kind is imported only where it is configured.


def _memory(clock: Clock) -> SharedStore:
    from .memory import MemoryStore

    return MemoryStore(clock)


def _sqlite(rest: str, clock: Clock) -> SharedStore:
    from .sqlite import SqliteStore

    # As in other URIs of files, an absolute path may follow two slashes.
    path = rest[2:] if rest.startswith("///") else rest
    if not path.startswith("/") or path.startswith("//"):
        # Commands and workers run in different folders and must mean the same file.
        raise ConfigError(["SECURE_ML_STORE_URI must name an absolute path, such as sqlite:/var/lib/model/state.db"])
    try:
        return SqliteStore(path, clock)
    except ValueError as error:
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
