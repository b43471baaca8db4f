"""State that workers and machines share: one protocol, three places."""

from __future__ import annotations

from ..errors import ConfigError, DependencyUnavailable
from ..principal import Clock
from ..secrets import SecretRing
from .base import SharedStore
from .memory import MemoryStore
from .sqlite import SqliteStore

__all__ = ["SharedStore"]


def open_store(uri: str, password: SecretRing | None, clock: Clock) -> SharedStore:
    """Return the store that an address names. A server need not answer yet; a file must be usable.

    :param password: of a server, the newest first.
    :raises ConfigError: the file cannot be used, the client library is missing, or the address cannot be read.
    """
    scheme, _, place = uri.partition(":")
    if scheme == "memory":
        return MemoryStore(clock)
    if scheme == "sqlite":
        return _sqlite(place, clock)
    return _redis(uri, password, clock)


def _sqlite(place: str, clock: Clock) -> SharedStore:
    # As in other addresses of files, two slashes may stand before an absolute path.
    path = place[2:] if place.startswith("///") else place
    if not path.startswith("/") or path.startswith("//"):
        # Commands and workers run in different folders and must mean the same file.
        raise ConfigError(["SECURE_ML_STORE_URI must name an absolute path, such as sqlite:/var/lib/model/state.db"])
    try:
        return SqliteStore(path, clock)
    except DependencyUnavailable as error:
        raise ConfigError([f"SECURE_ML_STORE_URI cannot be used: {error.reason}"]) from None


def _redis(uri: str, password: SecretRing | None, clock: Clock) -> SharedStore:
    try:
        # The client library is an extra.
        from .redis import RedisStore
    except ImportError:
        raise ConfigError(['SECURE_ML_STORE_URI needs: pip install "flask-secure-ml[redis]"']) from None
    try:
        return RedisStore(uri, password, clock)
    except Exception as error:  # noqa: BLE001  of several kinds, and their texts may hold the password
        told = f"SECURE_ML_STORE_URI cannot be used ({type(error).__name__}): it must be such as redis://host:6379/0"
        raise ConfigError([told]) from None
