"""The settings of one app: read and validated once, with all problems reported together.

Every key is ``SECURE_ML_`` and the upper-case name of the setting. Their records are in :mod:`.settings` by group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass
from typing import Any, ClassVar, cast

from marshmallow import ValidationError

from ..errors import ConfigError
from ..policy.schema import Check, load_options, options_of, sentences, unknown_names
from .alerts import AlertSettings
from .anomalies import AnomalySettings
from .audit import AuditSettings
from .browsers import BrowserSettings
from .checks import CheckSettings
from .cross_checks import CROSS_CHECKS, ratelimit_problems
from .deployment import DeploymentSettings
from .fields import literal_secrets
from .limits import LimitSettings
from .metrics import MetricsSettings
from .observability import ObservabilitySettings
from .probes import ProbeSettings
from .settings import (
    GROUPS,
    AuthenticationSettings,
    InputSettings,
    SharedSettings,
    TokenSettings,
    TransportSettings,
)

PREFIX = "SECURE_ML_"
_SERVER_PREFIX = "SECURE_ML_SERVE_"  # of the variables in flask_secure_ml.deploy.gunicorn_environment


@dataclass(frozen=True)
class Settings(
    DeploymentSettings,
    ProbeSettings,
    AuditSettings,
    AnomalySettings,
    AlertSettings,
    MetricsSettings,
    ObservabilitySettings,
    InputSettings,
    SharedSettings,
    LimitSettings,
    TokenSettings,
    AuthenticationSettings,
    CheckSettings,
    BrowserSettings,
    TransportSettings,
):
    """The validated settings of one app; ``init_app`` reads them once, and later changes have no effect."""

    cross_checks: ClassVar[tuple[Check, ...]] = CROSS_CHECKS

    @classmethod
    def load(cls, config: Mapping[str, Any], *, own_limiter: bool = False) -> Settings:
        """Return the settings of a configuration.

        :param own_limiter: the app has its own ``flask_limiter.Limiter``, which ``RATELIMIT_*`` may configure.
        :raises ConfigError: a line for each unknown key, wrong value and contradiction.
        """
        names = {key_of(name): name for name in options_of(cls)}
        given = {key: value for key, value in config.items() if key.startswith(PREFIX)}
        problems = list(_unknown_keys(given, names))
        problems += ratelimit_problems(config, own_limiter=own_limiter)
        values = {names[key]: value for key, value in given.items() if key in names}
        try:
            with literal_secrets(allowed=bool(config.get("DEBUG") or config.get("TESTING"))):
                settings = load_options(cls, values)
        except ValidationError as error:
            # The messages of a schema are grouped by option.
            for name, messages in cast("Mapping[str, Any]", error.messages).items():
                problems += sentences(messages, key_of(name))
        if problems:
            raise ConfigError(problems)
        return settings


def _unknown_keys(given: Iterable[str], known: Collection[str]) -> Iterator[str]:
    for (key,), sentence in unknown_names(sorted(given), known):
        if str(key).startswith(_SERVER_PREFIX):
            yield f"{key}: is read by gunicorn, from the environment variable of this name without FLASK_"
        else:
            yield f"{key}: {sentence}"


def settings_by_group() -> Iterator[tuple[str, str, tuple[Field[Any], ...]]]:
    """Yield the title, the summary and the settings of each group."""
    for title, group in GROUPS.items():
        yield title, " ".join((group.__doc__ or "").split()), dataclasses.fields(group)


def key_of(name: str) -> str:
    """Return the configuration key of a setting."""
    return PREFIX + name.upper()
