"""Detecting Keras files that run code when they are loaded.

A Keras 3 file is a zip archive whose ``config.json`` names classes (``class_name``, ``module``). A ``Lambda`` layer or
a ``__lambda__`` contains marshalled bytecode. Modules outside of Keras are imported and called (CVE-2025-1550), as are
Keras functions that were not intended for this (CVE-2025-8747). So every name that is not known to be harmless is a
finding. A model in a directory, or from ``to_json``, consists of the same JSON. A Keras 2 file is an HDF5 file that
contains this JSON.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import Any, BinaryIO

from .hdf5_bytes import Span

MAX_CONFIG = 1 << 26

_BEFORE_JSON = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
_BESIDE_A_CLASS = frozenset({"config", "module", "registered_name", "items"})


def begins_json(head: bytes) -> bool:
    """Return True if a file that begins like this could be JSON, other than a number or literal, in UTF-8, 16 or 32."""
    text = head.lstrip(_BEFORE_JSON)
    return text.startswith((b"{", b"[", b'"')) or (bool(head) and not text)


def config_holds_code(raw: bytes) -> bool:
    """Return True if a ``config.json`` names a class or function that is not known to be harmless.

    A file that is not JSON counts as code.
    """
    try:
        return _holds_code(raw)
    except (ValueError, RecursionError):
        return True


def json_holds_code(raw: bytes) -> bool:
    """Return True if a JSON file names a class or function that is not known to be harmless.

    A file that cannot be parsed is searched instead, because it may be in another format.
    """
    try:
        return _holds_code(raw)
    except RecursionError:
        return True
    except ValueError:
        return holds_code(io.BytesIO(raw))


def hdf5_holds_code(data: bytes, configs: Collection[Span]) -> bool:
    """Return True if an HDF5 file names a class or function that is not known to be harmless.

    :param configs: the positions of the strings that Keras reads as JSON; all other bytes are searched.
    """
    if any(config_holds_code(data[start:end].rstrip(b"\0 ")) for start, end in configs):
        return True
    return holds_code(io.BytesIO(data), configs)


def _holds_code(raw: bytes) -> bool:
    return any(_is_code(entry) for entry in _objects(json.loads(raw)))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str):
            pending.extend(_nested(value))


def _nested(value: str) -> Iterator[Any]:
    # to_json returns a string, which some programs embed in JSON again.
    if value.lstrip().startswith(("{", "[", '"')) and ("_name" in value or "\\u" in value):
        try:
            yield json.loads(value)
        except ValueError:
            return


def _is_code(entry: dict[str, Any]) -> bool:
    name = entry.get("class_name")
    if isinstance(name, str) and name in LAMBDAS:
        return True
    if "class_name" in entry and not _BESIDE_A_CLASS.isdisjoint(entry):
        return not _is_harmless(entry, name)
    return "class_name" not in entry and entry.get("registered_name") is not None


def _is_harmless(entry: dict[str, Any], name: object) -> bool:
    module, config = entry.get("module"), entry.get("config")
    if name == "function":
        known = is_function(module, config)
    else:
        known = is_class(module, name) and not _reads_file(name, config)
    # Keras looks up a registered name, which may be that of the app's own class, before the module.
    return known and entry.get("registered_name") in (None, name, config if name == "function" else None)


def _reads_file(name: object, config: object) -> bool:
    return name in LOOKUPS and isinstance(config, dict) and isinstance(config.get("vocabulary"), str)


LAMBDAS = frozenset({"Lambda", "__lambda__"})
LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "TextVectorization"})
"""Classes that read a vocabulary file if ``vocabulary`` is a string."""

_LAYERS = """
AbstractRNNCell Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention
AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D
AvgPool2D AvgPool3D BatchNormalization BatchNormalizationV1 BatchNormalizationV2 Bidirectional CategoryEncoding
CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D
ConvLSTM3D Convolution1D Convolution1DTranspose Convolution2D Convolution2DTranspose Convolution3D
Convolution3DTranspose Cropping1D Cropping2D Cropping3D CuDNNGRU CuDNNLSTM CutMix Dense DenseFeatures DepthwiseConv1D
DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten Functional GRU GRUCell GRUV1
GRUV2 GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D GlobalMaxPooling1D
GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity InputLayer
InputSpec IntegerLookup LSTM LSTMCell LSTMV1 LSTMV2 LayerNormalization LeakyReLU LocallyConnected1D LocallyConnected2D
Masking MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D Maximum
MelSpectrogram Minimum MixUp Model MultiHeadAttention Multiply Normalization PReLU Permute Pipeline RMSNormalization
RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert
RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation
RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram
SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D Sequential SimpleRNN SimpleRNNCell
Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells
StringLookup Subtract SyncBatchNormalization TextVectorization ThresholdedReLU TimeDistributed UnitNormalization
UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
_TRAINING = """
AUC Accuracy Adadelta Adafactor Adagrad Adam AdamW Adamax BinaryAccuracy BinaryCrossentropy BinaryFocalCrossentropy
BinaryIoU CTC CategoricalAccuracy CategoricalCrossentropy CategoricalFocalCrossentropy
CategoricalGeneralizedCrossEntropy CategoricalHinge Circle ConcordanceCorrelation CosineDecay CosineDecayRestarts
CosineSimilarity Dice ExponentialDecay F1Score FBetaScore FalseNegatives FalsePositives Ftrl Hinge Huber
InverseTimeDecay IoU KLDivergence Lamb Lion LogCosh LogCoshError LossScaleOptimizer Mean MeanAbsoluteError
MeanAbsolutePercentageError MeanIoU MeanMetricWrapper MeanSquaredError MeanSquaredLogarithmicError Muon Nadam OneHotIoU
OneHotMeanIoU PearsonCorrelation PiecewiseConstantDecay Poisson PolynomialDecay Precision PrecisionAtRecall R2Score
RMSprop Recall RecallAtPrecision RootMeanSquaredError SGD ScheduleFreeAdamW SensitivityAtSpecificity
SparseCategoricalAccuracy SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy SpecificityAtSensitivity
SquaredHinge Sum TopKCategoricalAccuracy TrueNegatives TruePositives Tversky
"""
_PARAMETERS = """
AWQConfig AWQDTypePolicy AbsMaxQuantizer Constant DTypePolicy DTypePolicyMap Float8QuantizationConfig FloatDTypePolicy
GPTQConfig GPTQDTypePolicy GlorotNormal GlorotUniform HeNormal HeUniform IdentityInitializer Int4DTypePolicy
Int4QuantizationConfig Int8QuantizationConfig L1 L1L2 L2 LecunNormal LecunUniform MaxNorm MinMaxNorm NonNeg Ones
Orthogonal OrthogonalInitializer OrthogonalRegularizer Policy QuantizedDTypePolicy QuantizedFloat8DTypePolicy
RandomNormal RandomUniform STFT STFTInitializer SeedGenerator TruncatedNormal UnitNorm VarianceScaling Zeros
CompileConfig TensorShape __bytes__ __ellipsis__ __keras_tensor__ __numpy__ __slice__ __tensor__ __tuple__
"""
_OPERATIONS = """
Abs Absolute AdaptiveAveragePool AdaptiveMaxPool Add AffineTransform All AllClose Amax Amin Angle Any Append Arange
Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax Argmin Argpartition Argsort Array ArraySplit Average
AveragePool BatchNorm BinaryCrossentropy Bincount BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr
BitwiseRightShift BitwiseXor BroadcastTo CDist CTCDecode CTCLoss Cast CategoricalCrossentropy Cbrt Ceil Celu Cholesky
CholeskyInverse Clip Concatenate Conj Conjugate Conv ConvTranspose ConvertToTensor Copy Corrcoef Correlate Cos Cosh
CountNonzero CropImages Cross Cumprod Cumsum Deg2rad DepthToSpace DepthwiseConv Det Diag Diagflat Diagonal Diff
Digitize Divide DivideNoNan Dot DotProductAttention Dsplit Dstack Eig Eigh Einsum ElasticTransform Elu EmptyLike Equal
Erf Erfc Erfinv Exp Exp2 ExpandDims Expm1 ExtractPatches ExtractSequences FFT FFT2 Fabs Flip Fliplr Flipud Floor
FloorDivide Fmax Fmin Fmod Fold Full FullLike GaussianBlur Gcd Gelu Geomspace GetItem Glu Greater GreaterEqual
HSVToRGB HardShrink HardSigmoid HardSilu HardTanh Heaviside Histogram Hsplit Hstack Hypot I0 IFFT2 IRFFT ISTFT Imag
InTopK Inner Inv IsIn Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal JVP Kron LayerNorm Lcm Ldexp LeakyRelu
LeftShift Less LessEqual Linspace Log Log10 Log1p Log2 LogSigmoid LogSoftmax Logaddexp Logaddexp2 Logdet LogicalAnd
LogicalNot LogicalOr LogicalXor Logspace Logsumexp Lstsq LuFactor MapCoordinates Matmul MatrixRank Max MaxPool Maximum
Mean Median Meshgrid Min Minimum Mod Moments Moveaxis MultiHot Multiply NanToNum Nanargmax Nanargmin Nancumprod
Nancumsum Nanmax Nanmean Nanmedian Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative
Nextafter Nonzero Norm Normalize NotEqual OneHot OnesLike Outer PSNR Pad PadImages Percentile PerspectiveTransform
Pinv Polar Power Prod Ptp Qr Quantile RFFT RGBToGrayscale RGBToHSV RMSNorm Rad2deg Ravel Real Rearrange Reciprocal
Relu Relu6 Repeat Reshape Resize RightShift Roll Rot90 Round Rsqrt SSIM STFT SVD SaturateCast ScaleAndTranslate
Scatter ScatterUpdate SearchSorted SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum Select Selu
SeparableConv Sigmoid Sign Signbit Silu Sin Sinc Sinh Size Slice SliceUpdate Slogdet SobelEdges SoftShrink Softmax
Softplus Softsign Solve SolveTriangular Sort SpaceToDepth SparseCategoricalCrossentropy SparsePlus SparseSigmoid
Sparsemax Split Sqrt Square Squareplus Squeeze Stack Std StopGradient Subtract Sum Swapaxes Take TakeAlongAxis Tan
Tanh TanhShrink Tensordot Threshold Tile TopK Trace Transpose Trapezoid Tril Triu TrueDivide Trunc Unfold Unique
UnravelIndex Unstack Vander Var Vdot View ViewAsComplex ViewAsReal Vsplit Vstack Where ZerosLike
"""
_FUNCTIONS = """
accuracy binary_accuracy binary_crossentropy binary_focal_crossentropy categorical_accuracy categorical_crossentropy
categorical_focal_crossentropy categorical_generalized_cross_entropy categorical_hinge celu circle
concordance_correlation cosine_similarity ctc dice elu exponential gelu glu hard_shrink hard_sigmoid hard_silu
hard_swish hard_tanh hinge huber kl_divergence leaky_relu linear log_cosh log_sigmoid log_softmax mean_absolute_error
mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error mish pearson_correlation poisson relu
relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_categorical_accuracy
sparse_categorical_crossentropy sparse_plus sparse_sigmoid sparse_top_k_categorical_accuracy sparsemax squared_hinge
squareplus swish tanh tanh_shrink threshold top_k_categorical_accuracy tversky
"""

CLASSES = frozenset(f"{_LAYERS} {_TRAINING} {_PARAMETERS}".split())
FUNCTIONS = frozenset(_FUNCTIONS.split())
OPERATIONS = frozenset(_OPERATIONS.split())
"""Classes of ``keras.ops``, which HDF5 names without their module. Classes that call functions are excluded."""

_PARTS = (
    "activations|backend|constraints|dtype_policies|initializers|layers|losses|metrics|models|optimizers|quantizers|"
    "random|regularizers"
)
_MODULE = re.compile(rf"keras(\.src)?(\.({_PARTS})(\.[a-z0-9_]+)*)?", re.ASCII)
_FUNCTION_MODULE = re.compile(r"builtins|keras(\.src)?\.(activations|losses|metrics)(\.[a-z0-9_]+)?", re.ASCII)
_OPERATIONS_MODULE = re.compile(r"keras\.src\.ops\.(einops|image|linalg|math|nn|numpy)", re.ASCII)
_CORE = "keras.src.ops.core"
_OPERATION = re.compile(r"[A-Z][A-Za-z0-9]*", re.ASCII)


def is_module(name: str) -> bool:
    """Return True if this is a module of Keras in which names of :data:`CLASSES` are Keras classes."""
    return bool(_MODULE.fullmatch(name))


def is_class(module: object, name: object) -> bool:
    """Return True if this is a harmless class, which includes all classes in modules of tensor operations."""
    if not isinstance(name, str):
        return False
    if isinstance(module, str):
        operation = bool(_OPERATIONS_MODULE.fullmatch(module) and _OPERATION.fullmatch(name))
        core = module == _CORE and name in OPERATIONS
        return operation or core or (name in CLASSES and is_module(module))
    return module is None and (name in CLASSES or name in OPERATIONS)


def is_function(module: object, name: object) -> bool:
    """Return True if this is a harmless function; Keras looks up functions of ``builtins`` in its own modules."""
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    return name in FUNCTIONS and bool(_FUNCTION_MODULE.fullmatch(module))


_CHUNK = 1 << 20
_OVERLAP = 1 << 12
_LAMBDAS = tuple(f'"{name}"'.encode() for name in sorted(LAMBDAS))
# Escaped quotation marks mean that the key is inside a JSON string.
_QUOTED = (b"class_name\\", b"registered_name\\")
# No JSON writer escapes ASCII letters.
_ESCAPE = b"\\u00"
_LETTER = re.compile(rb"\\u00[2-7]")
_KEYS = re.compile(
    rb'"(class_name|module|registered_name|vocabulary)"[ \t\r\n]*:[ \t\r\n]*(?:"([^"\\]{0,200})"|(null)|(\[))?'
)
_MARKS = (b'"class_name"', b'"module"', b'"registered_name"', b'"vocabulary"')


def names_classes(stream: BinaryIO) -> bool:
    """Return True if a file may contain a key of a Keras configuration, in UTF-8, 16 or 32."""
    marks = (b"class_name", b"registered_name", _ESCAPE)
    windows = (window.replace(b"\0", b"") if b"\0" in window else window for window, _ in _windows(stream, sys.maxsize))
    return any(mark in window for window in windows for mark in marks)


def holds_code(stream: BinaryIO, without: Collection[Span] = ()) -> bool:
    """Return True if a file names a class that is not known to be harmless, or hides its names.

    :param without: the ranges of model configurations, which were already examined as JSON.
    """
    keys: set[bytes] = set()
    harmful = hidden = False
    for window, end in _windows_without(stream, sorted(without)):
        if _hides(window):
            return True
        hidden = hidden or b"model_config" in window
        for match in _keys(window, end):
            keys.add(match[1])
            harmful = harmful or not _is_harmless_match(match)
    # Without class names, "module" has another meaning, unless the file has a model, whose class names are then hidden.
    return harmful if b"class_name" in keys else hidden and not without


def _hides(window: bytes) -> bool:
    # Searching for plain bytes is many times faster than a pattern, and weights do not contain them.
    plain = any(each in window for each in (*_LAMBDAS, *_QUOTED))
    return plain or (_ESCAPE in window and bool(_LETTER.search(window)))


def _keys(window: bytes, end: int) -> Iterator[re.Match[bytes]]:
    if any(mark in window for mark in _MARKS):
        yield from (match for match in _KEYS.finditer(window) if match.start() < end)


def _is_harmless_match(match: re.Match[bytes]) -> bool:
    key, name, null, array = match.groups()
    if key == b"vocabulary" or name is None:
        return key != b"class_name" and bool(null or (array and key == b"vocabulary"))
    value = name.decode("utf-8", "replace")
    return is_module(value) if key == b"module" else is_class(None, value)


def _windows_without(stream: BinaryIO, spans: Iterable[Span]) -> Iterator[tuple[bytes, int]]:
    position = 0
    for start, end in spans:
        yield from _windows(stream, max(start - position, 0))
        position = max(position, end)
        stream.seek(position)
    yield from _windows(stream, sys.maxsize)


def _windows(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    # A match that begins after ``end`` may be incomplete; the next window contains it again.
    window = stream.read(min(size, _CHUNK))
    size -= len(window)
    while fresh := stream.read(min(size, _CHUNK)):
        size -= len(fresh)
        window += fresh
        end = len(window) - _OVERLAP
        yield window, end
        window = window[max(end, 0) :]
    yield window, len(window)
