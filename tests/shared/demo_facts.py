"""The facts of the example app with an untrained model, because only routes and settings matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from example_app.app import create_app
from example_app.model import PIXELS, DigitsModel, save
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.describing import described_only


def demo_facts(folder: Path, **options: Any) -> Facts:
    """Return the facts of the example app, deployed with these options."""
    row = np.zeros(PIXELS)
    save(DigitsModel(row[None], np.zeros(1), np.zeros(1, np.int64), row, row + 1, np.zeros(())), folder / "model.npz")
    settings = {
        "FLASK_MODEL_FILE": str(folder / "model.npz"),
        "FLASK_SECURE_ML_TRUSTED_PROXIES": '["127.0.0.1/32"]',
        "FLASK_SECURE_ML_DEPLOY": json.dumps(options),
    }
    with pytest.MonkeyPatch.context() as patch, described_only():
        for name, value in settings.items():
            patch.setenv(name, value)
        return facts_of(create_app())
