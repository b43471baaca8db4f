"""What all routes share: the store of the workers, plans, and policies by configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import checks
from ..policy import Policy, policies_from_config
from ..secrets import SecretRing, client_secret_ring
from .record import setting


@dataclass(frozen=True)
class SharedSettings:
    """What all routes share: the store of the workers, plans, and policies by configuration."""

    store_uri: str = setting(
        "memory:",
        checks.store_uri,
        """Where state lives that workers share: revocations, DPoP proofs that were seen, and API keys if they are to.
        ``sqlite:/path`` serves all workers of one machine, ``redis://`` or ``valkey://`` many machines; ``memory:``
        is for one process only. A password may stand in it, or better in ``SECURE_ML_STORE_PASSWORD``.""",
        secret=True,
    )
    store_password: SecretRing | None = setting(
        None,
        client_secret_ring,
        "A reference to the password of the store, instead of one in its address; in a list, the newest first.",
    )
    plans: checks.Plans = setting(
        {"default": {"requests": ["600/minute"], "cost": []}},
        checks.plans,
        """What callers may use, by plan: ``requests`` are rate limits over all routes, ``cost`` are quotas in
        rows of input for routes with ``cost=``, ``outputs`` is what answers say of scores, such as
        ``{"round": 2, "top_k": 3}``. API keys name their plan; everyone else has ``default``.""",
    )
    limit_outage: str = setting(
        "memory",
        checks.one_of("memory", "closed"),
        """What happens while the limit storage (``RATELIMIT_STORAGE_URI``) is down: ``memory`` counts in each
        worker, ``closed`` answers 503.""",
    )
    policies: Mapping[str, Policy] = setting(
        {},
        policies_from_config,
        """Policies for routes whose code cannot be edited, by endpoint or URL rule:
        ``{"/invocations": {"scopes": ["predict"]}}``. Terms: ``public``, ``scopes``, ``any_scopes``, ``roles``,
        ``claims``, ``principals``, ``owner`` (true, or the import name of a function), ``acr_values``,
        ``max_auth_age``, ``limits``, ``max_bytes``, ``caps``, ``cost``, ``outputs``, and ``body`` and ``returns`` (the
        import names of schemas). An unknown name is a start-up error.""",
    )
