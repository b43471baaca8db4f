"""Schemas that the fast path supports, each with valid bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from marshmallow import Schema, fields, validate

from flask_secure_ml.inputs import Categorical, Tensor, Text


class Floats(Schema):
    instances = Tensor((None, 4), "float32", minimum=-1e6, maximum=1e6)


class Vector(Schema):
    x = Tensor((None,), "float64", allow_none=True)


class Narrow(Schema):
    x = Tensor((None, 2, 2), "float16", max_items=3, max_elements=8)


class Wide(Schema):
    x = Tensor((2, None), ">f4")
    y = Tensor((None,), "float16", minimum=-1e9, maximum=1e9, required=False)
    z = Tensor((None,), "int8", minimum=-1000, maximum=1000, required=False)


class Integers(Schema):
    a = Tensor((None,), "int8", required=False)
    b = Tensor((None,), "int64", maximum=2**62, required=False)
    c = Tensor((None, 2), "uint64", minimum=1, required=False)
    d = Tensor((None,), ">i2", minimum=-5.5, maximum=5.5, required=False)
    e = Tensor((None,), "uint8", load_default=None)


class Booleans(Schema):
    x = Tensor((None, 2), "bool")


class Named(Schema):
    x = Tensor(("batch", 3), "float32")
    y = Tensor(("batch",), "int32", required=False)
    z = Tensor(("batch", "batch"), "float64", required=False)


class Rules(Schema):
    by_column = Tensor((None, 2), minimum=[0.1, -1], maximum=[1, 10], required=False)
    total = Tensor((None, 2), "float64", total=(0.99, 1.01), required=False)
    whole = Tensor((None, 2), "int64", total=(3, 5), required=False)
    norm = Tensor((None, 2), norm=(0.5, 2), required=False)
    allowed = Tensor((None,), "float32", allowed=(0.1, 1, 2), required=False)
    codes = Tensor((None,), "int16", allowed=(1, 2, 127), required=False)


class Outside(Schema):
    clipped = Tensor((None,), minimum=0, maximum=1, outside="clip", required=False)
    reported = Tensor((None,), "int32", maximum=3, outside="report", required=False)
    lowered = Tensor((None, 2), maximum=[1, 2], outside="clip", required=False)


class Scalars(Schema):
    name = fields.String(required=True, validate=validate.Length(max=5))
    count = fields.Integer(validate=[validate.Range(0, 200)])
    strict = fields.Integer(strict=True, data_key="whole")
    share = fields.Float(validate=validate.Range(max=1e6))
    flag = fields.Boolean(load_default=False)
    colour = fields.String(validate=validate.OneOf(["red", "abc"]))
    pattern = fields.String(validate=validate.Regexp("^[a-z]+$"))


class Mixed(Schema):
    rows = Tensor((None, 2), "float32")
    single = Tensor((3,), "int32", data_key="one", required=False)
    name = fields.String()
    threshold = fields.Float()
    odd = fields.Boolean(truthy={1, "yes"}, falsy={"no"})
    other = fields.Boolean(truthy=[], falsy={1, "no"})


class Ours(Schema):
    colour = Categorical(["red", "abc"])
    level = Categorical([1, 2, 127], (None,), codes=True, required=False)
    note = Text(max_length=5, required=False)


class Optional(Schema):
    x = Tensor((None,), required=False)
    y = Text(required=False, allow_none=True)


class OutOfOrder(Schema):
    class Meta:
        fields: ClassVar[tuple[str, ...]] = ("b", "a")

    a = fields.Integer()
    b = Tensor((None,), "float32", required=False)


SCHEMAS: Mapping[type[Schema], Sequence[bytes]] = {
    Floats: (
        b'{"instances":[[1,2.5,-3e2,4]]}',
        b'{"instances": [[0.1, 0.2, 0.3, 0.4], [5, 6, 7, 8], [1, 1, 1, -0.0]]}',
    ),
    Vector: (b'{"x":[0.5]}', b'{"x":[1,2,3,-0.0,1e300]}'),
    Narrow: (b'{"x":[[[1,2],[3.5,4]]]}', b'{"x":[[[1,2],[3,4]],[[5,6],[7,8e2]]]}'),
    Wide: (b'{"x":[[1,2,3],[4,5,6.5]],"y":[1.5,65504,-65504],"z":[-128,127]}', b'{"x":[[1],[2]]}'),
    Integers: (
        b'{"a":[1,-128,127],"b":[1,4611686018427387904],"c":[[1,2],[18446744073709551615,4]],"e":[0,255]}',
        b'{"d":[5,-5,0],"e":[7]}',
    ),
    Booleans: (b'{"x":[[true,false]]}', b'{"x":[[true,true],[false,true]]}'),
    Named: (
        b'{"x":[[1,2,3],[4,5,6]],"y":[1,2]}',
        b'{"y":[1,2],"x":[[1,2,3],[4,5,6]],"z":[[1,2],[3,4]]}',
        b'{"x":[[1,2,3]]}',
    ),
    Rules: (
        b'{"by_column":[[0.5,9],[1,-1]],"total":[[0.5,0.5]],"whole":[[1,2],[2,3]]}',
        b'{"norm":[[1,1]],"allowed":[0.1,1,2],"codes":[1,2,127]}',
    ),
    Outside: (b'{"clipped":[0,0.5,1],"reported":[1,2,3],"lowered":[[1,2]]}',),
    Scalars: (
        b'{"name":"abc","count":7,"whole":3,"share":0.25,"flag":true,"colour":"red","pattern":"xyz"}',
        b'{"flag":false,"name":"\\u00e9\\n","share":3}',
    ),
    Mixed: (
        b'{"rows":[[1,2],[3,4.5]],"one":[1,2,3],"name":"x[y","threshold":1}',
        b'{"odd":true,"rows":[[1,2]],"name":"plain"}',
    ),
    Ours: (b'{"colour":"red","level":[1,2,127],"note":"h\xc3\xa9llo"}', b'{"colour":"abc"}'),
    Optional: (b"{}", b'{"x":[1],"y":"a"}'),
    OutOfOrder: (b'{"a":1,"b":[1.5]}', b'{"b":[2],"a":0}'),
}
