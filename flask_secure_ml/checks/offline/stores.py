"""Checks of stores, limits and the state that workers share."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from ...config.issuers import LOOPBACK
from ..finding import Check, Found, Severity, Where, key, setting
from ..setup import Setup


def clear_text(setup: Setup) -> Iterator[Found]:
    """Yield the stores that are reached over the network without TLS."""
    for name, uri in (
        ("SECURE_ML_STORE_URI", setup.settings.store_uri),
        ("RATELIMIT_STORAGE_URI", str(setup.app.config.get("RATELIMIT_STORAGE_URI") or "")),
    ):
        parts = urlsplit(uri)
        kind, _, variant = parts.scheme.partition("+")
        if kind in {"redis", "valkey"} and variant != "unix" and parts.hostname not in LOOPBACK:
            yield Found(key(name), f"{name} connects to another machine without TLS")


def memory(setup: Setup) -> Iterator[Found]:
    """Yield shared state in memory if at most one worker is configured."""
    if not setup.shares_state and setup.workers[0] <= 1:
        yield Found(setting("store_uri"), "SECURE_ML_STORE_URI is memory")


def memory_of_workers(setup: Setup) -> Iterator[Found]:
    """Yield the stores in memory if there are several workers."""
    count, source = setup.workers
    if count > 1:
        if not setup.shares_state:
            yield Found(setting("store_uri"), f"SECURE_ML_STORE_URI is memory, and {source} starts {count} workers")
        elif setup.limit_store.startswith("memory"):
            where = key("RATELIMIT_STORAGE_URI")
            yield Found(where, f"limits are counted in memory, and {source} starts {count} workers")


def replays(setup: Setup) -> Iterator[Found]:
    """Yield a finding if workers do not share the DPoP proofs that they have seen."""
    if not setup.shares_state and setup.settings.dpop != "off":
        yield Found(setting("dpop"), "a DPoP proof that one worker has accepted can be replayed to another one")


def counted_in_memory(setup: Setup) -> Iterator[Found]:
    """Yield a finding if each worker counts limits separately."""
    if setup.limit_store.startswith("memory") and setup.workers[0] <= 1:
        yield Found(setting("store_uri"), "limits are counted in memory, separately in each worker")


def open_outage(setup: Setup) -> Iterator[Found]:
    """Yield a finding if limits are not enforced during an outage of the store."""
    if setup.settings.limit_outage == "open":
        yield Found(setting("limit_outage"), "SECURE_ML_LIMIT_OUTAGE is open")


def open_limits(setup: Setup) -> Iterator[Found]:
    """Yield the limits that are not enforced during an outage of the store."""
    settings = setup.settings
    limits = [
        (Where("plan", name), limit)
        for name, plan in settings.plans.items()
        for limit in (*plan.requests, *plan.quotas)
        if limit.outage == "open"
    ]
    limits += [
        (setup.at(route), limit) for route in setup.routes for limit in route.policy.limits if limit.outage == "open"
    ]
    for where, limit in limits:
        yield Found(where, f"the limit {limit} has the outage policy open")


def no_requests(setup: Setup) -> Iterator[Found]:
    """Yield the plans without a rate limit."""
    for name, plan in setup.settings.plans.items():
        if not plan.requests:
            yield Found(Where("plan", name), f"the plan {name!r} has no request limit")


def above_capacity(setup: Setup) -> Iterator[Found]:
    """Yield the plans and routes that allow one caller a higher rate than all servers together have served."""
    measured = setup.settings.deploy.measured_rate if setup.settings.deploy else None
    if measured is None:
        return
    given = [(Where("plan", name), plan.requests) for name, plan in setup.settings.plans.items()]
    given += [(setup.at(route), route.policy.limits) for route in setup.routes]
    for where, limits in given:
        # A caller has to stay within all of them.
        lowest = min(limits, key=lambda limit: limit.amount / limit.seconds, default=None)
        if lowest is not None and lowest.amount > measured * lowest.seconds:
            rate = lowest.amount / lowest.seconds
            what = f"{where} allows one caller {rate:,.0f} requests per second, but all servers served {measured:,}"
            yield Found(where, what)


def metrics_of_workers(setup: Setup) -> Iterator[Found]:
    """Yield metrics that workers do not aggregate."""
    count, source = setup.workers
    shared = setup.environ.get("PROMETHEUS_MULTIPROC_DIR") or setup.uses_deploy_configuration
    if setup.settings.metrics is not None and count > 1 and not shared:
        yield Found(setting("metrics"), f"{source} starts {count} workers, but their metrics are not aggregated")


def file_of_one_machine(setup: Setup) -> Iterator[Found]:
    """Yield a store in a file if workers run on several machines."""
    here, source = setup.workers_here
    everywhere = setup.settings.limit_workers
    if here and everywhere > here and "sqlite" in {setup.settings.store_uri[:6], setup.limit_store[:6]}:
        what = f"SECURE_ML_LIMIT_WORKERS is {everywhere}, {source} starts {here}, and the store is a file"
        yield Found(setting("store_uri"), what)


CHECKS = (
    Check(
        "SML401",
        Severity.WARNING,
        "A store is reached without TLS",
        "An attacker on the network can read the hashes of keys, and change counters and revocations.",
        'SECURE_ML_STORE_URI = "rediss://stores.example.com:6379/0"',
        clear_text,
    ),
    Check(
        "SML402",
        Severity.WARNING,
        "Shared state is in memory",
        "Commands cannot revoke credentials, and workers do not share their state.",
        'SECURE_ML_STORE_URI = "sqlite:/var/lib/model/state.db"',
        memory,
    ),
    Check(
        "SML403",
        Severity.ERROR,
        "Workers do not share their state",
        "A revocation takes effect in one worker at most, and each worker allows the full limit.",
        'SECURE_ML_STORE_URI = "sqlite:/var/lib/model/state.db"',
        memory_of_workers,
    ),
    Check(
        "SML404",
        Severity.WARNING,
        "DPoP proofs can be replayed",
        "An attacker who captures a request can replay it to another worker (RFC 9449 section 11.1).",
        'SECURE_ML_STORE_URI = "sqlite:/var/lib/model/state.db"',
        replays,
    ),
    Check(
        "SML405",
        Severity.WARNING,
        "Limits are counted in memory",
        "Each worker counts separately, and loses its counters when it exits.",
        'SECURE_ML_STORE_URI = "sqlite:/var/lib/model/state.db"',
        counted_in_memory,
    ),
    Check(
        "SML406",
        Severity.WARNING,
        "While the store is down, requests are not limited",
        "During an outage, any caller can send any number of requests.",
        'SECURE_ML_LIMIT_OUTAGE = "degrade"',
        open_outage,
    ),
    Check(
        "SML407",
        Severity.WARNING,
        "While the store is down, a limit is not enforced",
        "During an outage, a caller can exceed this limit.",
        'SECURE_ML_PLANS = {"default": {"requests": [{"limit": "600/minute", "outage": "degrade"}]}}',
        open_limits,
    ),
    Check(
        "SML408",
        Severity.WARNING,
        "A plan has no request limit",
        "One caller can use the full capacity of the server.",
        'SECURE_ML_PLANS = {"default": {"requests": ["600/minute"]}}',
        no_requests,
    ),
    Check(
        "SML409",
        Severity.NOTE,
        "Metrics of workers are not aggregated",
        "Without a common directory, each scrape returns the metrics of one arbitrary worker.",
        "gunicorn -c python:flask_secure_ml.deploy.gunicorn, or PROMETHEUS_MULTIPROC_DIR=/run/model/metrics",
        metrics_of_workers,
    ),
    Check(
        "SML410",
        Severity.ERROR,
        "Machines do not share their state",
        "Each machine has its own file: a revocation affects one machine, and each machine allows the full limit.",
        'SECURE_ML_STORE_URI = "rediss://stores.example.com:6379/0"',
        file_of_one_machine,
    ),
    Check(
        "SML411",
        Severity.WARNING,
        "A limit is above the measured capacity",
        "One caller within its limits can use the full capacity of all servers.",
        'SECURE_ML_PLANS = {"default": {"requests": ["600/minute"]}}, or measured_rate of a new load test',
        above_capacity,
    ),
)
