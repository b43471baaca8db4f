"""The modules whose import counts as code, on every machine alike.

A pickle that only imports something and then breaks off runs the code of that module and nothing else. A table of one
column whose name begins with ``c`` is the same bytes: ``class`` and ``setosa`` on two lines import ``lass.setosa``.
Only the name of the module separates the two, and whether a module is installed differs from one machine to the next.
So the names are listed: the standard library of Python 3.11 to 3.14, the names of Python 2 that an unpickler translates
to it, the packages that build and serve models, and what applications call their own first module.

The list decides about nothing else: a pickle that calls what it imported, or that ends with a value, is found whatever
module it names.
"""

from __future__ import annotations

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
