"""Response schemas that tests name in the configuration."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from flask_secure_ml.inputs import Tensor


class Prediction(Schema):
    label = fields.String(required=True)
    score = fields.Float(validate=validate.Range(0, 1))
    scores = Tensor((None, 2), "float64", required=False)
    shown = fields.Integer(dump_only=True)
