"""Findings about the run itself: the app cannot be checked, a check failed, or an ignore is wrong."""

from __future__ import annotations

from .finding import Check, Severity

LOAD = Check(
    "SML001",
    Severity.ERROR,
    "The app cannot be loaded",
    "A server cannot load it either.",
    "flask --app module:create_app secure-ml check",
)
CONFIG = Check(
    "SML002",
    Severity.ERROR,
    "The configuration is rejected",
    "init_app raises ConfigError, so a server does not start with this setting.",
    "a valid value for the setting in the message, in app.config or as FLASK_SECURE_ML_*",
)
POLICIES = Check(
    "SML003",
    Severity.ERROR,
    "A policy does not match the routes",
    "All requests are rejected with 500 until the policies match the routes.",
    "the policy or view named in the message",
)
BROKEN = Check(
    "SML004",
    Severity.ERROR,
    "A check failed",
    "The subject of this check was not checked.",
    "flask secure-ml check, when the dependency in the message is available again",
)
SLOW = Check(
    "SML005",
    Severity.ERROR,
    "A check timed out",
    "The subject of this check was not checked, and requests may wait just as long.",
    "flask secure-ml check, when the dependency that it waits for is available again",
)
UNKNOWN_IGNORE = Check(
    "SML006",
    Severity.ERROR,
    "An ignore names an unknown finding",
    "The ignore has no effect, and the finding that was meant is still reported.",
    'SECURE_ML_CHECK_IGNORE = {"SML405": "one worker only"}',
)
UNUSED_IGNORE = Check(
    "SML007",
    Severity.NOTE,
    "An ignore matches no finding",
    "It would hide the finding if the problem returned.",
    "remove it from SECURE_ML_CHECK_IGNORE or from the command",
)
UNPROTECTED = Check(
    "SML008",
    Severity.ERROR,
    "The app is not protected",
    "Requests are not checked.",
    "SecureML().init_app(app)",
)
UNAVAILABLE = Check(
    "SML009",
    Severity.ERROR,
    "The data that a check reads is not available",
    "The subject of this check was not checked, and requests that need the data get 503.",
    "flask secure-ml check --online, which reports the dependency that is down",
)
NO_APP = Check(
    "SML010",
    Severity.NOTE,
    "The app was not loaded",
    "Only the running service was checked, with the routes of its OpenAPI description.",
    "flask --app module:create_app secure-ml check --url URL",
)

OWN_CHECKS = (
    LOAD,
    CONFIG,
    POLICIES,
    BROKEN,
    SLOW,
    UNKNOWN_IGNORE,
    UNUSED_IGNORE,
    UNPROTECTED,
    UNAVAILABLE,
    NO_APP,
)
