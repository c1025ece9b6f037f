"""How many bytes may come in: a day, counted as they come, and for each process, counted as it asks.

The sum of the day outlives the daemon, in a small file beside the cache; a day is one of UTC. Without a
budget nothing is refused, and the day is counted all the same. Used from the daemon's one thread.
"""

import datetime as dt
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from tciafs.errors import Refused
from tciafs.filesystem.private_files import replace_privately
from tciafs.model import ListedImage, Series
from tciafs.store.download import Announcements, Fetcher, Grant

if TYPE_CHECKING:
    from tciafs.store.ranged import Ranger

__all__ = ["Budgets", "MeteredFetcher", "MeteredRanges", "MeteredSurveyor", "Surveying", "said_bytes"]

log = logging.getLogger(__name__)

REMEMBERED_PROCESSES = 4096
WRITTEN_EVERY_S = 5.0
"""What came in is written down no more often, where it comes in small parts."""

UNITS = ("bytes", "K", "M", "G", "T")


class _Day(msgspec.Struct):
    """What came in on a day, as it is kept; `day` is an ISO date."""

    day: str
    received_bytes: int


def today_utc() -> dt.date:
    """Return the day it is in Greenwich: that of no time zone jumps."""
    return dt.datetime.now(dt.UTC).date()


def said_bytes(size_bytes: float) -> str:
    """Return a size for a sentence, in powers of 1024 as --cache-size takes it."""
    unit = 0
    while size_bytes >= 1000 and unit < len(UNITS) - 1:
        size_bytes, unit = size_bytes / 1024, unit + 1
    return f"{size_bytes:.3g}{UNITS[unit]}" if unit else f"{size_bytes:.0f} bytes"


class Budgets:
    """What was spent, and whether more may be; None is no limit."""

    def __init__(
        self,
        daily_bytes: int | None,
        process_bytes: int | None,
        kept: Path,
        today: Callable[[], dt.date] = today_utc,
    ) -> None:
        """Go on from what an earlier run has spent of this day, as the file `kept` says; blocking.

        `received_bytes` are those of this run.
        """
        self._daily_bytes = daily_bytes
        self._process_bytes = process_bytes
        self._kept = kept
        self._today = today
        self._day = today()
        self.received_bytes = 0
        self._received_today_bytes = self._read()
        self._asked_bytes: OrderedDict[str, int] = OrderedDict()
        self._written_at = -math.inf

    @property
    def received_today_bytes(self) -> int:
        """How many bytes of images have come in on this day, inflated."""
        self._turn_the_day()
        return self._received_today_bytes

    def admit(self, process: str, series: Series) -> None:
        """Let a process cause the download of a series, and count its size. Raises Refused.

        A process is refused a series once those that it asked for have reached its budget, so that one
        series that is larger than all of it can be had.
        """
        self.admit_today()
        asked_bytes = self._asked_bytes.pop(process, 0)
        self._asked_bytes[process] = asked_bytes
        if self._process_bytes is not None and asked_bytes >= self._process_bytes:
            raise Refused(
                f"this process has caused {said_bytes(asked_bytes)} of downloads, and a process may cause "
                f"{said_bytes(self._process_bytes)} (--process-budget)"
            )
        self._asked_bytes[process] += series.size_bytes or 0
        while len(self._asked_bytes) > REMEMBERED_PROCESSES:
            self._asked_bytes.popitem(last=False)

    def admit_today(self) -> None:
        """Return if more may come in on this day. Raises Refused."""
        if self._daily_bytes is not None and self.received_today_bytes >= self._daily_bytes:
            raise Refused(
                f"{said_bytes(self._received_today_bytes)} have come in since midnight UTC, and a day may "
                f"bring {said_bytes(self._daily_bytes)} (--daily-budget)"
            )

    def count(self, size_bytes: int) -> None:
        """Count bytes that have come in."""
        self._turn_the_day()
        self._received_today_bytes += size_bytes
        self.received_bytes += size_bytes

    async def write_now_and_then(self) -> None:
        """Keep what was spent, if that was not done a moment ago."""
        if trio.current_time() - self._written_at < WRITTEN_EVERY_S:
            return
        self._written_at = trio.current_time()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self.write)

    def write(self) -> None:
        """Keep what was spent for a later run; blocking. Where that fails, it is counted anew then."""
        day = _Day(self._day.isoformat(), self._received_today_bytes)
        try:
            replace_privately(self._kept, msgspec.json.encode(day))
        except OSError as error:
            log.info("what came in today could not be written down: %s", error.strerror)

    def _read(self) -> int:
        try:
            kept = msgspec.json.decode(self._kept.read_bytes(), type=_Day)
        except (OSError, ValueError):
            return 0
        return max(0, kept.received_bytes) if kept.day == self._day.isoformat() else 0

    def _turn_the_day(self) -> None:
        if (today := self._today()) != self._day:
            self._day, self._received_today_bytes = today, 0


class MeteredFetcher:
    """A fetcher whose bytes are counted, and that begins nothing once the day's are spent."""

    def __init__(self, fetcher: Fetcher, budgets: Budgets) -> None:
        self._fetcher = fetcher
        self._budgets = budgets
        self._writing = trio.CapacityLimiter(1)

    async def fetch(self, series: Series, pack: Path, announce: Announcements, grant: Grant) -> None:
        """See `Fetcher.fetch`. Raises Refused, too."""
        self._budgets.admit_today()
        counted_bytes = 0

        def progress(received_bytes: int) -> None:
            nonlocal counted_bytes
            # Each try counts from the beginning.
            self._budgets.count(received_bytes - min(counted_bytes, received_bytes))
            counted_bytes = received_bytes
            announce.progress(received_bytes)

        try:
            await self._fetcher.fetch(series, pack, replace(announce, progress=progress), grant)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._budgets.write, limiter=self._writing)

    def pause(self) -> None:
        """See `Fetcher.pause`."""
        self._fetcher.pause()

    def resume(self) -> None:
        """See `Fetcher.resume`."""
        self._fetcher.resume()


class Surveying(Protocol):
    """Whoever names the images of a series, and tells of bytes of images as they come in for that."""

    async def survey(self, series: Series, received: Callable[[int], None]) -> Sequence[ListedImage] | None:
        """See `store.Surveyor.survey`."""
        ...


class MeteredSurveyor:
    """A surveyor whose bytes are counted, and that asks for nothing once the day's are spent."""

    def __init__(self, surveyor: Surveying, budgets: Budgets) -> None:
        self._surveyor = surveyor
        self._budgets = budgets

    async def survey(self, series: Series) -> Sequence[ListedImage] | None:
        """See `store.Surveyor.survey`. Raises Refused, too."""
        self._budgets.admit_today()
        try:
            return await self._surveyor.survey(series, self._budgets.count)
        finally:
            await self._budgets.write_now_and_then()


class MeteredRanges:
    """Parts of images, counted, and none once the day's bytes are spent."""

    def __init__(self, ranges: "Ranger", budgets: Budgets) -> None:
        self._ranges = ranges
        self._budgets = budgets

    def gives(self, series: Series) -> bool:
        """See `model.Ranges.gives`."""
        return self._ranges.gives(series)

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        """See `model.Ranges.part`. Raises Refused, too."""
        self._budgets.admit_today()
        data = await self._ranges.part(series, image, first, size_bytes)
        self._budgets.count(len(data))
        await self._budgets.write_now_and_then()
        return data
