"""A SageMaker container on port 8080: a probe, and predictions for rows of CSV or JSON."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/ping")
def ping() -> Response:
    """Return that the model is loaded."""
    return Response("\n", mimetype="application/json")


@app.post("/invocations")
def invocations() -> Any:
    """Return the sum of each row, in the format of the request."""
    if request.mimetype == "text/csv":
        rows = [list(map(float, line.split(","))) for line in request.get_data(as_text=True).splitlines()]
        return Response("".join(f"{sum(row)}\n" for row in rows), mimetype="text/csv")
    sent: Any = request.get_json()
    return app.json.response(predictions=[sum(row) for row in sent["instances"]])


@app.get("/execution-parameters")
def execution_parameters() -> Any:
    """Return how a batch transform may call."""
    return {"MaxConcurrentTransforms": 4, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}
