"""Functions for the policies of tests: the owner of a job, and hooks that must not grant access."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask_secure_ml import Principal

OWNERS = {"1": "https://issuer.example#ada", "2": "https://issuer.example#bob"}


def owns_job(principal: Principal, view_args: Mapping[str, Any]) -> bool:
    return OWNERS[view_args["job_id"]] == principal.id


def fails(principal: Principal, view_args: Mapping[str, Any]) -> bool:
    raise RuntimeError("the database is broken")


def says_one(principal: Principal, view_args: Mapping[str, Any]) -> int:
    return 1


def says_nothing(principal: Principal, view_args: Mapping[str, Any]) -> None:
    return None


async def responses_later(principal: Principal, view_args: Mapping[str, Any]) -> bool:
    return True
