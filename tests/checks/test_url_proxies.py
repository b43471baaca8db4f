"""The doctor before real proxies: the right configuration is clean, and usual mistakes are found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from certificates import Certificate, issue
from checked_app import create_app
from flask_secure_ml.checks.setup import Setup
from flask_secure_ml.checks.url import run_url
from flask_secure_ml.checks.url.client import Client, credential_ring
from flask_secure_ml.checks.url.site import Site
from flask_secure_ml.state import state_of
from programs import needs
from servers import Served, accepts, free_port, gunicorn, started
from stored_keys import key_in_file
from support import RANDOM_SECRET

NGINX = """
user root; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server_tokens off;
  ssl_certificate {certificate}; ssl_certificate_key {key};
  ssl_protocols {protocols};
  ssl_ciphers {ciphers};
  {extra}
  server {{
    listen 127.0.0.1:{port} ssl{default};
    server_name {name};
    {server}
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      {location}
    }}
  }}
}}
"""
DEFAULT_SERVER = "server {{ listen 127.0.0.1:{port} ssl default_server; server_name _; return 421; }}"
RIGHT = """
proxy_set_header Host $http_host;
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Host $http_host;
proxy_set_header X-Request-ID $request_id;
"""
INTERMEDIATE = {"protocols": "TLSv1.2 TLSv1.3", "ciphers": "ECDHE+AESGCM:ECDHE+CHACHA20"}
ISSUER = {
    "issuer": "https://as.example",
    "audience": "https://api.example",
    "algorithms": ["RS256"],
    "jwks_uri": "https://as.example/jwks",
}
OPTIONS = ("--threads", "4", "--limit-request-field_size", "16380")
BODY = "client_max_body_size 8m;"
HAPROXY = """
global
  ssl-default-bind-options ssl-min-ver TLSv1.2
  ssl-default-bind-ciphers ECDHE+AESGCM:ECDHE+CHACHA20
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  timeout http-request 2s
frontend models
  bind 127.0.0.1:{port} ssl crt {pem}
  {rules}
  default_backend app
backend app
  server one 127.0.0.1:{upstream}
"""


CADDY = """
{{
  admin off
  auto_https off
}}
https://localhost:{port} {{
  bind 127.0.0.1
  tls {certificate} {key}
  reverse_proxy 127.0.0.1:{upstream} {{
    {rules}
  }}
}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nginx")


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Certificate:
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    itself = x509.BasicConstraints(ca=True, path_length=None)
    ninety = 90 * 86_400.0
    return issue("CN=localhost", names=names, usages=(), extensions=[itself], lifetime=ninety).write(folder, "server")


@pytest.fixture(scope="module")
def settings(folder: Path) -> dict[str, str]:
    return {
        # All runs have the same caller, and each uses up the limit of a route.
        "LIMIT_BACKOFF": "false",
        "API_KEYS": str(folder / "keys.json"),
        "API_KEY_PEPPER": "env:PEPPER",
        "STORE_URI": f"sqlite:{folder}/state.db",
        "PLANS": '{"default": {"requests": ["100000/day"]}}',
        "OPENAPI": "public",
        "TRUSTED_PROXIES": '["127.0.0.0/8"]',
        "TOKEN_ISSUERS": json.dumps([ISSUER]),
    }


@pytest.fixture(scope="module")
def upstream(folder: Path, settings: dict[str, str]) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        patch.setenv("KEY", key_in_file(str(folder / "keys.json")))
        environ = {"PATH": os.environ["PATH"], "PEPPER": RANDOM_SECRET}
        environ |= {f"FLASK_SECURE_ML_{name}": value for name, value in settings.items()}
        with gunicorn(folder, None, environ, *OPTIONS, app="checked_app:create_app()") as served:
            yield served


@pytest.fixture
def setup(upstream: Served, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Setup:
    """The app that is served, loaded here."""
    for name, value in settings.items():
        monkeypatch.setenv(f"FLASK_SECURE_ML_{name}", value)
    app = create_app()
    return Setup(app, state_of(app), {}, tmp_path)


def found(port: int, certificate: Certificate, setup: Setup, *, patience: float = 0) -> set[str]:
    """Return the ids of all findings."""
    client = Client(f"https://localhost:{port}", credential_ring("env:KEY"), str(certificate.certificate))
    site = Site(client, setup, patience=patience)
    return {each.check.id for each in run_url(site, seconds=60)}


@contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    """Run a proxy that writes its state into a folder, until the block ends."""
    environ = os.environ | {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with started(command, partial(accepts, port), folder / "proxy.log", env=environ):
        yield


@contextmanager
def nginx(
    folder: Path, upstream: Served, certificate: Certificate, parts: Mapping[str, str], *, default: bool = True
) -> Iterator[int]:
    """Run nginx with some parts of its configuration; the others are right or empty."""
    port = free_port()
    given = {"name": "localhost", "extra": "", "server": "", "location": "", **INTERMEDIATE, **parts}
    if default:
        given["extra"] += DEFAULT_SERVER.format(port=port)
    config = NGINX.format(
        **given,
        port=port,
        folder=folder,
        upstream=upstream.port,
        default="" if default else " default_server",
        certificate=certificate.certificate,
        key=certificate.key,
    )
    (folder / "nginx.conf").write_text(config)
    with running(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], port, folder):
        yield port


CASES = [
    pytest.param({}, set(), id="right"),
    pytest.param({"location": ""}, {"SML927", "SML911", "SML925", "SML944", "SML946"}, id="only proxy_pass"),
    pytest.param(
        {
            "extra": 'map $http_x_forwarded_proto $scheme_of { default $http_x_forwarded_proto; "" $scheme; }',
            "location": RIGHT.replace("$scheme", "$scheme_of"),
        },
        {"SML921"},
        id="the scheme of clients",
    ),
    pytest.param(
        {"extra": "set_real_ip_from 0.0.0.0/0; real_ip_header X-Forwarded-For;"}, {"SML922"}, id="real_ip of everyone"
    ),
    pytest.param(
        {"extra": "set_real_ip_from 0.0.0.0/0; real_ip_header X-Real-IP;"}, {"SML922"}, id="real_ip of another header"
    ),
    pytest.param({"server": ""}, {"SML935"}, id="1 MB"),
    pytest.param(
        {"server": BODY + "error_page 404 413 /e.html;", "location": RIGHT + "proxy_intercept_errors on;"},
        {"SML933", "SML935"},
        id="pages of its own",
    ),
    pytest.param(
        {"location": RIGHT + "add_header X-Content-Type-Options nosniff always;"}, {"SML913"}, id="add_header"
    ),
    pytest.param(
        {"protocols": "TLSv1 TLSv1.1 TLSv1.2 TLSv1.3", "ciphers": "ALL:@SECLEVEL=0"},
        {"SML902", "SML903"},
        id="old TLS",
    ),
    pytest.param({"location": RIGHT + "limit_except GET POST { deny all; }"}, {"SML934"}, id="limit_except"),
    pytest.param({"server": BODY + "large_client_header_buffers 4 4k;"}, {"SML938"}, id="short headers"),
    pytest.param(
        {
            "extra": "proxy_cache_path {folder}/cache keys_zone=one:1m;",
            "location": RIGHT
            + "proxy_cache one; proxy_cache_valid 200 1m; proxy_ignore_headers Cache-Control Expires Vary;"
            + "add_header X-Cache $upstream_cache_status;",
        },
        {"SML941"},
        id="a cache for everyone",
    ),
]


@needs("nginx")
@pytest.mark.parametrize(("parts", "ids"), CASES)
def test_nginx(
    tmp_path: Path, upstream: Served, certificate: Certificate, setup: Setup, parts: dict[str, str], ids: set[str]
) -> None:
    """Exactly the mistake is found."""
    whole = {"server": BODY, "location": RIGHT} | {
        name: part.replace("{folder}", str(tmp_path)) for name, part in parts.items()
    }
    with nginx(tmp_path, upstream, certificate, whole) as port:
        assert found(port, certificate, setup) == ids


@needs("nginx")
def test_nginx_with_one_server(tmp_path: Path, upstream: Served, certificate: Certificate, setup: Setup) -> None:
    """It serves every host."""
    with nginx(tmp_path, upstream, certificate, {"server": BODY, "location": RIGHT}, default=False) as port:
        assert found(port, certificate, setup) == {"SML924"}


HAPROXY_RULES = """
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request del-header X-Request-ID
  http-request deny deny_status 421 if !{ req.hdr(host) -m beg localhost: }
"""


@needs("haproxy")
@pytest.mark.parametrize(
    ("rules", "ids"),
    [
        pytest.param(HAPROXY_RULES, set(), id="right"),
        pytest.param(
            HAPROXY_RULES.replace("http-request set-header X-Forwarded-For %[src]", ""), {"SML922"}, id="address"
        ),
        pytest.param(
            HAPROXY_RULES.replace(
                "X-Forwarded-Proto https", "X-Forwarded-Proto https if !{ req.hdr_cnt(x-forwarded-proto) gt 0 }"
            ),
            {"SML921"},
            id="scheme",
        ),
    ],
)
def test_haproxy(
    tmp_path: Path, upstream: Served, certificate: Certificate, setup: Setup, rules: str, ids: set[str]
) -> None:
    port = free_port()
    pem = tmp_path / "server.pem"
    pem.write_bytes(certificate.certificate.read_bytes() + certificate.key.read_bytes())
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, pem=pem, upstream=upstream.port, rules=rules))
    with running(["haproxy", "-db", "-f", str(config)], port, tmp_path):
        assert found(port, certificate, setup, patience=10) == ids


@needs("caddy")
@pytest.mark.parametrize(
    ("rules", "ids"),
    [
        pytest.param("header_up -X-Request-ID", set(), id="right"),
        pytest.param("", {"SML925"}, id="as it is"),
        pytest.param("header_up X-Forwarded-For {header.X-Forwarded-For}", {"SML922", "SML925"}, id="address"),
    ],
)
def test_caddy(
    tmp_path: Path, upstream: Served, certificate: Certificate, setup: Setup, rules: str, ids: set[str]
) -> None:
    port, config = free_port(), tmp_path / "Caddyfile"
    parts = {"certificate": certificate.certificate, "key": certificate.key, "rules": rules}
    config.write_text(CADDY.format(port=port, upstream=upstream.port, **parts))
    with running(["caddy", "run", "--adapter", "caddyfile", "--config", str(config)], port, tmp_path):
        assert found(port, certificate, setup) == ids
