"""Training the digits classifier: ``python -m example_app.training model.npz``.

Only this module needs scikit-learn; a server loads the trained arrays without it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from .model import DigitsModel, Floats, save

SEED = 20
HELD_OUT = 0.25

Split = tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int64]]


def train() -> DigitsModel:
    """Return a model fitted on the digits of scikit-learn. It is deterministic, because data and seed are constant."""
    seen, unseen, seen_digits, unseen_digits = split()
    mean, scale = seen.mean(axis=0), np.where(seen.std(axis=0) > 0, seen.std(axis=0), 1.0)
    fitted = LogisticRegression(C=0.1, max_iter=500, random_state=SEED).fit((seen - mean) / scale, seen_digits)
    classes = fitted.classes_.astype(np.int64)
    model = DigitsModel(fitted.coef_, fitted.intercept_, classes, mean, scale, accuracy=np.array(0.0))
    return replace(model, accuracy=np.array(np.mean(model.predict(unseen)[0] == unseen_digits)))


def split() -> Split:
    """Return training images, test images, and the digits of both."""
    images, digits = load_digits(return_X_y=True)
    parts: Split = train_test_split(images, digits, test_size=HELD_OUT, random_state=SEED, stratify=digits)
    return parts


if __name__ == "__main__":
    print(save(train(), Path(sys.argv[1] if len(sys.argv) > 1 else "model.npz")))
