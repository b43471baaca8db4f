"""Docker Compose: the app, nginx and Valkey on one machine, with optional Prometheus and Grafana."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .. import containers
from ..facts import Facts
from ..mounts import public_files, secret_files, secret_variables, usable, warnings, written_folders
from ..target import Target
from . import nginx

SUBNET = "172.29.57.0/28"
"""The network of the proxy, which the app trusts; ``PROXY_SUBNET`` overrides it if it is in use."""

_STORE_PASSWORD = "SECURE_ML_STORE_PASSWORD"  # noqa: S105 - the name of the setting
_STORE_URI = f"rediss://model@store:6379/0?ssl_ca_certs={containers.TLS_FOLDER}/ca.crt"
_CERTIFICATE_HEADER = "X-SSL-Client-Cert"


def make(facts: Facts) -> Mapping[str, str]:
    """Return the Compose file and the files that the services read."""
    inside = _inside(facts)
    written = written_folders(inside)
    values: dict[str, Any] = {
        "place": containers,
        "environment": sorted(_environment(facts).items()),
        "variables": secret_variables(inside),
        "secrets": usable(secret_files(inside)),
        "files": usable(public_files(inside)),
        "written": written,
        "outside": _connects_outside(facts),
        "subnet": SUBNET,
        "acl": containers.VALKEY_ACL,
        "scrape": containers.scrape_of(facts),
        "owned": ["store-data", *(f"state-{number}" for number, _ in enumerate(written, 1))],
    }
    names = ["compose.yaml", "setup.py", "valkey.conf"]
    files = {name: TARGET.render(name, inside, **values) for name in names}
    for name, content in nginx.make(inside).items():
        # Its header names the target that generated it.
        files[f"nginx/{name}"] = content.replace(nginx.TARGET.header(), TARGET.header(), 1)
    if values["scrape"]:
        files["prometheus.yml"] = TARGET.render("prometheus.yml", inside, **values)
        for name in ("sources.yaml", "dashboards.yaml"):
            files[f"grafana/{name}"] = TARGET.render(name, inside, **values)
        files["alerts.yml"] = TARGET.asset("prometheus/alerts.yml")
        files["grafana/dashboard.json"] = TARGET.asset("grafana/dashboard.json")
    return files


def _connects_outside(facts: Facts) -> bool:
    """Return True if the app connects to servers that are not in this Compose file."""
    is_remote = any(each.purpose != "store" for each in facts.destinations)
    return is_remote or any(each.scheme == "vault" for each in facts.secrets)


def _inside(facts: Facts) -> Facts:
    """Return the facts inside the Compose network: Valkey is the store, and nginx connects to the app by name."""
    options = replace(
        facts.options,
        upstreams=(f"app:{containers.PORT}",),
        upstream_ca="/run/trust/ca.crt",
        upstream_name=facts.upstream_name,
        certificate=f"{containers.TLS_FOLDER}/tls.crt",
        certificate_key=f"{containers.TLS_FOLDER}/tls.key",
        client_ca=containers.CLIENT_CA,
        listen=("0.0.0.0",),  # noqa: S104 - of the container
        proxy_user="nginx",
        proxy_directory="/tmp",  # noqa: S108 - of the container
        access_log="/dev/stdout",
        acme_email=None,
        waf=False,
    )
    kept = tuple(each for each in facts.secrets if each.setting != _STORE_PASSWORD)
    # Both sides use a header that nginx supports, whatever the app has elsewhere.
    header = None if options.client_certificates == "off" else _CERTIFICATE_HEADER
    # The authorities of this store are in a volume.
    settings = replace(facts.settings, client_certificate_header=header, store_uri="rediss://store")
    return replace(facts, options=options, settings=settings, secrets=kept)


def _environment(facts: Facts) -> dict[str, str]:
    """Return the settings of the app with these services, escaped for Compose."""
    own = {name: value.replace("$", "$$") for name, value in facts.environment.items()}
    services = {
        "STORE_URI": _STORE_URI,
        "STORE_PASSWORD": f"file:{containers.TLS_FOLDER}/store-password",
        "TRUSTED_PROXIES": json.dumps([f"${{PROXY_SUBNET:-{SUBNET}}}"]),
    }
    if facts.options.client_certificates != "off":
        services["CLIENT_CERTIFICATE_HEADER"] = _CERTIFICATE_HEADER
    return own | {f"FLASK_SECURE_ML_{name}": value for name, value in services.items()}


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    if not facts.behind_proxy:
        yield f"set SECURE_ML_TRUSTED_PROXIES to [{SUBNET!r}], so that gunicorn in the image is configured for a proxy"
    if facts.options.waf:
        yield "the nginx image does not contain ModSecurity, so waf has no effect here"
    if facts.options.acme_email:
        yield "nginx does not obtain certificates here; put one into the volume proxy-tls"
    withheld = tuple(name for name in facts.withheld if name != "SECURE_ML_STORE_URI")
    yield from warnings(replace(facts, withheld=withheld), image=True)


TARGET = Target(
    name="compose",
    summary="Docker Compose: the app behind nginx with Valkey, and optional Prometheus and Grafana",
    overlay="compose.override.yaml",
    make=make,
    advice=(
        "compose: check with  docker compose --project-directory {folder} config --quiet",
        "compose: start with  docker compose --project-directory {folder} up --build --detach",
    ),
    warn=warn,
)
