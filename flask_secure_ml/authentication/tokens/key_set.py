"""A JWK Set (RFC 7517) reduced to the keys that may verify a token of one issuer.

An entry that is not a valid public signing key is skipped and logged; an error of the document as a whole rejects it.
Each remaining key is bound to exactly one algorithm (RFC 8725bis section 3.1).
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from ...config.issuers import ASYMMETRIC
from ...errors import DependencyUnavailable
from ...fetch import MAX_BYTES
from ...strictjson import loads
from ..throttle import UNLIMITED, Calls

log: logging.Logger = logging.getLogger(__name__)

MAX_KEY_SET_BYTES = MAX_BYTES
"""The maximum size of a key set in bytes; it also limits the number of keys, each parsed in less than a millisecond."""

MAX_KID = 256
MINIMUM_RSA_BITS, MAXIMUM_RSA_BITS = 2048, 8192
MINIMUM_RSA_EXPONENT = 65_537
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
_ROCA_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)


class KeySetError(ValueError):
    """The document cannot be used as a key set; the message is private."""


@dataclass(frozen=True)
class VerificationKey:
    """A key, the one algorithm that it verifies, and the ``kid`` that the issuer gave it."""

    key: Key
    algorithm: str
    kid: str | None


class VerificationKeys:
    """The usable keys of one issuer in memory, looked up by ``kid``."""

    def __init__(self, keys: Sequence[VerificationKey]) -> None:
        self._all = tuple(keys)
        self._by_kid: dict[str, tuple[VerificationKey, ...]] = {}
        for each in keys:
            if each.kid is not None:
                self._by_kid[each.kid] = (*self._by_kid.get(each.kid, ()), each)

    def __len__(self) -> int:
        return len(self._all)

    def has(self, kid: str | None) -> bool:
        """Return True if the set has this ``kid``, or it is None, so that a newer set could not help."""
        return kid is None or kid in self._by_kid

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key for a token, or None.

        Without a ``kid``, a key is returned only if exactly one fits the algorithm.
        """
        named = self._all if kid is None else self._by_kid.get(kid, ())
        fitting = [each for each in named if each.algorithm == algorithm]
        return fitting[0] if len(fitting) == 1 else None


class PublishedKeys:
    """A source of public keys with at most one key for a token."""

    def find(self, kid: str | None, algorithm: str, calls: Calls = UNLIMITED) -> VerificationKey | None:
        """Return the key, or None if there is none with this ``kid`` for this algorithm."""
        raise NotImplementedError

    def candidates(self, kid: str | None, algorithm: str, calls: Calls = UNLIMITED) -> tuple[VerificationKey, ...]:
        """Return at most one key to try."""
        found = self.find(kid, algorithm, calls)
        return () if found is None else (found,)


def no_usable_keys(source: str, retry_after: float) -> DependencyUnavailable:
    """Return the error for an issuer whose keys are not known."""
    return DependencyUnavailable(f"no usable keys from {source}", headers=[("Retry-After", str(int(retry_after)))])


def parse_key_set(raw: bytes, algorithms: Sequence[str], *, strict: bool = False) -> VerificationKeys:
    """Parse a JWK Set.

    :param algorithms: the algorithms that the issuer may sign with; a key without ``alg`` gets the first that fits it.
    :param strict: reject the whole set if a signing key is secret, weak or damaged.
    :raises KeySetError: it is not an object with a list of keys, is too large, or has a duplicate ``kid``. Keys of
        different types may share one (RFC 7517 section 4.5), because an algorithm fits only one type.
    """
    entries = _entries(raw)
    kids = [(entry["kid"], str(entry.get("kty"))) for entry in entries if isinstance(entry.get("kid"), str)]
    if len(set(kids)) < len(kids):
        raise KeySetError("it has a duplicate kid")
    if strict and (problems := list(_unsound(entries))):
        raise KeySetError("; ".join(problems))
    found = list(_imported(entries, algorithms))
    if len(found) > 1:
        found = [each for each in found if each.kid is not None]
    return VerificationKeys(found)


def _entries(raw: bytes) -> list[dict[str, Any]]:
    if len(raw) > MAX_KEY_SET_BYTES:
        raise KeySetError(f"it has more than {MAX_KEY_SET_BYTES} bytes")
    try:
        document = loads(raw)
    except ValueError as error:
        raise KeySetError(f"not JSON: {error}") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeySetError("not an object with a list of keys")
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("use") != "enc"]


def _imported(entries: Sequence[Mapping[str, Any]], algorithms: Sequence[str]) -> Iterator[VerificationKey]:
    for number, entry in enumerate(entries, start=1):
        try:
            yield import_key(entry, algorithms)
        except (JoseError, ValueError, TypeError) as error:
            log.warning("ignoring signing key %d of a JWK Set: %s", number, _why(error))


def _unsound(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a problem for each key that is invalid for every algorithm."""
    for number, entry in enumerate(entries, start=1):
        try:
            import_key(entry, sorted(ASYMMETRIC))
        except (JoseError, ValueError, TypeError) as error:
            yield f"signing key {number} cannot be used: {_why(error)}"


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def import_key(entry: Mapping[str, Any], algorithms: Sequence[str]) -> VerificationKey:
    """Return the key of a public JWK (RFC 7517 section 4), built from the key material only.

    :param algorithms: the algorithms that it may be used with; a key without ``alg`` gets the first that fits it.
    :raises KeySetError: it is secret, weak, not for verifying signatures, or fits none of the algorithms.
    :raises JoseError: its members are not a valid key; ``ValueError`` and ``TypeError`` are possible too.
    """
    if _PRIVATE & entry.keys() or entry.get("kty") == "oct":
        raise KeySetError("it is secret, and a published key set must not contain secrets")
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise KeySetError("it is not for verifying signatures")
    kid = entry.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID):
        raise KeySetError(f"its kid is not a string of 1 to {MAX_KID} characters")
    algorithm = _algorithm(entry, algorithms)
    return VerificationKey(_IMPORTERS[entry["kty"]](entry), algorithm, kid)


def _algorithm(entry: Mapping[str, Any], algorithms: Collection[str]) -> str:
    """Return the ``alg`` of a key, or the first allowed algorithm that fits its type and curve."""
    fitting = [name for name in algorithms if _fits(name, entry) and entry.get("alg", name) == name]
    if not fitting:
        raise KeySetError("its kty, crv and alg match no allowed algorithm")
    return fitting[0]


def _fits(algorithm: str, entry: Mapping[str, Any]) -> bool:
    if algorithm in _CURVES:
        kty = "EC" if algorithm.startswith("ES") else "OKP"
        return entry.get("kty") == kty and entry.get("crv") == _CURVES[algorithm]
    return algorithm.startswith(("RS", "PS")) and entry.get("kty") == "RSA"


def _members(entry: Mapping[str, Any], *names: str) -> dict[str, str | list[str]]:
    """Return only the key material, so that no other member can change how the key is used."""
    if not all(isinstance(entry.get(name), str) for name in names):
        raise KeySetError(f"it needs the strings {', '.join(names)}")
    return {name: entry[name] for name in names}


def _import_rsa(entry: Mapping[str, Any]) -> Key:
    members = _members(entry, "kty", "n", "e")
    check_rsa(_integer(entry["n"]), _integer(entry["e"]))
    return RSAKey.import_key(members)


def _integer(encoded: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)), "big")


def check_rsa(modulus: int, exponent: int) -> None:
    """Reject RSA keys that are weak or too expensive.

    :raises KeySetError: the modulus has less than 2048 or more than 8192 bits, or is easy to factor (CVE-2017-15361,
        ROCA), or the exponent is even or less than 65537.
    """
    bits = modulus.bit_length()
    if not MINIMUM_RSA_BITS <= bits <= MAXIMUM_RSA_BITS:
        raise KeySetError(f"its modulus has {bits} bits, not {MINIMUM_RSA_BITS} to {MAXIMUM_RSA_BITS}")
    if exponent < MINIMUM_RSA_EXPONENT or exponent % 2 == 0:
        raise KeySetError(f"its exponent is even or less than {MINIMUM_RSA_EXPONENT}")
    if all(modulus % prime in _powers(prime) for prime in _ROCA_PRIMES):
        raise KeySetError("its modulus has the ROCA weakness (CVE-2017-15361)")


def _powers(prime: int) -> set[int]:
    # Moduli of the vulnerable library are powers of 65537 modulo every small prime; of others, 1 in 2^27 is.
    return {pow(65_537, exponent, prime) for exponent in range(prime)}


def _import_curve(kind: type[ECKey | OKPKey], names: Sequence[str], entry: Mapping[str, Any]) -> Key:
    return kind.import_key(_members(entry, *names))


_IMPORTERS: Mapping[str, Callable[[Mapping[str, Any]], Key]] = {
    "RSA": _import_rsa,
    "EC": partial(_import_curve, ECKey, ("kty", "crv", "x", "y")),
    "OKP": partial(_import_curve, OKPKey, ("kty", "crv", "x")),
}
