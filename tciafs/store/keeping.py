"""What a user wants kept, or gone: pins, and series dropped on demand.

A pin is a place in the archive, a collection, a patient, a study or a series, and keeps all that is there,
also what comes later; so nobody has to be asked what there is. It ends only by being taken away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from tciafs.errors import Misuse
from tciafs.store.checking import Checker
from tciafs.store.disk_errors import disk_errors
from tciafs.store.room import Room
from tciafs.store.shelf import Shelf

__all__ = ["Evicted", "Keeper"]


@dataclass(frozen=True, slots=True)
class Evicted:
    """Series that were dropped, and those that were not; `next`: the UID to go on behind, None at the end."""

    series: int
    size_bytes: int
    pinned: int
    in_use: int
    next: str | None


class Keeper:
    """Pins and evictions of a store. Its methods raise TciafsError where the cache folder fails.

    Places are keys from the collection down to the series, as many as are meant.
    """

    def __init__(self, shelf: Shelf, room: Room, checker: Checker) -> None:
        self._shelf = shelf
        self._room = room
        self._checker = checker

    async def pin(self, whose: Sequence[str]) -> None:
        """Keep all series of a place, those that are here and those that come."""
        with disk_errors():
            await trio.to_thread.run_sync(self._shelf.pin, tuple(whose))

    async def unpin(self, whose: Sequence[str]) -> None:
        """Let the series of a place make room again. Raises Misuse where a pin around it keeps them."""
        with disk_errors():
            if not await trio.to_thread.run_sync(self._shelf.unpin, tuple(whose)):
                raise Misuse("it lies in a folder that is pinned: unpin that one")

    async def evict(self, whose: Sequence[str], after: str) -> Evicted:
        """Drop some series of a place, those behind the UID `after`, except what is pinned or in use.

        Of those that are here in part all are dropped at once; they count as bytes, and not as series.
        """
        entries, following = await self._checker.listed(whose, after)
        with disk_errors():
            dropped = [await self._room.drop(entry.layout.series_uid) for entry in entries]
            parts_bytes = await self._room.drop_parts(tuple(whose))
        return Evicted(
            series=sum(not (each.is_pinned or each.is_in_use) for each in dropped),
            size_bytes=parts_bytes + sum(each.size_bytes for each in dropped),
            pinned=sum(each.is_pinned for each in dropped),
            in_use=sum(each.is_in_use for each in dropped),
            next=following,
        )
