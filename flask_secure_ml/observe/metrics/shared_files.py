"""Collects the metrics of all workers from the directory that they share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from ...refresh import Outage
from .counters import shared_directory


class SharedFiles:
    """A collector of the files in ``PROMETHEUS_MULTIPROC_DIR`` that can be read.

    The collector of ``prometheus_client`` fails for all metrics if one file is empty, as it is for a moment while a
    worker creates it, or damaged, as a full disk or a loss of power can leave it.
    """

    def __init__(self) -> None:
        self._outage = Outage("metrics of a worker cannot be read", "metrics of all workers can be read again")

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all workers. A file that cannot be read is left out and reported in the log."""
        files = list(Path(shared_directory()).glob("*.db"))
        try:
            merged = _merged(files)
        except Exception:  # noqa: BLE001  the library raises whatever the content of a file leads to
            return _merged([each for each in files if self._can_read(each)])
        self._outage.ended()
        return merged

    def _can_read(self, file: Path) -> bool:
        try:
            if file.stat().st_size:
                _merged([file])
                return True
        except FileNotFoundError:
            # Its worker has ended meanwhile.
            return False
        except Exception as error:  # noqa: BLE001
            self._outage.failed(f"{file}: {type(error).__name__}")
        return False


def _merged(files: Iterable[Path]) -> list[Metric]:
    return list(MultiProcessCollector.merge(map(str, files)))
