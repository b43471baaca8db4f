"""Mozilla's intermediate profile, and TLS options that ``ssl`` does not support: groups, and no session cache.

The profile is version 5 of https://wiki.mozilla.org/Security/Server_Side_TLS, without its Diffie-Hellman suites, which
need separate parameters. The default TLS 1.3 suites are those of the profile.

``ssl`` supports groups since Python 3.15. Earlier versions can set exactly one, and OpenSSL's default also accepts X448
and secp521r1. ``ssl`` also cannot turn off the session cache of TLS 1.2, which keeps sessions for two hours even
without tickets. So OpenSSL's own functions are called on the context object of ``ssl``. If they are not accessible, as
in a Python with statically linked OpenSSL, the only group is P-256, which every client supports, and a server that
requests client certificates supports TLS 1.3 only.
"""

from __future__ import annotations

import ctypes
import ssl
import sys
from collections.abc import Callable
from typing import Any

CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
"""The cipher suites for TLS 1.2."""

GROUPS = ("X25519", "prime256v1", "secp384r1")
"""The groups for key exchange."""

_ALONE = "prime256v1"
# SSL_CTRL_SET_SESS_CACHE_MODE, SSL_CTRL_SET_GROUPS_LIST and SSL_CTRL_GET_MIN_PROTO_VERSION of <openssl/ssl.h>.
_SET_SESSIONS, _SET_GROUPS, _GET_MINIMUM = 44, 92, 130
_NUMBER = 0xFFFFFFFF
# ssl supports it since 3.15; the object layout of later versions is unknown.
_WITHOUT_METHOD = (3, 15)


def limit_groups(context: ssl.SSLContext) -> bool:
    """Accept only the groups of the profile for key exchange.

    :return: False if the only group is P-256.
    """
    names = ":".join(GROUPS)
    if hasattr(context, "set_groups"):
        context.set_groups(names)
        return True
    control = _control(context)
    if control is not None and control(_SET_GROUPS, names.encode()) == 1:
        return True
    context.set_ecdh_curve(_ALONE)
    return False


def keep_no_sessions(context: ssl.SSLContext) -> bool:
    """Disable session resumption, so that each connection has a full handshake.

    A resumed session skips the verification of the client certificate.

    :return: False if the session cache cannot be turned off. Then a context that requests client certificates supports
        TLS 1.3 only.
    """
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    control = _control(context)
    if control is not None:
        # It returns the previous mode.
        control(_SET_SESSIONS, None)
        return True
    if context.verify_mode is not ssl.CERT_NONE:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return False


def _control(context: ssl.SSLContext) -> Callable[[int, bytes | None], int] | None:
    """Return a function that sets an option of a context, or None if OpenSSL is not accessible."""
    library = _library()
    if library is None:
        return None
    # The first member of the _ssl object, after the object header: SSL_CTX *ctx.
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    control = library.SSL_CTX_ctrl
    control.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
    control.restype = ctypes.c_long
    if control(pointer, _GET_MINIMUM, 0, None) != int(context.minimum_version):
        return None
    return lambda command, value: int(control(pointer, command, 0, value))


def _library() -> Any:
    """Return the OpenSSL library that ``ssl`` uses, or None if its functions are not accessible."""
    if sys.implementation.name != "cpython" or sys.version_info >= _WITHOUT_METHOD:
        return None
    # A library resolves its own functions and those of linked libraries. None means the main program, which contains
    # the module in some builds.
    path = None if "_ssl" in sys.builtin_module_names else getattr(sys.modules.get("_ssl"), "__file__", "")
    try:
        library = None if path == "" else ctypes.CDLL(path)
        if library is None or library.OpenSSL_version_num() & _NUMBER != ssl.OPENSSL_VERSION_NUMBER:
            return None
        return library if hasattr(library, "SSL_CTX_ctrl") else None
    except (OSError, AttributeError):
        return None
