"""Kubernetes: a Kustomize base, overlays for development and production, and optional components."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import containers
from ..egress import egress_of
from ..facts import Facts, RouteFacts
from ..mounts import FileMount, public_files, secret_files, secret_variables, usable, warnings, written_folders
from ..target import Target, quoted
from ..web import CERTIFICATE_HEADERS

BASE = ("namespace", "serviceaccount", "settings", "deployment", "service", "scaling", "networkpolicies")
_SAFE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
# Directories that contain other files, so only the file itself is mounted.
_SHARED = {"/", "/etc", "/etc/ssl", "/etc/ssl/certs", "/home", "/mnt", "/opt", "/run", "/srv", "/usr", "/var"}
_SHARED |= {"/tmp"}  # noqa: S108 - of the container
_OF_THE_IMAGE = ("/app", "/opt/server", "/opt/venv", "/usr/", "/run/tls")
_CERTIFICATE_HEADER = "X-SSL-Client-Cert"
# Headers that a gateway need not set; it sets X-Forwarded-For and X-Forwarded-Proto.
_FORGED = ("Forwarded", "X-Forwarded-Host", "X-Forwarded-Prefix")


@dataclass(frozen=True)
class Volume:
    """Files that are mounted together.

    :param path: the directory, or with ``sub_path`` the file.
    :param sources: the kind of source, ``secret`` or ``configMap``, and the files.
    """

    name: str
    path: str
    sub_path: str | None
    sources: tuple[tuple[str, tuple[FileMount, ...]], ...]


@dataclass(frozen=True)
class PathMatch:
    """A path match of a cluster route."""

    kind: str
    value: str


def make(facts: Facts) -> Mapping[str, str]:
    """Return the base, the overlays and the components that apply to the app."""
    components = dict(_components(facts))
    values: dict[str, Any] = {
        "place": containers,
        "components": [name for name in components if name not in {"ingress", "valkey"}],
        "environment": sorted(facts.environment.items()),
        "digest": hashlib.sha256(json.dumps(sorted(facts.environment.items())).encode()).hexdigest()[:16],
        "variables": secret_variables(facts),
        "volumes": tuple(_volumes(facts)),
        "written": written_folders(facts),
        "secret_keys": sorted({*secret_variables(facts), *(each.key for each in usable(secret_files(facts)))}),
        "client_ca": containers.client_ca(facts),
        "client_ca_folder": containers.CLIENT_CA.rpartition("/")[0],
        "certificate_header": _CERTIFICATE_HEADER,
        "certificate_headers": CERTIFICATE_HEADERS,
        "forged": (*CERTIFICATE_HEADERS, *_FORGED),
        "acl": containers.VALKEY_ACL,
        "scrape": containers.scrape_of(facts),
        "streams": tuple(_paths(route for route in facts.routes if route.stream)),
        "everything": PathMatch("PathPrefix", "/"),
        "egress": tuple(egress_of(facts)),
        "skips": tuple(_skips(facts)),
        "live": _probe(facts, facts.live_path or facts.health_path),
        "ready": _probe(facts, facts.health_path),
    }
    names = [f"base/{name}.yaml" for name in ("kustomization", *BASE)]
    names += [f"overlays/{name}/kustomization.yaml" for name in ("dev", "prod")]
    names += [f"components/{name}/{file}" for name, files in components.items() for file in files]
    return {name: TARGET.render(name, facts, **values) for name in names}


def _components(facts: Facts) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "certificates", ("kustomization.yaml", "certificates.yaml")
    yield "gateway", ("kustomization.yaml", "gateway.yaml")
    yield "ingress", ("kustomization.yaml", "ingress.yaml")
    yield "valkey", ("kustomization.yaml", "valkey.yaml")
    if containers.scrape_of(facts):
        yield "monitoring", ("kustomization.yaml", "servicemonitor.yaml", "prometheus-adapter-values.yaml")
    if facts.secrets or secret_files(facts):
        yield "external-secrets", ("kustomization.yaml", "externalsecret.yaml")


def _volumes(facts: Facts) -> Iterator[Volume]:
    """Yield one volume for each directory of files, or for each file if the directory contains others."""
    groups: dict[str, dict[str, list[FileMount]]] = {}
    for kind, files in (("secret", secret_files(facts)), ("configMap", public_files(facts))):
        for file in usable(files):
            groups.setdefault(_mount_path(file), {}).setdefault(kind, []).append(file)
    for number, path in enumerate(sorted(groups), 1):
        sources = tuple((kind, tuple(files)) for kind, files in groups[path].items())
        (first, *_), is_file = sources[0][1], _mount_path(sources[0][1][0]) != sources[0][1][0].folder
        yield Volume(f"files-{number}", path, first.name if is_file else None, sources)


def _mount_path(file: FileMount) -> str:
    shared = file.folder in _SHARED or file.folder.startswith(_OF_THE_IMAGE)
    return file.path if shared else file.folder


def _paths(routes: Iterable[RouteFacts]) -> Iterator[PathMatch]:
    """Yield matches of routes whose paths contain no special characters of an Ingress."""
    for route in routes:
        match = _SAFE_PATH.match(route.rule)
        safe = match[0] if match else ""
        rest = route.rule[len(safe) :]
        if not rest and safe:
            yield PathMatch("Exact", safe)
        elif rest.startswith("/") and safe:
            yield PathMatch("PathPrefix", safe)


def _probe(facts: Facts, path: str | None) -> str:
    """Return the probe of the kubelet; the host is a name that the app serves, not the address of the pod."""
    if path is None:
        return "tcpSocket: {port: https}"
    headers = f"[{{name: Host, value: {quoted(facts.probe_host)}}}]"
    return f"httpGet: {{path: {quoted(path)}, port: https, scheme: HTTPS, httpHeaders: {headers}}}"


def _skips(facts: Facts) -> Iterator[str]:
    if secret_variables(facts):
        yield "CKV_K8S_35=The settings of the app use these variables; a reference file:/path is mounted as a file."


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    if "@sha256:" not in facts.options.image:
        yield f"image {facts.options.image} has no digest, so pods of the same release may run different code"
    if not facts.behind_proxy:
        yield (
            "the app trusts no proxy, so all clients have the gateway's address; set SECURE_ML_TRUSTED_PROXIES to the"
            " network of the pods of your gateway or ingress controller"
        )
    asked = facts.options.client_certificates != "off"
    if asked or facts.settings.client_certificate_header is not None:
        yield (
            "clients can forge certificates behind ingress-nginx unless proxy-set-headers in its ConfigMap is"
            f" {facts.options.namespace}/{facts.options.name}-headers; the Gateway API has no header for certificates"
        )
        if asked and facts.settings.client_certificate_header != _CERTIFICATE_HEADER:
            yield f"set SECURE_ML_CLIENT_CERTIFICATE_HEADER to {_CERTIFICATE_HEADER}, which that ConfigMap sets"
    if facts.settings.store_uri.startswith(("memory:", "sqlite:")):
        yield "pods do not share limits, keys and revocations; set SECURE_ML_STORE_URI, or add components/valkey"
    if facts.settings.sentry_dsn is not None:
        yield "the network policies do not know the server of Sentry, whose DSN is a secret; allow it in the overlay"
    yield from warnings(facts, image=True)


TARGET = Target(
    name="kubernetes",
    summary="Kustomize: a hardened deployment, network policies, gateway or ingress, certificates and monitoring",
    overlay="overlays/own",
    make=make,
    advice=(
        "kubernetes: read with  kubectl kustomize {folder}/overlays/prod",
        "kubernetes: apply with  kubectl apply -k {folder}/overlays/prod",
    ),
    warn=warn,
)
