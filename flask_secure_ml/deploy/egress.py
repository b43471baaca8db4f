"""The destinations of an app for network policies: by address and port, because policies do not support names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from .destinations import Destination
from .facts import Facts

_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
# Not public: private and shared networks, loopback, multicast, and link-local addresses (cloud metadata services).
_NOT_PUBLIC_4 = ("0.0.0.0/8", *_PRIVATE[:3], "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4")
_NOT_PUBLIC_6 = ("::/96", "fc00::/7", "fe80::/10", "ff00::/8")
_PRIVATE_SUFFIXES = (".internal", ".local", ".lan", ".corp", ".intranet", ".home.arpa")
_CLUSTER = ("svc", "svc.cluster.local")


@dataclass(frozen=True)
class Block:
    """A network, with exceptions."""

    cidr: str
    besides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Egress:
    """One destination that the app may connect to.

    :param place: host and port, or where the host is configured.
    :param blocks: the networks that may contain it.
    :param namespace: the namespace of a service in the cluster.
    :param own_namespace: it is a service in the same namespace.
    """

    purpose: str
    place: str
    port: int
    protocol: str = "TCP"
    blocks: tuple[Block, ...] = ()
    namespace: str | None = None
    own_namespace: bool = False


_PUBLIC = (Block("0.0.0.0/0", _NOT_PUBLIC_4), Block("::/0", _NOT_PUBLIC_6))


def egress_of(facts: Facts) -> Iterator[Egress]:
    """Yield a rule for each server in the settings, except those on loopback."""
    for each in facts.destinations:
        found = _rule(each)
        if found is not None:
            yield found


def _rule(destination: Destination) -> Egress | None:
    host, port = destination.host, destination.port
    place = f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
    rule = Egress(destination.purpose, place, port, destination.protocol)
    if not host:
        return replace(rule, place="the host in SECURE_ML_SENTRY_DSN", blocks=(*_PUBLIC, *map(Block, _PRIVATE)))
    try:
        address = ip_address(host)
    except ValueError:
        return None if host == "localhost" else _by_name(rule, destination)
    block = Block(f"{address}/{address.max_prefixlen}")
    return None if address.is_loopback else replace(rule, blocks=(block,))


def _by_name(rule: Egress, destination: Destination) -> Egress:
    """Return the rule for a host name: a service of the cluster, or the networks where the server may be."""
    host = destination.host.rstrip(".")
    name, _, rest = host.partition(".")
    namespace, _, zone = rest.partition(".")
    if name and not rest:
        return replace(rule, own_namespace=True)
    if zone in _CLUSTER:
        return replace(rule, namespace=namespace)
    private = tuple(map(Block, _PRIVATE))
    if destination.private or host.endswith(_PRIVATE_SUFFIXES):
        return replace(rule, blocks=private)
    return replace(rule, blocks=(*_PUBLIC, *private) if destination.private is None else _PUBLIC)
