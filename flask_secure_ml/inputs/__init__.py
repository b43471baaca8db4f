"""What a request may carry: its size, its format, and the fields of its schema."""

from .base64_tensor import Base64Tensor
from .categorical import Categorical
from .image import Image
from .tensors import Tensor
from .text import Text
from .url import Url, VettedUrl

__all__ = ["Base64Tensor", "Categorical", "Image", "Tensor", "Text", "Url", "VettedUrl"]
