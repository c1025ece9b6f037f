"""Fetching ahead of who reads series in order: the next ones start before they are asked for.

A trail is a reader as its footsteps show it: whatever processes they are, two series one after the other in
the order of their folder are a trail, once the first is complete. A footstep is an image opened; for who
opened one in the series before it is enough to list the next, since `cp -r` waits for it there. Folders have
two orders, that of the names and that of the inode numbers, in which cp goes; where a study ends, the
patient's next one follows, and so on through the collection. Defined here and only here: what a trail is, and
how far ahead of it is fetched. State changes in one task; `note` is quick, since it is called for each open.
Handed the tree and a store.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from tciafs.errors import TciafsError
from tciafs.filesystem.identities import Whose
from tciafs.filesystem.nodes import Node
from tciafs.filesystem.way import Order, Way, by_inode, by_name

if TYPE_CHECKING:
    from tciafs.filesystem.guard import Guard
    from tciafs.filesystem.tree import Tree
    from tciafs.model import Series
    from tciafs.store.store import Store

__all__ = ["AheadConfig", "WalkAhead"]

log = logging.getLogger(__name__)

TRAILS = 8
"""How many readers are told apart; who has not moved for longest is forgotten."""

MOST_NOTED = 64
REACH = 3
"""How many series ahead a step leads at first; each further step as many more, as far as is allowed."""

STRIDE = 3
"""How many series a trail may skip and still be one, such as those of another modality."""

RECENTLY_S = 300.0
"""What was used so lately makes no room for what is fetched ahead."""


@dataclass(frozen=True, slots=True)
class AheadConfig:
    """At most so many series ahead of a reader (0: none), and so many bytes of them together."""

    most_series: int
    most_bytes: int


@dataclass(slots=True)
class _Trail:
    """Where a reader is, and the orders in which it may be going.

    `steps`: how often it was seen to move; `opens`: it opened an image where it is.
    """

    way: Way
    at: Whose
    orders: Sequence[Order] = field(default=(by_name, by_inode))
    steps: int = 0
    opens: bool = True


class WalkAhead:
    """Watches which series are read, and fetches those that will be."""

    def __init__(self, tree: "Tree", store: "Store", guard: "Guard", config: AheadConfig) -> None:
        self._tree = tree
        self._store = store
        self._guard = guard
        self._config = config
        self._trails: list[_Trail] = []  # the one that moved last comes last
        self._latest: tuple[int, bool] | None = None
        self._noted: deque[tuple[Node, int, bool]] = deque(maxlen=MOST_NOTED)
        self._news = trio.Event()

    def note(self, series: Node, pid: int, *, opens: bool) -> None:
        """Note that a process opens an image of a series, or else lists it."""
        seen = (series.inode, opens)
        if seen == self._latest or not self._config.most_series or self._guard.is_crawler(pid):
            return
        self._latest = seen
        self._noted.append((series, pid, opens))
        self._news.set()

    async def run(self) -> None:
        """Follow the trails, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._noted:
                series, pid, opens = self._noted.popleft()
                try:
                    way = Way(self._tree.folders, self._tree.sources.of(series))
                    await self._follow(way, series.whose, pid, opens)
                except TciafsError as error:
                    log.info("nothing is fetched ahead behind series %s: %s", series.key, error)

    async def _follow(self, way: Way, whose: Whose, pid: int, opens: bool) -> None:
        """Note that a reader is at a series, and fetch ahead of him if he is going somewhere."""
        trail = await self._trail_to(way, whose, opens)
        if trail is None and not opens:
            return
        trail = trail or _Trail(way, whose)
        others = [each for each in self._trails if each is not trail]
        self._trails = [*others[1 - TRAILS :], trail]
        if trail.steps:
            await self._fetch_ahead(trail, pid)

    async def _trail_to(self, way: Way, whose: Whose, opens: bool) -> _Trail | None:
        """Return the trail that leads to a series, moved there; None if none does."""
        prefix = way.source.prefix
        for trail in reversed([each for each in self._trails if each.way.source.prefix == prefix]):
            if trail.at == whose:
                trail.opens = trail.opens or opens
                return trail
            if not (trail.opens or opens):
                continue
            if orders := await self._orders_to(whose, trail):
                trail.steps += bool(trail.steps or await self._is_complete(trail))
                trail.at, trail.orders, trail.opens = whose, orders, opens
                return trail
        return None

    async def _orders_to(self, whose: Whose, trail: _Trail) -> list[Order]:
        """Return the orders of a trail in which a series comes first; none where it is not about the next."""
        places = dict.fromkeys(trail.orders, trail.at)
        for _ in range(STRIDE if trail.steps else 1):
            await _advance(trail.way, places)
            if found := [order for order, at in places.items() if at == whose]:
                return found
        return []

    async def _fetch_ahead(self, trail: _Trail, pid: int) -> None:
        ahead_bytes = 0
        for series in await self._ahead_of(trail):
            ahead_bytes += series.size_bytes or 0
            if ahead_bytes > self._config.most_bytes:
                return
            is_to_come = self._store.state(series) in ("remote", "evicted")
            if is_to_come and self._guard.admits_ahead(pid, series):
                self._store.fetch_ahead(series, time.time() - RECENTLY_S)

    async def _ahead_of(self, trail: _Trail) -> "Sequence[Series]":
        """Return what a reader comes to: while it is open in which order he goes, by turns of each."""
        places, found = dict.fromkeys(trail.orders, trail.at), dict[str, "Series"]()
        reach = min(REACH * trail.steps, self._config.most_series)
        while places and len(found) < reach:
            for series in await _advance(trail.way, places):
                found.setdefault(series.series_uid, series)
        return list(found.values())[:reach]

    async def _is_complete(self, trail: _Trail) -> bool:
        if (series := await trail.way.series(trail.at)) is None:
            return False
        # The reader may have its last image while it is still on its way to its place.
        download = self._store.peek_download(series)
        return self._store.state(series) == "local" or (download is not None and download.layout is not None)


async def _advance(way: Way, places: dict[Order, Whose]) -> "list[Series]":
    """Go on by a series in each order, within the collection, and return what was reached.

    An order at its end is dropped. Raises what the archive raises.
    """
    reached = []
    for order, at in list(places.items()):
        if (series := await way.next(at, order, within=at[:1])) is None:
            del places[order]
        else:
            places[order] = series.path
            reached.append(series)
    return reached
