"""Findings of the offline checks for the app of a test."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from flask_secure_ml.checks import OFFLINE
from flask_secure_ml.checks.run import run
from flask_secure_ml.checks.setup import Setup
from flask_secure_ml.state import state_of


def found_in(app: Flask) -> list[str]:
    """Return the messages of the offline findings of an app."""
    return [each.what for each in run(OFFLINE, Setup(app, state_of(app), {}, Path(__file__).parent))]
