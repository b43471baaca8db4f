"""What a request may carry: its size, its format, and the fields of its schema."""

from .fields.base64_tensor import Base64Tensor
from .fields.categorical import Categorical
from .fields.file_path import FilePath
from .fields.image import Image
from .fields.tensor import Tensor
from .fields.text import Text
from .fields.url import Url, VettedUrl
from .model_inputs import ModelInputsError
from .profiles import Profile
from .profiles.file import ProfileError

__all__ = [
    "Base64Tensor",
    "Categorical",
    "FilePath",
    "Image",
    "ModelInputsError",
    "Profile",
    "ProfileError",
    "Tensor",
    "Text",
    "Url",
    "VettedUrl",
]
