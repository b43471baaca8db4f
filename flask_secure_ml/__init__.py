"""flask-secure-ml: make any Flask model app safe to put on the internet with one ``init_app``."""

from .errors import ConfigError, SecureMLError
from .exchange import Exchange, current_exchange, current_principal
from .extension import SecureML
from .pipeline import Filter, Guard, Pipeline, Recorder, Stage
from .policy.decorators import protect, public
from .policy.policy import Policy
from .principal import Principal
from .signals import request_authenticated, request_rejected

__all__ = [
    "ConfigError",
    "Exchange",
    "Filter",
    "Guard",
    "Pipeline",
    "Policy",
    "Principal",
    "Recorder",
    "SecureML",
    "SecureMLError",
    "Stage",
    "current_exchange",
    "current_principal",
    "protect",
    "public",
    "request_authenticated",
    "request_rejected",
]
