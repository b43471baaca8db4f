"""Request bodies: limits on size and structure, wire formats, and fields for schemas.

The fields are imported lazily, so an app loads only those that it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fields.base64_tensor import Base64Tensor
    from .fields.categorical import Categorical
    from .fields.file_path import FilePath
    from .fields.image import Image
    from .fields.tensor import Tensor
    from .fields.text import Text
    from .fields.url import Url, VettedUrl
    from .load_context import OutOfRange, collect_out_of_range
    from .model_inputs import ModelInputsError
    from .profiles import Profile
    from .profiles.file import ProfileError

__all__ = [
    "Base64Tensor",
    "Categorical",
    "FilePath",
    "Image",
    "ModelInputsError",
    "OutOfRange",
    "Profile",
    "ProfileError",
    "Tensor",
    "Text",
    "Url",
    "VettedUrl",
    "collect_out_of_range",
]

_MODULES = {
    "Base64Tensor": "fields.base64_tensor",
    "Categorical": "fields.categorical",
    "FilePath": "fields.file_path",
    "Image": "fields.image",
    "ModelInputsError": "model_inputs",
    "OutOfRange": "load_context",
    "Profile": "profiles",
    "ProfileError": "profiles.file",
    "Tensor": "fields.tensor",
    "Text": "fields.text",
    "Url": "fields.url",
    "VettedUrl": "fields.url",
    "collect_out_of_range": "load_context",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
