"""Fetching ahead of who reads series in order: the next ones start before they are asked for.

A trail is a reader as its footsteps show it: whatever processes they are, two series one after the other in
the order of their folder are a trail, once the first is complete. Folders have two orders, that of the names
and that of the inode numbers, in which cp goes; where a study ends, the patient's next one follows, and so on
through the collection. Defined here and only here: what a trail is, and how far ahead of it is fetched. State
changes in one task; `note` is quick, since it is called for each open. Handed the folders and a store.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from tciafs.errors import TciafsError
from tciafs.filesystem.folders import Folder, Folders, Level, Whose, inode_of
from tciafs.filesystem.nodes import Node

if TYPE_CHECKING:
    from tciafs.filesystem.guard import Guard
    from tciafs.model import Series
    from tciafs.store.store import Store

__all__ = ["AheadConfig", "WalkAhead"]

log = logging.getLogger(__name__)

TRAILS = 8
"""How many readers are told apart; who has not moved for longest is forgotten."""

MOST_NOTED = 64
STRIDE = 3
"""How many series a trail may skip and still be one, such as those of another modality."""

RECENTLY_S = 300.0
"""What was used so lately makes no room for what is fetched ahead."""

STUDY, SERIES = 2, 3
"""Where the keys of a study and of a series stand in `Whose`; collection and patient are 0 and 1."""


@dataclass(frozen=True, slots=True)
class AheadConfig:
    """At most so many series ahead of a reader (0: none), and so many bytes of them together."""

    most_series: int
    most_bytes: int


Order = Callable[[Folder], Sequence[int]]
"""The places of a folder, in an order."""


def by_name(folder: Folder) -> Sequence[int]:
    """Return the order in which listings show a folder."""
    return range(len(folder.names))


def by_inode(folder: Folder) -> Sequence[int]:
    """Return the order in which cp goes through a folder."""
    return sorted(range(len(folder.inodes)), key=folder.inodes.__getitem__)


@dataclass(slots=True)
class _Trail:
    """Where a reader is, and the orders in which it may be going; `moves`: it has been seen to."""

    at: Whose
    orders: Sequence[Order] = field(default=(by_name, by_inode))
    moves: bool = False


class WalkAhead:
    """Watches which series are read, and fetches those that will be."""

    def __init__(self, folders: Folders, store: "Store", guard: "Guard", config: AheadConfig) -> None:
        self._folders = folders
        self._store = store
        self._guard = guard
        self._config = config
        self._trails: list[_Trail] = []  # the one that moved last comes last
        self._latest: int | None = None
        self._noted: deque[tuple[Whose, int]] = deque(maxlen=MOST_NOTED)
        self._news = trio.Event()

    def note(self, series: Node, pid: int) -> None:
        """Note that a process reads a series."""
        if series.inode == self._latest or not self._config.most_series or self._guard.is_crawler(pid):
            return
        self._latest = series.inode
        self._noted.append((series.whose, pid))
        self._news.set()

    async def run(self) -> None:
        """Follow the trails, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._noted:
                whose, pid = self._noted.popleft()
                try:
                    await self._follow(whose, pid)
                except TciafsError as error:
                    log.info("nothing is fetched ahead behind series %s: %s", whose[-1], error)

    async def _follow(self, whose: Whose, pid: int) -> None:
        """Note that a reader is at a series, and fetch ahead of him if he is going somewhere."""
        trail = await self._trail_to(whose) or _Trail(whose)
        others = [each for each in self._trails if each is not trail]
        self._trails = [*others[1 - TRAILS :], trail]
        if trail.moves:
            await self._fetch_ahead(trail, pid)

    async def _trail_to(self, whose: Whose) -> _Trail | None:
        """Return the trail that leads to a series, moved there; None if none does."""
        for trail in reversed(self._trails):
            if trail.at == whose:
                return trail
            if orders := [order for order in trail.orders if await self._leads(trail, order, whose)]:
                trail.moves = trail.moves or await self._is_complete(trail.at)
                trail.at = whose
                trail.orders = orders
                return trail
        return None

    async def _leads(self, trail: _Trail, order: Order, whose: Whose) -> bool:
        """Return whether a series is the next one of a trail; of one that moves already, about the next."""
        step: Whose | None = trail.at
        for _ in range(STRIDE if trail.moves else 1):
            step = step and await self._next(step, order)
            if step == whose:
                return True
        return False

    async def _fetch_ahead(self, trail: _Trail, pid: int) -> None:
        step, ahead_bytes = trail.at, 0
        for _ in range(self._config.most_series):
            following = await self._next(step, trail.orders[0])
            series = None if following is None else await self._series(following)
            if following is None or series is None:
                return
            ahead_bytes += series.size_bytes or 0
            if ahead_bytes > self._config.most_bytes:
                return
            is_to_come = self._store.state(series) in ("remote", "evicted")
            if is_to_come and self._guard.admits_ahead(pid, series):
                self._store.fetch_ahead(series, time.time() - RECENTLY_S)
            step = following

    # -- the way through a collection -------------------------------------------------------------

    async def _next(self, whose: Whose, order: Order) -> Whose | None:
        """Return the series behind one, in its study or in what follows; None at the collection's end."""
        depth = SERIES
        while depth > 0:
            folder = await self._folder(whose[:depth])
            key = _key_behind(folder, order, whose[depth] if len(whose) > depth else None)
            if key is None:
                whose, depth = whose[:depth], depth - 1
            elif depth == SERIES:
                return (*whose[:depth], key)
            else:
                whose, depth = (*whose[:depth], key), depth + 1
        return None

    async def _folder(self, whose: Whose) -> Folder:
        level = Level(len(whose))
        return await self._folders.get(inode_of(level, whose), level, whose)

    async def _series(self, whose: Whose) -> "Series | None":
        folder = await self._folder(whose[:SERIES])
        found: list[Any] = [each for each in folder.children if folder.key(each) == whose[SERIES]]
        return found[0] if found else None

    async def _is_complete(self, whose: Whose) -> bool:
        series = await self._series(whose)
        if series is None:
            return False
        # The reader may have its last image while it is still on its way to its place.
        download = self._store.peek_download(series)
        return self._store.state(series) == "local" or (download is not None and download.layout is not None)


def _key_behind(folder: Folder, order: Order, key: str | None) -> str | None:
    """Return the key behind one in a folder (None: the first), None at its end or if it is not there."""
    keys = [folder.key(folder.children[place]) for place in order(folder)]
    place = 0 if key is None else keys.index(key) + 1 if key in keys else len(keys)
    return keys[place] if place < len(keys) else None
