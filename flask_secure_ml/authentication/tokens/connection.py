"""Requests to the URLs of one issuer, with its options: allowed IP addresses, certificate authorities and proxy."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from functools import cache

from ...config.issuers import IssuerConfig
from ...fetch import MAX_BYTES, FetchError, Response, require_ok, send
from ...refresh import Attempt, WatchedFile


class IssuerConnection:
    """Sends requests to one issuer.

    The options of one issuer do not affect the requests to another.

    :param config: has ``private_network``, ``ca_file``, ``proxy`` and ``jwks_token``.
    """

    def __init__(self, config: IssuerConfig) -> None:
        self._config = config
        self._context = _contexts(config.ca_file)

    def send(
        self,
        uri: str,
        *,
        timeout: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Response:
        """Send one GET request, or one POST request if there is a body.

        :raises FetchError: as :func:`~flask_secure_ml.fetch.send`, or the ``ca_file`` cannot be used.
        """
        return send(
            uri,
            body=body,
            headers=headers,
            private_network=self._config.private_network,
            timeout=timeout,
            max_bytes=max_bytes,
            context=self._context() if uri.startswith("https:") else None,
            proxy=self._config.proxy,
        )

    def key_set(self, uri: str, attempt: Attempt) -> bytes:
        """Return the key set at ``jwks_uri``, fetched with ``jwks_token`` if there is one.

        :raises FetchError: it cannot be fetched, or the credential cannot be read.
        """
        return require_ok(self.send(uri, timeout=attempt.remaining(), headers=self._credential())).body

    def _credential(self) -> dict[str, str]:
        if self._config.jwks_token is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._config.jwks_token.newest().decode('ascii')}"}
        except ValueError as error:
            # The ValueError names only the reference, but the message of a UnicodeError would quote the secret.
            reason = "it is not ASCII" if isinstance(error, UnicodeError) else str(error)
            raise FetchError(f"no jwks_token: {reason}") from None


def _contexts(ca_file: str | None) -> Callable[[], ssl.SSLContext]:
    """Return a function that returns the TLS context, created on first use and again when the file changes."""
    if ca_file is None:
        # Creating one takes longer than most endpoints take to respond.
        return cache(ssl.create_default_context)
    file = WatchedFile(ca_file, lambda _: ssl.create_default_context(cafile=ca_file))

    def current() -> ssl.SSLContext:
        try:
            return file.read()
        except (OSError, ValueError) as error:
            raise FetchError(f"the ca_file cannot be used: {type(error).__name__}") from None

    return current
