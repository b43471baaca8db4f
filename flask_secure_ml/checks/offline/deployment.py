"""Checks of the deployment whose files were generated in the directory of the app."""

from __future__ import annotations

from collections.abc import Iterator

from ..finding import Check, Found, Severity, Where, setting
from ..setup import Setup

FOLDER = "deploy"
"""The directory of generated files, unless ``flask secure-ml deploy --out`` names another one."""


def exceeded_limits(setup: Setup) -> Iterator[Found]:
    """Yield the limits of deployment targets that the app exceeds."""
    from ...deploy.facts import facts_of
    from ...deploy.files import MANIFEST, written_targets
    from ...deploy.targets import targets

    folder = setup.folder / FOLDER
    if not (written := written_targets(folder)):
        return
    facts = facts_of(setup.app)
    for name, target in targets().items():
        for sentence in target.exceed(facts) if name in written else ():
            yield Found(Where("target", name, str(folder / MANIFEST)), f"{name}: {sentence}")


def short_timeout(setup: Setup) -> Iterator[Found]:
    """Yield a timeout of gunicorn below the one that the proxies have."""
    seconds, source = setup.server_timeout
    options = setup.settings.deploy
    if options is not None and 0 < seconds < options.request_timeout:
        what = (
            f"{source} gives gunicorn a timeout of {seconds} seconds, and request_timeout is {options.request_timeout}"
        )
        fix = f"timeout = {options.request_timeout} for gunicorn, or a shorter request_timeout in SECURE_ML_DEPLOY"
        yield Found(setting("deploy"), what, fix)


CHECKS = (
    Check(
        "SML631",
        Severity.WARNING,
        "The app exceeds a limit of a deployment target",
        "There, the gateway rejects requests that the app accepts, or the feature does not work.",
        'a lower limit of the policy, "request_timeout" or "client_certificates" of SECURE_ML_DEPLOY',
        exceeded_limits,
    ),
    Check(
        "SML632",
        Severity.WARNING,
        "The server has a shorter timeout than the proxy",
        "A prediction that blocks its worker for longer ends in 502, and so do the other requests of that worker.",
        'the same "request_timeout" for both: flask secure-ml deploy gunicorn',
        short_timeout,
    ),
)
