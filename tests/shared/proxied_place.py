"""The certificates, keys and settings of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certificates import Certificate, authority, issue, key_usage
from stored_keys import key_in_file
from support import RANDOM_SECRET

HOST = "own.example.com"
"""The public name of the service."""


@dataclass(frozen=True)
class Place:
    """The certificates, keys and directories of one deployment.

    :param trusted: the authority of the service's certificate.
    :param trainer: a client that the app knows; ``stranger`` has a certificate of another authority.
    :param key: an API key with the scopes ``predict`` and ``train``.
    :param more: additional settings of the app.
    """

    folder: Path
    trusted: Path
    server: Certificate
    client_authority: Path
    trainer: Certificate
    stranger: Certificate
    keys: Path
    key: str
    more: Mapping[str, Any]

    @property
    def gates(self) -> Path:
        return self.folder / "gates"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the app, without ``SECURE_ML_DEPLOY``."""
        return {
            "SECURE_ML_TRUSTED_PROXIES": ["127.0.0.1/32"],
            "SECURE_ML_MTLS_CA_FILE": str(self.client_authority),
            "SECURE_ML_TOKEN_ISSUERS": [],
            "SECURE_ML_STORE_URI": "memory:",
            "SECURE_ML_STORE_PASSWORD": None,
            "SECURE_ML_API_KEYS": str(self.keys),
            "SECURE_ML_API_KEY_PEPPER": "env:PEPPER",
            "SECURE_ML_FAILED_AUTH_LIMITS": [],
        } | dict(self.more)


def make_place(folder: Path, **settings: Any) -> Place:
    """Write the certificates and the key of a deployment of the app with these settings."""
    usage = key_usage(signs_certificates=True)
    service, clients, others = (authority(name, usage=usage) for name in ("Service CA", "Clients", "Others"))
    names = [x509.DNSName(HOST), x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    server = issue(f"CN={HOST}", service, names=names, usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    trainer = [x509.DNSName("trainer.example.com")]
    (folder / "gates").mkdir()
    keys = folder / "keys.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        key = key_in_file(str(keys), scopes=("predict", "train"))
    return Place(
        folder=folder,
        trusted=service.write(folder, "service").certificate,
        server=server.write(folder, "server"),
        client_authority=clients.write(folder, "clients").certificate,
        trainer=issue("CN=trainer", clients, names=trainer).write(folder, "trainer"),
        stranger=issue("CN=trainer", others, names=trainer).write(folder, "stranger"),
        keys=keys,
        key=key,
        more=settings,
    )
