"""How fast the downloads of a mount are, and how long they will take: from the statuses of the last seconds.

A status counts and does not guess; who looks again and again can. Values only, no clock of its own.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tciafs.control.values import DownloadStatus, Status

__all__ = ["Speeds"]

WINDOW_S = 10.0
"""Over so long a speed is measured: short enough to follow the line, long enough to be read."""

SHORTEST_S = 0.5
"""Two statuses that are nearer than that say nothing of a speed."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Bytes of images that had come in at a time: in all, and of each series in all and whole."""

    at: float
    pid: int
    received_bytes: int
    series: Mapping[str, tuple[int, int]]


class Speeds:
    """The speeds of one mount; `note` is to be called with every status, at the time (seconds) it came."""

    def __init__(self) -> None:
        self._seen: deque[_Seen] = deque()

    def note(self, status: Status, at: float) -> None:
        """Take note of a status; what another daemon had counted is forgotten."""
        if self._seen and self._seen[-1].pid != status.pid:
            self._seen.clear()
        series = {each.series_uid: (each.received_bytes, each.arrived_bytes) for each in status.downloads}
        self._seen.append(_Seen(at, status.pid, status.since_start.received_bytes, series))
        while len(self._seen) > 2 and self._seen[1].at <= at - WINDOW_S:
            self._seen.popleft()

    def total(self) -> float | None:
        """Return how many bytes of images, inflated, come in a second, None if that is not known."""
        if not self._seen:
            return None
        first, last = self._seen[0], self._seen[-1]
        return _rate(last.received_bytes - first.received_bytes, last.at - first.at)

    def of(self, download: DownloadStatus) -> float | None:
        """Return how many bytes of a series, inflated, come in a second, None if that is not known."""
        return self._rate_of(download, 0)

    def left_s(self, download: DownloadStatus) -> float | None:
        """Return in how many seconds a series is here if it goes on like this, None if that is not known."""
        speed = self._rate_of(download, 1)
        if not speed or download.listed_bytes is None:
            return None
        return max(0, download.listed_bytes - download.arrived_bytes) / speed

    def _rate_of(self, download: DownloadStatus, which: int) -> float | None:
        uid = download.series_uid
        seen = [each for each in self._seen if uid in each.series]
        if not seen:
            return None
        # A try that failed begins anew, with fewer bytes than the one before it.
        first = seen[-1]
        for each in reversed(seen):
            if each.series[uid][which] > first.series[uid][which]:
                break
            first = each
        return _rate(seen[-1].series[uid][which] - first.series[uid][which], seen[-1].at - first.at)


def _rate(size_bytes: int, seconds: float) -> float | None:
    return max(0, size_bytes) / seconds if seconds >= SHORTEST_S else None
