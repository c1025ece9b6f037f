"""What was really read, for who has to cite it: of each series the last day, and where it comes from.

Kept in one small file in the cache folder, some 80 bytes a series, which is written once a minute if a series
was read that was not read that day, and at the end: no read writes. Used from the daemon's one thread.
"""

import datetime as dt
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from tciafs.filesystem.private_files import replace_privately
from tciafs.model import Series

__all__ = ["Source", "Usage"]

log = logging.getLogger(__name__)

WRITTEN_EVERY_S = 60.0
MOST_SERIES = 200_000
"""Of more, those that were not read for longest are forgotten, a tenth at a time."""


class Source(msgspec.Struct, frozen=True, array_like=True):
    """Where series come from; an empty text is what the archive did not say."""

    collection: str
    data_uri: str
    licence_name: str
    licence_uri: str
    third_party: str


class _Written(msgspec.Struct, frozen=True):
    """The form on disk: by series UID the last day (its ordinal), and the place of the source."""

    sources: list[Source]
    series: dict[str, tuple[int, int]]


class Usage:
    """Which series were read, and when last. Use `Usage.running`."""

    def __init__(
        self, file: Path, today: Callable[[], dt.date] = lambda: dt.datetime.now(dt.UTC).date()
    ) -> None:
        """Go on from what an earlier run has written; blocking. What cannot be read was never there."""
        self._file = file
        self._today = today
        self._day = today().toordinal()
        self._is_new = False
        try:
            written = msgspec.msgpack.decode(file.read_bytes(), type=_Written)
        except (OSError, ValueError):
            written = _Written([], {})
        self._sources = {source: place for place, source in enumerate(written.sources)}
        known = range(len(written.sources))
        self._read = {uid: entry for uid, entry in written.series.items() if entry[1] in known}

    @classmethod
    @asynccontextmanager
    async def running(cls, file: Path) -> AsyncIterator["Usage"]:
        """Keep note; at the end, and once a minute, write it down."""
        usage = await trio.to_thread.run_sync(cls, file)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(usage._write_now_and_then)
            yield usage
            nursery.cancel_scope.cancel()
        usage._write()

    def is_news(self, series: Series) -> bool:
        """Return whether a series was not read yet on this day; quick, since it is asked for each open."""
        known = self._read.get(series.series_uid)
        return known is None or known[0] != self._day

    def note(self, series: Series) -> None:
        """Note that a series is read."""
        self._day = self._today().toordinal()
        source = Source(
            series.collection,
            series.data_uri or "",
            series.licence_name or "",
            series.licence_uri or "",
            series.third_party or "",
        )
        place = self._sources.setdefault(source, len(self._sources))
        self._read[series.series_uid] = (self._day, place)
        self._is_new = True
        if len(self._read) > MOST_SERIES:
            latest = sorted(self._read.items(), key=lambda entry: entry[1][0])
            self._read = dict(latest[MOST_SERIES // 10 :])

    def since(self, day: dt.date) -> Mapping[Source, int]:
        """Return from where series were read on a day or later, and how many from each."""
        first = day.toordinal()
        sources = list(self._sources)
        return Counter(sources[place] for last, place in self._read.values() if last >= first)

    async def _write_now_and_then(self) -> None:
        while True:
            await trio.sleep(WRITTEN_EVERY_S)
            self._day = self._today().toordinal()
            if self._is_new:
                await trio.to_thread.run_sync(self._write_text, self._text())

    def _write(self) -> None:
        if self._is_new:
            self._write_text(self._text())

    def _text(self) -> bytes:
        self._is_new = False
        return msgspec.msgpack.encode(_Written(list(self._sources), self._read))

    def _write_text(self, text: bytes) -> None:
        try:
            replace_privately(self._file, text)
        except (OSError, ValueError) as error:
            log.warning("what was read could not be written down: %s", error)
