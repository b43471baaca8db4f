"""Is an address one of the public internet? The properties of :mod:`ipaddress` alone do not say so.

``is_global`` is true for multicast, and for addresses of IPv6 that a gateway turns into ones of IPv4 (RFC 6052,
RFC 3056, RFC 4380); and what it says of the special-purpose registries (RFC 6890) differs between releases of Python.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Protocol assignments, documentation, 6to4 and its relays, by the registries of November 2024.
_SPECIAL = tuple(
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)


def is_public(text: str) -> bool:
    """Tell whether a text is an address that is reachable from everywhere, and is no way to one that is not."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if address in _NAT64:
            return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _UNICAST or address.scope_id is not None:
            return False
    special = any(network.version == address.version and address in network for network in _SPECIAL)
    return address.is_global and not address.is_multicast and not special
