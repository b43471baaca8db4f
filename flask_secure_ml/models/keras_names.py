"""The classes and functions of Keras that a model may name: those that compute with numbers and do nothing else.

Left out on purpose: ``Lambda`` and ``__lambda__`` (bytecode), ``TorchModuleWrapper`` (a pickle), ``TFSMLayer`` (a graph
from a path), ``JaxLayer`` and ``FlaxLayer`` (functions), ``TFOpLambda`` and ``TensorFlowOpLayer`` (any operation of
TensorFlow, which can read and write files), ``__typespec__`` (a class of any module).
Source: the public names of Keras 2 and 3, and ``keras.saving.deserialize_keras_object`` for the special ones.
"""

from __future__ import annotations

import re

LAMBDAS = frozenset({"Lambda", "__lambda__"})
LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "TextVectorization"})
"""Classes that read the file which ``vocabulary`` names, when that is a text."""

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
"""Classes of ``keras.ops`` as they stand in HDF5, without their module. Those that call a function are left out."""

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
    """Return whether all the classes of :data:`CLASSES` that this module has are those of Keras."""
    return bool(_MODULE.fullmatch(name))


def is_class(module: object, name: object) -> bool:
    """Return whether this is a class that only computes; every class of the modules of tensor operations is one."""
    if not isinstance(name, str):
        return False
    if isinstance(module, str):
        operation = bool(_OPERATIONS_MODULE.fullmatch(module) and _OPERATION.fullmatch(name))
        core = module == _CORE and name in OPERATIONS
        return operation or core or (name in CLASSES and is_module(module))
    return module is None and (name in CLASSES or name in OPERATIONS)


def is_function(module: object, name: object) -> bool:
    """Return whether this is a function that only computes; Keras looks for those of ``builtins`` in itself."""
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    return name in FUNCTIONS and bool(_FUNCTION_MODULE.fullmatch(module))
