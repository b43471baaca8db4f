"""Checks of settings that ``init_app`` did not read, or that have no effect."""

from __future__ import annotations

from collections.abc import Iterator

from ...config import PREFIX, Settings, key_of
from ...config.audit import OFF
from ...policy.schema import options_of
from ..finding import Check, Found, Severity, Where, setting
from ..setup import Setup

_FLASK = "FLASK_"
_NEEDS = {
    "audit_checkpoint_sinks": "audit_log",
    "mtls_ca_file": "mtls_clients",
}
_PREFIXES = ("FLASK_SECURE_ML_", "FLASK_RATELIMIT_")


def unread_variables(setup: Setup) -> Iterator[Found]:
    """Yield environment variables of settings that are not in the configuration of the app."""
    known = {key_of(name) for name in options_of(Settings)}
    for variable in sorted(setup.environ):
        key = variable.removeprefix(_FLASK).partition("__")[0]
        if key in setup.app.config:
            continue
        if variable.startswith(_PREFIXES):
            yield Found(Where("setting", key), f"{variable} is set, but the configuration of the app has no {key}")
        elif key in known:
            what = f"{variable} is set, but Flask reads only variables that begin with {_FLASK}"
            yield Found(Where("setting", key), what, f"export {_FLASK}{key}=...")


def later_settings(setup: Setup) -> Iterator[Found]:
    """Yield the settings that were added, changed or removed after ``init_app``."""
    read, now = setup.state.configuration, setup.app.config
    for key in sorted({*read, *(name for name in now if name.startswith(PREFIX))}):
        if key not in read or key not in now or (read[key] is not now[key] and read[key] != now[key]):
            yield Found(Where("setting", key), f"{key} was changed after init_app, which does not read it again")


def idle_settings(setup: Setup) -> Iterator[Found]:
    """Yield the settings that have no effect without another one, which is not set."""
    given = setup.state.configuration
    for name, needed in _NEEDS.items():
        if given.get(key_of(name)) and not _is_set(setup.settings, needed):
            key = key_of(needed)
            yield Found(setting(name), f"{key_of(name)} has no effect without {key}", f"{key} = ..., or remove it")


def _is_set(settings: Settings, name: str) -> bool:
    return getattr(settings, name) not in {OFF, ()}


CHECKS = (
    Check(
        "SML621",
        Severity.WARNING,
        "An environment variable is not read",
        "The app runs without that setting.",
        "app.config.from_prefixed_env(), before init_app",
        unread_variables,
    ),
    Check(
        "SML622",
        Severity.ERROR,
        "A setting was changed after init_app",
        "The app still uses the previous value.",
        "set it before SecureML.init_app(app)",
        later_settings,
    ),
    Check(
        "SML623",
        Severity.WARNING,
        "A setting has no effect",
        "The feature that it configures is off.",
        "the setting that it needs",
        idle_settings,
    ),
)
