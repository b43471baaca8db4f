"""The settings: one record for each key, with its default, its check and its help.

Every key is ``SECURE_ML_`` and the upper-case name of the field. The reference page in the documentation is
generated from these records, so a fact about a setting stands only here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, cast

from . import checks
from .errors import ConfigError
from .policy import Policy, policies_from_config
from .secrets import Secret

PREFIX = "SECURE_ML_"


def _setting(default: Any, check: Callable[[Any], Any], help_text: str) -> Any:
    metadata = {"check": check, "help": " ".join(help_text.split())}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: check(default), metadata=metadata | {"shown": default})
    return field(default=default, metadata=metadata | {"shown": default})


@dataclass(frozen=True)
class Settings:
    """The checked settings of one app. Read once by ``init_app``; later changes have no effect."""

    require_tls: bool = _setting(
        True,
        checks.boolean,
        """Refuse clear text with 403 ``tls_required``. Turn it off only where no other machine can reach the
        port, such as a local development server; ``flask secure-ml check`` names it.""",
    )
    trusted_proxies: checks.Networks = _setting(
        [],
        checks.networks,
        """Networks whose ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``X-Request-ID`` are believed, such as
        ``["10.0.3.0/24"]``; ``unix`` means a Unix socket. From anyone else these headers are removed.""",
    )
    hsts_max_age: int = _setting(
        31_536_000,
        checks.integer(0),
        """Seconds for which browsers shall use HTTPS only (``Strict-Transport-Security``), sent on TLS
        connections only; 0 tells browsers to forget it.""",
    )
    realm: str = _setting(
        "model",
        checks.token_text,
        "The realm that ``WWW-Authenticate`` names: letters, digits, spaces and ``-._``.",
    )
    api_keys_file: str | None = _setting(
        None,
        checks.text,
        """The file that holds the hashed API keys, written by ``flask secure-ml keys``. Running workers see a
        change at their next request. Without it, API keys are not accepted.""",
    )
    api_key_pepper: Secret | None = _setting(
        None,
        checks.secret,
        """A reference to the secret that keys the hash of API keys, at least 32 bytes: ``env:NAME`` or
        ``file:/path``. Needed with ``SECURE_ML_API_KEYS_FILE``.""",
    )
    jwt_issuers: tuple[checks.IssuerConfig, ...] = _setting(
        [],
        checks.issuers,
        """Authorization servers whose RFC 9068 access tokens are accepted: a list of objects with ``issuer``,
        ``audience``, ``algorithms`` and one of ``jwks_uri`` or ``jwks_file``; ``insecure_http: true`` allows a
        ``http:`` address on the loopback interface.""",
    )
    jwt_leeway: int = _setting(
        30, checks.integer(0, 300), "Seconds by which the clocks of issuer and server may differ (at most 300)."
    )
    jwks_max_age: int = _setting(
        300, checks.integer(1, 86_400), "Seconds for which a fetched key set is used before it is fetched again."
    )
    jwks_cooldown: int = _setting(
        60,
        checks.integer(1, 3_600),
        "Seconds between two fetches of a key set that an unknown ``kid`` or a failure can cause.",
    )
    failed_auth_limit: checks.Limits = _setting(
        ["30/minute"],
        checks.limits,
        """How many invalid credentials one address may present before it gets 429. An empty list turns
        the throttle off.""",
    )
    plans: checks.Plans = _setting(
        {"default": {"requests": ["600/minute"], "cost": []}},
        checks.plans,
        """What callers may use, by plan: ``requests`` are rate limits over all routes, ``cost`` are quotas in
        rows of input for routes with ``cost=``. API keys name their plan; everyone else has ``default``.""",
    )
    limit_outage: str = _setting(
        "memory",
        checks.one_of("memory", "closed"),
        """What happens while the limit storage (``RATELIMIT_STORAGE_URI``) is down: ``memory`` counts in each
        worker, ``closed`` answers 503.""",
    )
    policies: Mapping[str, Policy] = _setting(
        {},
        policies_from_config,
        """Policies for routes whose code cannot be edited, by endpoint or URL rule:
        ``{"/invocations": {"scopes": ["predict"]}}``. Terms: ``public``, ``scopes``, ``limits``, ``max_bytes``,
        ``cost`` and ``body`` (the import name of a schema). An unknown name is a start-up error.""",
    )
    max_body_bytes: int = _setting(
        4_194_304, checks.integer(0), "The largest request body in bytes, also for chunked bodies."
    )
    max_json_depth: int = _setting(32, checks.integer(1, 1_000), "How deep the arrays and objects of JSON may nest.")
    request_log: str = _setting(
        "stderr",
        checks.text,
        """Where the request log goes, one JSON line a request: ``stderr``, ``stdout``, ``off`` or the path of a
        file, which is reopened when it is rotated.""",
    )

    @classmethod
    def load(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check every ``SECURE_ML_*`` key.

        :raises ConfigError: one sentence for each unknown key, wrong value and contradiction.
        """
        given = {key: value for key, value in config.items() if key.startswith(PREFIX)}
        problems = list(_unknown(given))
        values: dict[str, Any] = {}
        for record in settings_fields():
            if (name := key_of(record)) in given:
                _read(record, given[name], values, problems)
        settings = cls(**values)
        problems += _contradictions(settings)
        if problems:
            raise ConfigError(problems)
        return settings


def settings_fields() -> tuple[Field[Any], ...]:
    """Return the record of every setting, in the order of the reference page."""
    return fields(cast("Any", Settings))


def key_of(record: Field[Any]) -> str:
    """Return the configuration key of a setting."""
    return PREFIX + record.name.upper()


def _unknown(given: Mapping[str, Any]) -> Iterator[str]:
    known = {key_of(record) for record in settings_fields()}
    for key in sorted(given.keys() - known):
        guess = checks.closest(key, known)
        yield f"{key} is not a setting" + (f"; did you mean {guess}?" if guess else "")


def _read(record: Field[Any], value: Any, values: dict[str, Any], problems: list[str]) -> None:
    try:
        values[record.name] = record.metadata["check"](value)
    except (TypeError, ValueError) as error:
        problems.append(f"{key_of(record)} {error}")


def _contradictions(settings: Settings) -> Iterator[str]:
    if settings.api_keys_file and settings.api_key_pepper is None:
        yield (
            "SECURE_ML_API_KEY_PEPPER is needed with SECURE_ML_API_KEYS_FILE, such as "
            '"env:API_KEY_PEPPER" or "file:/run/secrets/pepper"'
        )
    if "default" not in settings.plans:
        yield "SECURE_ML_PLANS must have a plan named 'default'"
