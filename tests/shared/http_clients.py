"""Common HTTP clients: each sends one POST and returns the status that it read, or its error."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import requests
import urllib3

MEGABYTE = 1024 * 1024
_PATIENCE = 30.0
_PIECE = 65_536


@dataclass(frozen=True)
class Upload:
    """One POST.

    :param chunked: send the body with ``Transfer-Encoding: chunked``, in pieces of 64 KiB.
    :param trusted: the certificate authority of the server, or None for clear text.
    """

    url: str
    size: int
    chunked: bool = False
    trusted: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return b"1" * self.size

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, self.size, _PIECE):
            yield b"1" * min(_PIECE, self.size - start)

    @property
    def body(self) -> bytes | Iterator[bytes]:
        return self.pieces() if self.chunked else self.content

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.trusted)


def by_requests(upload: Upload) -> int:
    response = requests.post(
        upload.url, data=upload.body, headers=upload.headers, verify=upload.trusted or True, timeout=_PATIENCE
    )
    return response.status_code


def by_urllib3(upload: Upload) -> int:
    with urllib3.PoolManager(ca_certs=upload.trusted, timeout=_PATIENCE, retries=False) as pool:
        return pool.request("POST", upload.url, body=upload.body, headers=upload.headers).status


def by_http_client(upload: Upload) -> int:
    at = urlsplit(upload.url)
    connection: http.client.HTTPConnection
    if upload.trusted is None:
        connection = http.client.HTTPConnection(at.netloc, timeout=_PATIENCE)
    else:
        connection = http.client.HTTPSConnection(at.netloc, timeout=_PATIENCE, context=upload.context())
    try:
        connection.request("POST", at.path, upload.body, dict(upload.headers))
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def by_httpx(upload: Upload) -> int:
    with httpx.Client(verify=upload.context(), timeout=_PATIENCE, trust_env=False) as client:
        return client.post(upload.url, content=upload.body, headers=upload.headers).status_code


def by_curl(upload: Upload, *options: str) -> int:
    command = ["curl", "--silent", "--show-error", "--http1.1", "--max-time", str(_PATIENCE), "--request", "POST"]
    command += ["--output", "/dev/null", "--write-out", "%{http_code}", "--data-binary", "@-", *options]
    if upload.trusted is not None:
        command += ["--cacert", upload.trusted]
    if upload.chunked:
        command += ["--header", "Transfer-Encoding: chunked"]
    for name, value in upload.headers.items():
        command += ["--header", f"{name}: {value}"]
    done = subprocess.run([*command, upload.url], input=upload.content, capture_output=True, check=False)
    if done.returncode:
        raise ConnectionError(done.stderr.decode().strip())
    return int(done.stdout)


def by_curl_without_expect(upload: Upload) -> int:
    return by_curl(upload, "--header", "Expect:")


def by_curl_with_expect(upload: Upload) -> int:
    return by_curl(upload, "--header", "Expect: 100-continue")


CLIENTS: Mapping[str, Callable[[Upload], int]] = {
    "requests": by_requests,
    "urllib3": by_urllib3,
    "http.client": by_http_client,
    "httpx": by_httpx,
    "curl": by_curl_without_expect,
    "curl, Expect": by_curl_with_expect,
}


def has_curl() -> bool:
    return shutil.which("curl") is not None
