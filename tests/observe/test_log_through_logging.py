"""``SECURE_ML_REQUEST_LOG="logging:NAME"``: handlers of dictConfig get the lines, and none delays a request."""

from __future__ import annotations

import json
import logging
import logging.config
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_secure_ml import ConfigError, SecureML, public
from flask_secure_ml.observe.request_log.through_logging import PAUSE, LoggingSink
from flask_secure_ml.testing import FakeClock
from forks import run_forking
from servers import wait_until
from support import HTTPS, MakeApp


@pytest.fixture
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    # One for each test: a thread of an earlier one may not be done.
    logger = logging.getLogger(f"requests.{request.node.name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    logger.handlers.clear()


class Collecting(logging.Handler):
    """Keeps formatted records; it blocks or fails when a test requires it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.open = threading.Event()
        self.open.set()
        self.fails = False

    def emit(self, record: logging.LogRecord) -> None:
        self.open.wait(30)
        try:
            self.lines.append({False: self.format(record)}[self.fails])
        except KeyError:
            self.handleError(record)


def get(app: Flask, count: int = 1) -> None:
    for _ in range(count):
        assert app.test_client().get("/x", base_url=HTTPS).status_code == 200


def logged_app(protected: MakeApp, logger: logging.Logger) -> Flask:
    app = protected(REQUEST_LOG=f"logging:{logger.name}", METRICS="/metrics", parts={"sink": None})
    app.add_url_rule("/x", "x", public(lambda: "ok"))
    return app


def dropped(app: Flask) -> float:
    value = app.extensions["secure_ml"].metrics.counters.registry.get_sample_value("secure_ml_log_dropped_lines_total")
    assert value is not None
    return float(value)


def test_a_configured_logger_gets_each_line(protected: MakeApp, logger: logging.Logger, tmp_path: Path) -> None:
    """Through a handler, a level and the JSON formatter of dictConfig; the line stays as it is."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": "flask_secure_ml.observe.request_log.JsonFormatter"}},
            "handlers": {
                "file": {"class": "logging.FileHandler", "filename": str(tmp_path / "log"), "formatter": "json"}
            },
            "loggers": {logger.name: {"handlers": ["file"], "level": "INFO", "propagate": False}},
        }
    )
    get(logged_app(protected, logger), 3)
    wait_until(lambda: (tmp_path / "log").read_text().count("\n") == 3, "the lines")
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(record["endpoint"], record["status"]) for record in records] == [("x", 200)] * 3
    logger.handlers[0].close()


@pytest.mark.parametrize(
    "value", [pytest.param("logging:", id="no name"), pytest.param("loging:x", id="misspelt"), "logging: "]
)
def test_a_name_is_needed(value: str) -> None:
    app = Flask("x")
    app.config["SECURE_ML_REQUEST_LOG"] = value
    with pytest.raises(ConfigError, match="REQUEST_LOG"):
        SecureML(app)


def test_the_thread_exists_only_when_it_is_needed(protected: MakeApp, logger: logging.Logger) -> None:
    """Neither at the start of an app nor for another sink; then it is one."""

    def threads() -> int:
        return sum(thread.name == "secure-ml-request-log" for thread in threading.enumerate())

    logger.addHandler(Collecting())
    before = threads()
    app = logged_app(protected, logger)
    assert threads() == before
    get(app, 3)
    assert threads() == before + 1


def test_a_handler_that_blocks(clock: FakeClock, logger: logging.Logger) -> None:
    """The queue fills, further lines are dropped at once, and queued lines arrive when it continues."""
    handler = Collecting()
    logger.addHandler(handler)
    handler.open.clear()
    sink = LoggingSink(logger.name, clock, longest=5)
    sink.write("0")
    wait_until(lambda: not sink._workers.copy().popitem()[1].lines.qsize(), "the thread")
    for number in range(1, 6):
        sink.write(str(number))
    for _ in range(100):
        with pytest.raises(BlockingIOError, match="too slow"):
            sink.write("lost")
    handler.open.set()
    wait_until(lambda: len(handler.lines) == 6, "the lines")
    assert handler.lines == [str(number) for number in range(6)]


def test_a_handler_that_fails(
    protected: MakeApp,
    logger: logging.Logger,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One traceback, of :mod:`logging` itself, for a pause without lines; each lost line is counted."""
    handler = Collecting()
    logger.addHandler(handler)
    app = logged_app(protected, logger)
    handler.fails = True
    get(app, 5)
    wait_until(lambda: dropped(app) == 5, "the drops")
    handler.fails = False
    clock.advance(PAUSE)
    get(app)
    wait_until(lambda: len(handler.lines) == 1, "the line")
    wait_until(lambda: "works again" in caplog.text, "the message of the end")
    assert capsys.readouterr().err.count("Traceback") == 1
    assert [record.getMessage() for record in caplog.records if record.name.endswith("drops")] == [
        "the request log is dropping lines: KeyError",
        "the request log works again; dropped lines: 5",
    ]


def test_a_filter_that_raises(protected: MakeApp, logger: logging.Logger) -> None:
    """An exception that logging does not catch ends neither the thread nor a request."""
    handler = Collecting()
    logger.addHandler(handler)

    def failing(record: logging.LogRecord) -> bool:
        raise RuntimeError

    logger.addFilter(failing)
    app = logged_app(protected, logger)
    get(app, 2)
    wait_until(lambda: dropped(app) == 2, "the drops")
    logger.removeFilter(failing)


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_logger_that_takes_no_line(
    protected: MakeApp, logger: logging.Logger, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a handler, or with a level above INFO, lines are dropped and a message reports it."""
    logger.setLevel(level)
    logger.handlers.clear()  # pytest adds its own
    if level == logging.WARNING:
        logger.addHandler(Collecting())
    app = logged_app(protected, logger)
    get(app, 2)
    wait_until(lambda: dropped(app) == 2 and "drops" in caplog.text, "the drops")
    assert f"the logger '{logger.name}' has no handler for INFO" in caplog.text


def test_a_record_can_be_sent_elsewhere(logger: logging.Logger, clock: FakeClock) -> None:
    """As a handler for sockets or processes pickles it."""
    import pickle

    records: list[bytes] = []
    handler = Collecting()
    handler.emit = lambda record: records.append(pickle.dumps(record))  # type: ignore[method-assign]
    logger.addHandler(handler)
    LoggingSink(logger.name, clock).write("a line")
    wait_until(lambda: bool(records), "the record")
    assert pickle.loads(records[0]).getMessage() == "a line"


FORK = """
import logging, os
from flask_secure_ml.observe.request_log.through_logging import LoggingSink
from flask_secure_ml.principal import SystemClock

logger = logging.getLogger("x")
logger.setLevel(logging.INFO)
reader, writer = os.pipe()

class Unbuffered(logging.Handler):
    def emit(self, record):
        os.write(writer, record.getMessage().encode() + b"\\n")

logger.addHandler(Unbuffered())
sink = LoggingSink("x", SystemClock())
sink.write("of the parent")
assert os.read(reader, 100) == b"of the parent\\n"

def work():
    sink.write("of the child")
    assert os.read(reader, 100) == b"of the child\\n"

ended(fork(work))
"""


def test_a_forked_process_has_a_thread_of_its_own() -> None:
    """A preloaded app may have logged before the fork."""
    run_forking(FORK)


EXIT = """
import logging, sys, threading, time
from flask_secure_ml.observe.request_log.through_logging import LoggingSink
from flask_secure_ml.principal import SystemClock

class Slow(logging.StreamHandler):
    def emit(self, record):
        if sys.argv[1] == "blocked":
            threading.Event().wait()
        time.sleep(0.005)
        super().emit(record)

logger = logging.getLogger("x")
logger.setLevel(logging.INFO)
logger.addHandler(Slow(sys.stdout))
buffered = logging.handlers.MemoryHandler(1000, target=logging.StreamHandler(sys.stdout))
logging.getLogger("other").addHandler(buffered)
logging.getLogger("other").warning("buffered")
sink = LoggingSink("x", SystemClock(), patience=float(sys.argv[2]))
for number in range(50):
    sink.write(f"line {number}")
"""


@pytest.mark.parametrize(("kind", "patience", "lines"), [("slow", 30, 50), ("blocked", 0.2, 0)])
def test_the_end_of_a_process(kind: str, patience: float, lines: int) -> None:
    """Queued lines are written, within a time limit: a handler that blocks for ever does not keep the process.

    What other handlers buffer is written in both cases.
    """
    command = [sys.executable, "-c", "import logging.handlers\n" + EXIT, kind, str(patience)]
    done = subprocess.run(command, timeout=25, check=True, capture_output=True, text=True)
    assert (done.stdout.count("line "), done.stdout.count("buffered")) == (lines, 1)
    assert done.stderr == ""


GEVENT = """
from gevent import monkey
monkey.patch_all()
import logging, threading, gevent
from flask_secure_ml.observe.request_log.through_logging import LoggingSink
from flask_secure_ml.principal import SystemClock

class Waiting(logging.Handler):
    lines = []
    def emit(self, record):
        gevent.sleep(0)
        self.lines.append(record.getMessage())

logger = logging.getLogger("x")
logger.setLevel(logging.INFO)
logger.addHandler(Waiting())
sink = LoggingSink("x", SystemClock())
gevent.joinall([gevent.spawn(sink.write, str(number)) for number in range(20)])
with gevent.Timeout(10):
    while len(Waiting.lines) < 20:
        gevent.sleep(0.001)
assert sorted(map(int, Waiting.lines)) == list(range(20))
"""


def test_under_gevent() -> None:
    """The thread is a greenlet there, and the process ends."""
    done = subprocess.run([sys.executable, "-c", GEVENT], timeout=30, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
