"""One report per episode: consecutive anomalies of a subject, until an hour without one."""

from __future__ import annotations

from collections import OrderedDict

from .detector import EPISODE, MAX_PRINCIPALS, Anomaly


class Episodes:
    """Decides which anomalies start an episode.

    A scraper causes more requests, rows and bytes at the same time, which is one episode. A later signal of an episode
    is reported if its action is stronger than the earlier ones.

    :param most: the maximum number of subjects.
    """

    def __init__(self, most: int = MAX_PRINCIPALS) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def begins(self, anomaly: Anomaly, rank: int = 0) -> bool:
        """Return True if an anomaly starts an episode, or has a stronger action than the reported ones.

        :param rank: the rank of its action.
        """
        name = anomaly.kind, anomaly.subject
        last, highest = self._known.pop(name, (0.0, -1))
        if not 0 <= anomaly.time - last < EPISODE:
            highest = -1
        self._known[name] = anomaly.time, max(rank, highest)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return rank > highest and not anomaly.again
