"""What a body may be."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from .record import setting


@dataclass(frozen=True)
class InputSettings:
    """What a body may be."""

    max_body_bytes: int = setting(
        4_194_304,
        checks.integer(0),
        """The largest request body in bytes, also for chunked bodies, and again when its content encoding is undone.
        A policy's ``max_bytes`` comes before it.""",
    )
    max_json_depth: int = setting(
        32, checks.integer(1, 1_000), "How deep the arrays and objects of JSON and MessagePack may nest."
    )
    max_json_members: int = setting(
        1_000, checks.integer(1), "How many members one object of JSON or MessagePack may have; more are a 413."
    )
    max_text_length: int = setting(
        1_048_576,
        checks.integer(1),
        """How many bytes one text or name in a body may have, escapes as they are written; more are a 413. Images and
        tensors in base64 are texts too.""",
    )
    max_elements: int = setting(
        1_000_000,
        checks.integer(1),
        """How many values a body of JSON, MessagePack or CSV may have in all (numbers, texts, literals, empty arrays
        and objects), and how many arrays and objects; more are a 413, which is found by counting, before parsing.""",
    )
    max_decoded_bytes: int = setting(
        67_108_864,
        checks.integer(1),
        """How many bytes an array may have that a body of npy, CSV or the Open Inference Protocol claims, found by
        arithmetic before anything is allocated; more are a 413.""",
    )
    wire_formats: tuple[str, ...] = setting(
        ["json"],
        checks.some_of("json", "oip", "npy", "msgpack", "csv"),
        """The formats that routes with a schema take: ``json``, ``oip`` (Open Inference Protocol v2 with its binary
        extension), ``npy`` (``application/x-npy``), ``msgpack`` (extra ``[msgpack]``) and ``csv``.""",
    )
    content_encodings: tuple[str, ...] = setting(
        ["identity"],
        checks.some_of("identity", "gzip", "zstd"),
        """What a body may be compressed with, beside not at all: ``gzip``, ``zstd`` (extra ``[zstd]`` before
        Python 3.14).""",
    )
