"""Client certificates in Envoy's own header, which nginx can write too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import Issued, issue
from programs import needs, tool_marks
from proxied import Backend, Program, backend, proxied
from proxy_programs import ENVOY, NGINX
from proxy_requests import client_certificate, forged_certificates

PROGRAMS = [
    pytest.param(NGINX, marks=needs("nginx"), id="nginx"),
    pytest.param(ENVOY, marks=tool_marks("envoy"), id="envoy"),
]


@pytest.fixture(scope="module")
def itself() -> Issued:
    """A certificate that no authority has signed."""
    return issue("CN=edge")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, itself: Issued) -> Iterator[Backend]:
    settings: dict[str, Any] = {
        "SECURE_ML_CLIENT_CERTIFICATE_HEADER": "X-Forwarded-Client-Cert",
        "SECURE_ML_MTLS_CLIENTS": [
            {"client": "trainer", "san_dns": "trainer.example.com"},
            {"client": "edge", "sha256": itself.fingerprint},
        ],
    }
    with backend(tmp_path_factory.mktemp("servers"), **settings) as found:
        yield found


@pytest.mark.parametrize("program", PROGRAMS)
def test_forwarded_client_cert(program: Program, tmp_path: Path, servers: Backend) -> None:
    """The header is set by the proxy with the certificate of the connection, without a client's value."""
    with proxied(tmp_path, program, behind=servers) as running:
        client_certificate(running)
        forged_certificates(running)


@pytest.mark.parametrize("program", PROGRAMS)
def test_self_signed(program: Program, tmp_path: Path, servers: Backend, itself: Issued) -> None:
    """A client that is named by its fingerprint is known where its certificate is in ``client_ca``."""
    both = tmp_path / "both.pem"
    both.write_bytes(servers.place.client_authority.read_bytes() + itself.pem)
    client = itself.write(tmp_path, "edge")
    with proxied(tmp_path, program, behind=servers, client_ca=str(both)) as running:
        for each, name in ((client, "edge"), (servers.place.trainer, "trainer")):
            answer = running.call("GET", "/v1/whoami", client=each)
            assert answer.status == 200
            assert answer.json["id"].endswith(name)
