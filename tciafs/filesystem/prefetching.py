"""Fetching series because a command asks for them: listed page by page, fetched turn by turn.

Nothing goes on here by itself: a turn begins as many downloads as the mount may have at once, and waits a
moment for one to end. Whoever asks no more lets those under way come to their end, and no other begin. These
downloads are like those that are fetched ahead: they come after what a reader waits for, and give way to it.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import trio
from msgspec.structs import replace

from tciafs.control.series_values import (
    MOST_NAMED,
    ListedSeries,
    Prefetch,
    PrefetchedSeries,
    PrefetchTurn,
    SeriesPage,
)
from tciafs.errors import Misuse, Offline, TciafsError
from tciafs.filesystem.identities import Whose
from tciafs.filesystem.paths import Paths
from tciafs.filesystem.status import LONGEST_SENTENCE_BYTES, brief
from tciafs.filesystem.way import Way, by_name

if TYPE_CHECKING:
    from tciafs.filesystem.tree import Tree
    from tciafs.model import Series
    from tciafs.store.download import Download
    from tciafs.store.store import Store

__all__ = ["Prefetching"]

TURN_S = 1.0
PAGE_SERIES = 200
PAGE_CHARACTERS = 40_000
"""An answer must fit into the buffer of a socket, whatever names an archive has."""

MOST_A_TURN = 100
REMEMBERED_DOWNLOADS = 1000

SERIES_KEYS = 4
UNDER_WAY = ("coming", "waiting")


Find: TypeAlias = Callable[[Sequence[str]], "Awaitable[Sequence[Series]]"]
"""Returns the series with some UIDs, without those that the archive does not know."""


class Prefetching:
    """What commands have fetched, `at_once` series at the same time."""

    def __init__(self, tree: "Tree", store: "Store", find: Find, at_once: int) -> None:
        self._folders = tree.folders
        self._paths = Paths(tree)
        self._find = find
        self._way = Way(tree.folders, tree.sources.main)
        self._store = store
        self._at_once = at_once
        self._asked: OrderedDict[str, Download] = OrderedDict()

    async def listed(self, path: str, after: Whose) -> SeriesPage:
        """Return the series at a path, on from one. Raises NoSuchName, or what the archive raises."""
        source, within = await self._paths.place(path)
        way = Way(self._folders, source)
        if after and after[: len(within)] != within:
            raise Misuse("the series to go on from is not at that path")
        page = _Page()
        if len(within) == SERIES_KEYS and not after:
            following = await way.series(within)
        else:
            following = await way.next(after or within, by_name, within)
        while following is not None and not page.is_full:
            page.add(following, await way.folder_of(following.path))
            await trio.lowlevel.checkpoint()
            following = await way.next(following.path, by_name, within)
        return SeriesPage(tuple(page.series), more=following is not None)

    async def failed(self, path: str, after: Whose) -> SeriesPage:
        """Return the series at a path that could not be had, on from one, in the order of their paths.

        Raises NoSuchName, or what the archive raises.
        """
        within = await self._paths.keys(path)
        every = (failed.series for failed in self._store.failures.every())
        meant = (each for each in every if each.path[: len(within)] == within and each.path > after)
        page = _first_page(sorted(meant, key=lambda each: each.path))
        return replace(page, series=tuple([await self._with_folder(each) for each in page.series]))

    async def named(self, series_uids: Sequence[str], after: str) -> SeriesPage:
        """Return where series with these UIDs are, on from one, in the order of their UIDs.

        Raises what the archive raises.
        """
        if len(series_uids) > MOST_NAMED:
            raise Misuse(f"at most {MOST_NAMED} series are looked up at once")
        meant = (each for each in await self._find(series_uids) if each.series_uid > after)
        return _first_page(sorted(meant, key=lambda each: each.series_uid))

    async def _with_folder(self, series: ListedSeries) -> ListedSeries:
        return replace(series, folder=await self._way.folder_of(series.path))

    async def turn(self, wish: Prefetch) -> PrefetchTurn:
        """Have some series fetched, and return how it is with them. Raises what the archive raises."""
        wanted = wish.series
        if len(wanted) > MOST_A_TURN or any(len(whose) != SERIES_KEYS for whose in wanted):
            raise Misuse(f"a turn has at most {MOST_A_TURN} series, each with its four keys")
        await trio.lowlevel.checkpoint()  # whoever asks without end must not be the only one served
        found = [(whose, await self._way.series(whose)) for whose in wanted]
        states = self._states(found, wish, self._at_once)
        if states and all(each.state in UNDER_WAY for each in states):
            with trio.move_on_after(TURN_S):
                await self._until_one_is_over()
            # Only the next turn begins another one: by now there may be nobody who would ask for it.
            states = self._states(found, wish, 0)
        return PrefetchTurn(tuple(states), paused=self._store.pausing.refusal is not None)

    def _states(
        self, found: "Sequence[tuple[Whose, Series | None]]", wish: Prefetch, at_once: int
    ) -> list[PrefetchedSeries]:
        """Return how it is with series, having begun some until `at_once` are coming."""
        states, coming = [], 0
        for whose, series in found:
            state = (
                PrefetchedSeries(whose[-1], "gone")
                if series is None
                else self._state(series, wish, may_begin=coming < at_once)
            )
            coming += state.state == "coming"
            states.append(state)
        return states

    def _state(self, series: "Series", wish: Prefetch, *, may_begin: bool) -> PrefetchedSeries:
        uid = series.series_uid
        asked = self._asked.get(uid)
        if asked is not None and asked.over.is_set():
            del self._asked[uid]
            if asked.failure is None:
                return PrefetchedSeries(uid, "fetched", asked.arrived_bytes)
            if not asked.gave_way and not self._is_to_be_tried_again(series, wish):
                return _failed(uid, asked.failure)
        if self._store.state(series) == "local":
            self._store.note_used(series)
            return PrefetchedSeries(uid, "here", series.size_bytes or 0)
        if self._store.peek_download(series) is None and not may_begin:
            return PrefetchedSeries(uid, "waiting")
        if self._is_to_be_tried_again(series, wish):
            self._store.failures.forget(lambda failed: failed.series_uid == uid)
        if failure := self._store.failures.refusal(series):
            return _failed(uid, failure)
        download = self._store.fetch_ahead(series, wish.since)
        if download is None:
            offline = Offline(f"series {uid} is not in the cache, and --offline is set")
            return _failed(uid, self._store.pausing.refusal or offline)
        self._remember(download)
        return PrefetchedSeries(uid, "coming", download.arrived_bytes)

    def _is_to_be_tried_again(self, series: "Series", wish: Prefetch) -> bool:
        """Return whether a series failed before the command began that has such series tried again."""
        failed = self._store.failures.find(series)
        return wish.again and failed is not None and failed.at < wish.since

    def _remember(self, download: "Download") -> None:
        """Keep a download until somebody has heard how it ended."""
        self._asked[download.series.series_uid] = download
        self._asked.move_to_end(download.series.series_uid)
        while len(self._asked) > REMEMBERED_DOWNLOADS:
            self._asked.popitem(last=False)

    async def _until_one_is_over(self) -> None:
        async with trio.open_nursery() as nursery:

            async def watch(download: "Download") -> None:
                await download.over.wait()
                nursery.cancel_scope.cancel()

            for download in self._asked.values():
                nursery.start_soon(watch, download)


class _Page:
    """Series, as many as fit into an answer."""

    def __init__(self) -> None:
        self.series: list[ListedSeries] = []
        self._characters = 0

    @property
    def is_full(self) -> bool:
        """Whether no other fits."""
        return len(self.series) >= PAGE_SERIES or self._characters >= PAGE_CHARACTERS

    def add(self, series: "Series", folder: str = "") -> None:
        """Add one more, and where it is in the mount."""
        self.series.append(ListedSeries(series.path, series.image_count, series.size_bytes, folder))
        self._characters += sum(map(len, series.path)) + len(folder)


def _first_page(series: "Sequence[Series]") -> SeriesPage:
    page = _Page()
    for each in series:
        if page.is_full:
            break
        page.add(each)
    return SeriesPage(tuple(page.series), more=len(page.series) < len(series))


def _failed(uid: str, failure: TciafsError) -> PrefetchedSeries:
    sentence = brief(str(failure), LONGEST_SENTENCE_BYTES)
    return PrefetchedSeries(uid, "failed", error=type(failure).__name__, message=sentence)
