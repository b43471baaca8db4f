"""The settings for pages in browsers."""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.cors import CorsOptions
from ..policy.fields import Options
from ..policy.headers import HeaderOptions, HeadersOption
from .fields import setting
from .session_login import SessionLogin, SessionLoginSetting


class CorsSetting(Options):
    """The options of CORS for every route whose policy has none."""

    def __init__(self) -> None:
        super().__init__(CorsOptions)
        self.takes = 'an object such as {"origins": ["https://app.example.com"]}'


@dataclass(frozen=True)
class BrowserSettings:
    """What pages in browsers may do with the responses."""

    cors: CorsOptions | None = setting(
        CorsSetting(),
        None,
        """Which pages of other origins may call (CORS). It holds for every route, and for unknown URLs; the option
        ``cors`` of a policy replaces it as a whole. Without it, no preflight is answered without a credential, and the
        CORS headers of the app stay as they are. See :doc:`/howto/browsers`.""",
    )
    headers: HeaderOptions = setting(
        HeadersOption(),
        "api",
        """The security headers of the responses of Flask, where the view sets none of that name: a preset, ``api`` or
        ``page``, or an object. The option ``headers`` of a policy replaces it as a whole. HSTS has settings of its own.
        See :doc:`/howto/browsers`.""",
    )
    session_login: SessionLogin | None = setting(
        SessionLoginSetting(),
        None,
        """Accept the cookie session of the app as a credential, for its own pages. The principal is
        ``session:<user>``. It counts only for requests of the same origin; others get 403 ``origin_not_allowed``. Needs
        ``SECRET_KEY``. Without it, sessions are no credential. See :doc:`/howto/pages_and_forms`.""",
    )
