"""A secret in HashiCorp Vault or OpenBao: ``vault:mount/path#field`` (extra ``vault``).

The address, the token and the namespace come from the environment, as every Vault client reads them: ``VAULT_ADDR``,
``VAULT_TOKEN`` (or the file that Vault Agent writes for this user) and ``VAULT_NAMESPACE``.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from .exchange import Clock, SystemClock

log = logging.getLogger(__name__)

KEPT = 60.0
"""Seconds after which the secret is read again."""

LAST_GOOD = 3600.0
"""Seconds for which the last value serves while Vault does not answer."""

TIMEOUT = 2
"""Seconds to wait for Vault."""


class VaultValue:
    """One field of a secret of the key-value engine, version 2.

    One thread reads at a time; the others go on with the last value.

    :param reference: what follows ``vault:``: the mount, the path, ``#`` and the field.
    :raises ValueError: the reference lacks one of them.
    """

    def __init__(
        self, reference: str, clock: Clock | None = None, read: Callable[[str, str, str], str] | None = None
    ) -> None:
        place, _, self._field = reference.partition("#")
        self._mount, _, self._path = place.partition("/")
        if not (self._mount and self._path and self._field):
            raise ValueError('must name mount, path and field, such as "vault:secret/model#pepper"')
        self._clock = clock or SystemClock()
        self._read = read or read_vault
        self._lock = threading.Lock()
        self._value: bytes | None = None
        self._fetched = self._due = -math.inf

    def read(self) -> bytes:
        """Return the value.

        :raises OSError: Vault does not answer, or has no such secret, and there is no value of the last hour.
        """
        now = self._clock.monotonic()
        if now >= self._due and self._lock.acquire(blocking=self._too_old(now)):
            try:
                self._refresh()
            finally:
                self._lock.release()
        if self._value is None or self._too_old(now):
            raise OSError(0, "Vault does not answer with this secret; see the log")
        return self._value

    def _too_old(self, now: float) -> bool:
        return now >= self._fetched + LAST_GOOD

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now < self._due:
            return
        try:
            self._value = self._read(self._mount, self._path, self._field).encode()
            self._fetched = now
        except Exception as error:  # noqa: BLE001  the client raises errors of three packages
            # Their texts may quote the answer.
            log.error("the secret at vault:%s/%s could not be read: %s", self._mount, self._path, type(error).__name__)
        finally:
            # Last: a thread that has no good value waits for this one until then.
            self._due = now + KEPT


def read_vault(mount: str, path: str, field: str) -> str:
    """Ask Vault once.

    :raises Exception: whatever the client raises, and KeyError for a field that is not there.
    """
    # The client is an extra, and only this kind of reference needs it.
    import hvac

    client = hvac.Client(timeout=TIMEOUT)
    found = client.secrets.kv.v2.read_secret_version(path=path, mount_point=mount, raise_on_deleted_version=True)
    return str(found["data"]["data"][field])
