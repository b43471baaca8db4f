"""Detecting pickles without unpickling them, by simulating an unpickler.

A pickle that imports a module and then ends runs only the code of that module. A table with one column whose name
begins with ``c`` can be the same bytes: ``class`` and ``setosa`` on two lines import ``lass.setosa``. Only the module
name distinguishes them, and which modules are installed differs between machines. So there is a list of modules whose
import counts as code: the standard library of Python 3.11 to 3.14, the Python 2 names that an unpickler translates to
it, packages for building and serving models, and common names of an application's main module.

The list is not used for anything else: a pickle that calls an imported object, or that ends with a value, is detected
whatever modules it imports.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import BinaryIO

_STANDARD_LIBRARY = """
__future__ __main__ _abc _aix_support _android_support _apple_support _ast _ast_unparse _asyncio _bisect _blake2
_bootsubprocess _bz2 _codecs _codecs_cn _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr _codecs_tw _collections
_collections_abc _colorize _compat_pickle _compression _contextvars _crypt _csv _ctypes _curses _curses_panel
_datetime _dbm _decimal _elementtree _frozen_importlib _frozen_importlib_external _functools _gdbm _hashlib _heapq
_hmac _imp _interpchannels _interpqueues _interpreters _io _ios_support _json _locale _lsprof _lzma _markupbase _md5
_msi _multibytecodec _multiprocessing _opcode _opcode_metadata _operator _osx_support _overlapped _pickle _posixshmem
_posixsubprocess _py_abc _py_warnings _pydatetime _pydecimal _pyio _pylong _pyrepl _queue _random _remote_debugging
_scproxy _sha1 _sha2 _sha256 _sha3 _sha512 _signal _sitebuiltins _socket _sqlite3 _sre _ssl _stat _statistics _string
_strptime _struct _suggestions _symtable _sysconfig _thread _threading_local _tkinter _tokenize _tracemalloc _types
_typing _uuid _warnings _weakref _weakrefset _winapi _wmi _zoneinfo _zstd abc aifc annotationlib antigravity argparse
array ast asynchat asyncio asyncore atexit audioop base64 bdb binascii bisect builtins bz2 cProfile calendar cgi cgitb
chunk cmath cmd code codecs codeop collections colorsys compileall compression concurrent configparser contextlib
contextvars copy copyreg crypt csv ctypes curses dataclasses datetime dbm decimal difflib dis distutils doctest email
encodings ensurepip enum errno faulthandler fcntl filecmp fileinput fnmatch fractions ftplib functools gc genericpath
getopt getpass gettext glob graphlib grp gzip hashlib heapq hmac html http idlelib imaplib imghdr imp importlib
inspect io ipaddress itertools json keyword lib2to3 linecache locale logging lzma mailbox mailcap marshal math
mimetypes mmap modulefinder msilib msvcrt multiprocessing netrc nis nntplib nt ntpath nturl2path numbers opcode
operator optparse os ossaudiodev pathlib pdb pickle pickletools pipes pkgutil platform plistlib poplib posix posixpath
pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue quopri random re readline reprlib
resource rlcompleter runpy sched secrets select selectors shelve shlex shutil signal site smtpd smtplib sndhdr socket
socketserver spwd sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string stringprep struct subprocess
sunau symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios textwrap this threading time timeit
tkinter token tokenize tomllib trace traceback tracemalloc tty turtle turtledemo types typing unicodedata unittest
urllib uu uuid venv warnings wave weakref webbrowser winreg winsound wsgiref xdrlib xml xmlrpc zipapp zipfile
zipimport zlib zoneinfo
"""
_PYTHON_2 = """
BaseHTTPServer CGIHTTPServer ConfigParser Cookie Dialog DocXMLRPCServer FileDialog HTMLParser Queue ScrolledText
SimpleDialog SimpleHTTPServer SimpleXMLRPCServer SocketServer StringIO Tix Tkconstants Tkdnd Tkinter UserDict UserList
UserString __builtin__ _abcoll _winreg anydbm cPickle cStringIO commands cookielib copy_reg dbhash dumbdbm
dummy_thread gdbm htmlentitydefs httplib markupbase repr robotparser thread tkColorChooser tkCommonDialog tkFileDialog
tkFont tkMessageBox tkSimpleDialog ttk urllib2 urlparse whichdb xmlrpclib
"""
_PACKAGES = """
PIL absl aiohttp allennlp altair anthropic apispec asgiref attr attrs authlib autogluon azure bentoml bitsandbytes
blinker boto3 botocore brotli cachetools caffe2 catboost certifi cffi chainer charset_normalizer click cloudpickle
cntk coremltools cryptography cuml cupy cv2 cvxpy dash dask datasets dateutil deepspeed diffusers dill django dns
docutils duckdb einops evaluate fairseq fastai fastapi fasttext filelock flask flask_limiter flask_secure_ml
flask_talisman flax fsspec gensim gevent gluonts google gradio greenlet grpc gunicorn h5py haiku httpcore httpx
huggingface_hub hvac hypothesis idna imageio imblearn interpret ipykernel itsdangerous jax jaxlib jinja2 joblib
joserfc jsonschema jupyter keras kornia langchain librosa lightgbm lightning lime limits litestar llama_cpp llvmlite
lxml lz4 mako markupsafe marshmallow matplotlib mlflow model_signing mpmath msgpack multidict mxnet networkx nltk
numba numexpr numpy onnx onnxmltools onnxruntime onnxscript openai opentelemetry openvino optax optimum optree optuna
orjson packaging paddle pandas patsy peft pip pkg_resources plotly pmdarima polars prometheus_client prophet psutil
psycopg2 pyarrow pycaret pydantic pydot pygments pymc pyparsing pypmml pyspark pytest pytorch_lightning pytz pywt
quantile_forest ray redis regex requests rich river s3fs sacremoses safetensors scipy seaborn sentence_transformers
sentencepiece sentry_sdk setuptools shap simplejson six skimage skl2onnx sklearn sklearn2pmml skops sktime smart_open
snappy sniffio sortedcontainers spacy speechbrain sqlalchemy starlette statsmodels streamlit surprise sympy tables
tabulate tensorboard tensorflow tensorflow_hub tensorflow_text tensorstore textblob tf_keras tflite_runtime theano
thinc tiktoken timm tokenizers toolz torch torchaudio torchtext torchvision tornado tqdm transformers treelite
tritonclient tsfresh typer typing_extensions tzdata ultralytics urllib3 uvicorn uvloop vllm waitress wandb werkzeug
wheel wrapt xarray xgboost yaml yarl zarr zmq zope zstandard
"""
_APPLICATIONS = """
__mp_main__ app application asgi conftest example_app main manage server setup sitecustomize test tests usercustomize
wsgi
"""

MODULES = frozenset(f"{_STANDARD_LIBRARY} {_PYTHON_2} {_PACKAGES} {_APPLICATIONS}".split())


MAX_OPCODES = 20_000
_MAX_LINE = 1 << 20
_CHUNK = 1 << 20

_IMPORTS = frozenset({"GLOBAL", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})
_PERSISTENT = frozenset({"PERSID", "BINPERSID"})
_CALLS = frozenset({"REDUCE", "BUILD", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
_DECISIVE = frozenset({"INST", "STACK_GLOBAL"})
_TWO_LINES = frozenset({"GLOBAL", "INST"})
_STRINGS = ([pickletools.pyunicode], [pickletools.pybytes_or_str])
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


class _Impossible(Exception):
    """An unpickler would raise an error here."""


@dataclass
class _Machine:
    """The state of an unpickler, with only the number of objects on its stack.

    :param lookups: the opcodes that can push a callable.
    :param named: a string occurred, which STACK_GLOBAL could use as a name.
    """

    lookups: frozenset[str] = _IMPORTS | _PERSISTENT
    depth: int = 0
    marks: list[int] = field(default_factory=list)
    imported: bool = False
    named: bool = False

    def step(self, opcode: pickletools.OpcodeInfo) -> None:
        if opcode.name == "MARK":
            self.marks.append(self.depth)
        elif opcode.name == "POP" and self.marks and self.marks[-1] == self.depth:
            self.marks.pop()
        else:
            self._replace(opcode)
        self.imported = self.imported or opcode.name in self.lookups
        self.named = self.named or self.imported or opcode.stack_after in _STRINGS

    def _replace(self, opcode: pickletools.OpcodeInfo) -> None:
        taken = opcode.stack_before
        if pickletools.markobject in taken:
            if not self.marks:
                raise _Impossible
            self.depth = self.marks.pop()
            taken = taken[: taken.index(pickletools.markobject)]
        if self.depth < len(taken):
            raise _Impossible
        self.depth += len(opcode.stack_after) - len(taken)


def is_pickle(stream: BinaryIO) -> bool:
    """Return True if unpickling this stream would call something or return a value.

    The stream is read only as far as necessary. A stream with 20,000 valid opcodes counts as a pickle: no other file
    has that many, and a pickle could call something after any number of them.

    :raises OSError, EOFError, zlib.error, lzma.LZMAError: the stream is compressed and corrupt.
    """
    return _ends(stream, _Machine()) != "impossible"


def runs_code(stream: BinaryIO) -> bool:
    """Return True if unpickling this stream would import or call something, other than objects of persistent ids.

    :raises OSError, EOFError, zlib.error, lzma.LZMAError: the stream is compressed and corrupt.
    """
    return _ends(stream, _Machine(_IMPORTS)) in {"code", "unknown"}


def _ends(stream: BinaryIO, machine: _Machine) -> str:
    try:
        for _ in range(MAX_OPCODES):
            if end := _step(stream, machine):
                return end
    except _Impossible:
        return "impossible"
    return "unknown"


def _step(stream: BinaryIO, machine: _Machine) -> str:
    opcode = _OPCODES.get(stream.read(1))
    if opcode is None or (opcode.name == "STACK_GLOBAL" and not machine.named):
        raise _Impossible
    if _skip_argument(stream, opcode):
        return "code"
    machine.step(opcode)
    if opcode.name in _CALLS and not machine.imported:
        # BUILD with the state None has no effect on any object.
        if opcode.name != "BUILD":
            raise _Impossible
        return ""
    if opcode.name in _CALLS or opcode.name in _DECISIVE:
        return "code"
    return "value" if opcode.name == "STOP" else ""


def _skip_argument(stream: BinaryIO, opcode: pickletools.OpcodeInfo) -> bool:
    """Skip an argument; return True if it names a module whose import counts as code."""
    size = opcode.arg.n if opcode.arg else 0
    counts = opcode.name in _TWO_LINES and _skip_module(stream)
    if size == pickletools.UP_TO_NEWLINE:
        _line(stream)
    elif size < 0:
        size = int.from_bytes(_exactly(stream, _LENGTH_BYTES[size]), "little")
    _skip(stream, max(size, 0))
    return counts


def _skip_module(stream: BinaryIO) -> bool:
    parts = _line(stream).decode("utf-8", "replace").split(".")
    if parts[0] in MODULES:
        return True
    # A table whose first line begins with c looks like an import, except for the module name. Module names are file
    # names, which may contain hyphens or begin with a digit.
    if not all(part and f"_{part.replace('-', '_')}".isidentifier() for part in parts):
        raise _Impossible
    return False


def _line(stream: BinaryIO) -> bytes:
    """Return a line, truncated to a megabyte; no module has a longer name.

    The C unpickler requires the line to be terminated; the Python unpickler also accepts the end of the file.
    """
    line = beginning = stream.readline(_MAX_LINE)
    while line and not line.endswith(b"\n"):
        line = stream.readline(_MAX_LINE)
    return beginning.removesuffix(b"\n")


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise _Impossible
    return data


def _skip(stream: BinaryIO, size: int) -> None:
    while size:
        size -= len(_exactly(stream, min(size, _CHUNK)))
