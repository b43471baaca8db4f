"""Values out of range that a field lets pass are counted in the request log."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import Schema

from flask_secure_ml import protect
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.testing import MemorySink
from support import HTTPS, MakeApp, caller


@pytest.mark.parametrize(
    ("outside", "expected"), [("clip", [[0.0, 1.0, 1.0]]), ("report", [[-5.0, 1.0, 9.0]])], ids=["clip", "report"]
)
def test_count_is_logged(protected: MakeApp, sink: MemorySink, outside: Any, expected: list[list[float]]) -> None:
    """The number is logged, not the values; a request without such values has no entry."""

    class Body(Schema):
        x = Tensor(shape=(None, 3), minimum=0, maximum=1, outside=outside)

    app = protected()

    @app.post("/predict")
    @protect(body=Body)
    def predict(payload: dict[str, Any]) -> dict[str, Any]:
        return {"x": payload["x"]}

    client = app.test_client()
    for values in ([[-5, 1, 9]], [[0, 1, 1]]):
        response = client.post("/predict", json={"x": values}, base_url=HTTPS, headers=caller())
        assert response.json == {"x": expected if values[0][0] else [[0.0, 1.0, 1.0]]}
    assert [record.get("out_of_range") for record in sink.records] == [2, None]
    assert "-5" not in sink.lines[0]
