"""The settings for browsers."""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.cors import CorsOptions
from ..policy.fields import Options
from ..policy.headers import HeaderOptions, HeadersOption
from .fields import setting
from .session_login import SessionLogin, SessionLoginSetting


class CorsSetting(Options):
    """The CORS options of routes whose policy has none."""

    def __init__(self) -> None:
        super().__init__(CorsOptions)
        self.takes = 'an object such as {"origins": ["https://app.example.com"]}'


@dataclass(frozen=True)
class BrowserSettings:
    """CORS, security headers and cookie sessions for pages in browsers."""

    cors: CorsOptions | None = setting(
        CorsSetting(),
        None,
        """The origins whose pages may call the API (CORS). It applies to all routes and to unknown URLs; the option
        ``cors`` of a policy replaces it as a whole. Without it, preflights without a credential are rejected, and the
        CORS headers of the app are not changed. See :doc:`/howto/browsers`.""",
    )
    headers: HeaderOptions = setting(
        HeadersOption(),
        "api",
        """The security headers that are added to Flask's responses unless the view sets them: a preset, ``api`` or
        ``page``, or an object. The option ``headers`` of a policy replaces it as a whole. HSTS has its own settings.
        See :doc:`/howto/browsers`.""",
    )
    session_login: SessionLogin | None = setting(
        SessionLoginSetting(),
        None,
        """Accept the app's cookie session as a credential, for its own pages. The principal is ``session:<user>``. Only
        same-origin requests are accepted; others get 403 ``origin_not_allowed``. Requires ``SECRET_KEY``. Without this
        setting, a session is not a credential. See :doc:`/howto/pages_and_forms`.""",
    )
