"""What a request may carry: its size, its format, and the fields of its schema."""

from .base64_tensor import Base64Tensor
from .categorical import Categorical
from .file_path import FilePath
from .image import Image
from .model_inputs import ModelInputsError
from .profile import Profile
from .profile_error import ProfileError
from .tensors import Tensor
from .text import Text
from .url import Url, VettedUrl

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
