"""The limit: room is set aside for what comes in, and made by dropping what was not used for longest.

What counts is every pack, by the bytes it takes on disk, from before its first byte until it is unlinked
and nobody has it open any more. Amounts change synchronously, in the daemon's one thread, and are never too
small at any moment; slow disk work is done in a thread. Must not know who brings a series, or how.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from tciafs.errors import NoSpace
from tciafs.model import Series
from tciafs.store.disk import most_bytes_on_disk
from tciafs.store.parts import Parts
from tciafs.store.shelf import Shelf

__all__ = ["Dropped", "Reservation", "Room"]

log = logging.getLogger(__name__)

PACK_OVERHEAD_BYTES = 4096
OVERHEAD_BYTES_PER_IMAGE = 128
"""A pack is its images, a trailer, and in the layout a name, three numbers and their tags each."""

LEAST_STEP_BYTES = 1024 * 1024
MOST_STEP_BYTES = 64 * 1024 * 1024
STEP = 8
"""A pack that outgrows its room gets an eighth more than it asks for where that is free: few questions."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What came of the wish to drop a series: the bytes that are free now, or why none are."""

    size_bytes: int = 0
    is_pinned: bool = False
    is_in_use: bool = False


class Reservation:
    """Room for one pack that comes in: a pack of `size_bytes` at most, for which `disk_bytes` are counted.

    What was used since `spares_since()` (Unix seconds) is not dropped for it, nor awaited; None: whatever is
    not in use.
    """

    def __init__(self, room: "Room", series: Series, spares_since: Callable[[], float | None]) -> None:
        self.series = series
        self.spares_since = spares_since
        self.size_bytes = 0
        self.disk_bytes = 0
        self.stands_still = False
        self._room = room

    async def begin(self) -> None:
        """Set room aside for as much as the archive lists, once there is any. Raises NoSpace."""
        await self._room.begin(self)

    async def grow_to(self, size_bytes: int) -> int:
        """Let the pack have `size_bytes` or more, and return how many.

        Raises NoSpace where no room can be made, and none comes free within the store's patience.
        """
        return await self._room.grow(self, size_bytes)

    async def settle(self, disk_bytes: int) -> None:
        """Count what the pack takes on disk, now that it is finished. Raises NoSpace."""
        await self._room.settle(self, disk_bytes)

    def end(self) -> None:
        """Give the room back: the pack is on the shelf, or gone."""
        self._room.end(self)

    async def end_with(self, pack: Path) -> None:
        """Remove what there is of a pack that failed, then give its room back."""
        if await self._room.remove(pack):
            self.end()
        else:
            self.stands_still = True


class Room:
    """How the `limit_bytes` of a cache are divided: packs on the shelf, and room reserved for others.

    `disk` is held by whoever puts a pack into its place or takes one out of it: to put the new version of a
    series there while the old one leaves would leave neither. `patience_s` bounds the wait of a pack that
    outgrew its room.
    """

    def __init__(
        self, shelf: Shelf, parts: Parts, limit_bytes: int, disk: trio.Lock, patience_s: float
    ) -> None:
        self._shelf = shelf
        self._parts = parts
        self._limit_bytes = limit_bytes
        self._disk = disk
        self._patience_s = patience_s
        self._lock = trio.Lock()
        self._reservations: list[Reservation] = []
        self._ended = trio.Event()

    @property
    def reserved_bytes(self) -> int:
        """How many bytes are set aside for what is coming in, or could not be removed."""
        return sum(each.disk_bytes for each in self._reservations)

    @property
    def taken_bytes(self) -> int:
        """How many bytes of the limit are not free: all packs, in any state, as large as they may get, and
        parts.
        """
        packs_bytes = self._shelf.used_bytes + self._shelf.hidden_bytes
        return packs_bytes + self._parts.disk_bytes + self.reserved_bytes

    def reservation(
        self, series: Series, spares_since: Callable[[], float | None] = lambda: None
    ) -> Reservation:
        """Return a reservation of nothing yet, for a series about to come in."""
        return Reservation(self, series, spares_since)

    async def trim(self) -> None:
        """Drop what is more than the limit, which may have been lower than when the packs came in."""
        async with self._lock:
            try:
                while self.taken_bytes > self._limit_bytes and await self._drop_one():
                    pass
            except OSError as error:
                log.warning("the cache cannot be made smaller: %s", error.strerror)
        if self.taken_bytes > self._limit_bytes:
            log.warning(
                "the cache has %s bytes that cannot be dropped, more than its limit", f"{self.taken_bytes:,}"
            )

    # -- reservations -----------------------------------------------------------------------------

    async def begin(self, reservation: Reservation) -> None:
        """See `Reservation.begin`. What is coming in may be dropped once it is here: its end is awaited."""
        size_bytes = _expected_pack_bytes(reservation.series)
        while not await self._give(reservation, size_bytes):
            # INVARIANT: who waits here has reserved nothing, and waits for those who have: no circle.
            is_hopeless = self._disk_bytes(size_bytes) > self._limit_bytes or not self._others_move(
                reservation
            )
            if is_hopeless or reservation.spares_since() is not None:
                raise self._no_space(reservation, size_bytes)
            await self._ended.wait()

    async def grow(self, reservation: Reservation, size_bytes: int) -> int:
        """See `Reservation.grow_to`."""
        if size_bytes <= reservation.size_bytes:
            return reservation.size_bytes
        ahead_bytes = size_bytes + min(max(size_bytes // STEP, LEAST_STEP_BYTES), MOST_STEP_BYTES)
        if self._fits(reservation, self._disk_bytes(ahead_bytes)) and await self._give(
            reservation, ahead_bytes
        ):
            return ahead_bytes
        with trio.move_on_after(self._patience_s):
            while not await self._give(reservation, size_bytes):
                # INVARIANT: the last one that moves does not wait for those that stand still: no circle.
                if self._disk_bytes(size_bytes) > self._limit_bytes or not self._others_move(reservation):
                    break
                reservation.stands_still = True
                try:
                    await self._ended.wait()
                finally:
                    reservation.stands_still = False
            else:
                return reservation.size_bytes
        raise self._no_space(reservation, size_bytes)

    async def settle(self, reservation: Reservation, disk_bytes: int) -> None:
        """See `Reservation.settle`."""
        if not await self._make_room(reservation, disk_bytes):
            raise self._no_space(reservation, disk_bytes)
        self._wake()

    def end(self, reservation: Reservation) -> None:
        """See `Reservation.end`."""
        if reservation in self._reservations:
            self._reservations.remove(reservation)
        reservation.size_bytes = reservation.disk_bytes = 0
        self._wake()

    def _wake(self) -> None:
        self._ended.set()
        self._ended = trio.Event()

    def _others_move(self, reservation: Reservation) -> bool:
        """Return whether a pack is coming in that does not wait itself for room."""
        return any(each is not reservation and not each.stands_still for each in self._reservations)

    def _disk_bytes(self, size_bytes: int) -> int:
        return most_bytes_on_disk(size_bytes, self._shelf.folder)

    async def _give(self, reservation: Reservation, size_bytes: int) -> bool:
        """Set aside what a pack of `size_bytes` will take, and let it be as large; False without room."""
        given = await self._make_room(reservation, self._disk_bytes(size_bytes))
        if given:
            reservation.size_bytes = size_bytes
        return given

    def _missing_bytes(self, reservation: Reservation, disk_bytes: int) -> int:
        return self.taken_bytes - reservation.disk_bytes + disk_bytes - self._limit_bytes

    def _fits(self, reservation: Reservation, disk_bytes: int) -> bool:
        return self._missing_bytes(reservation, disk_bytes) <= 0

    # -- eviction ---------------------------------------------------------------------------------

    async def _make_room(self, reservation: Reservation, disk_bytes: int) -> bool:
        """Count so much for a reservation, dropping the least recently used series.

        False where that is not enough: nothing is dropped then. Raises OSError.
        """
        async with self._lock:
            if not self._fits(reservation, disk_bytes):
                droppable_bytes = self._droppable_bytes(reservation.spares_since())
                if self._missing_bytes(reservation, disk_bytes) > droppable_bytes:
                    return False
            while not self._fits(reservation, disk_bytes):
                if not await self._drop_one(reservation.spares_since()):
                    return False
            reservation.disk_bytes = disk_bytes
            if reservation not in self._reservations:
                self._reservations.append(reservation)
            return True

    def _droppable_bytes(self, spares_since: float | None) -> int:
        parts_bytes = self._droppable_parts_bytes(spares_since)
        if spares_since is not None:
            return parts_bytes + self._shelf.unused_bytes(spares_since)
        return parts_bytes + self._shelf.used_bytes - self._shelf.kept_bytes()

    def _droppable_parts_bytes(self, spares_since: float | None) -> int:
        return sum(each.disk_bytes for each in self._parts.unused(spares_since))

    async def _drop_one(self, spares_since: float | None = None) -> bool:
        """Drop the series that was not used for longest, whole or in parts; False if none may go."""
        await trio.to_thread.run_sync(self._shelf.flush_recency)
        if parts := self._parts.unused(spares_since)[:1]:
            oldest = parts[0]
            if not self._shelf.unused_bytes(oldest.used_at):
                await self._parts.drop(oldest.series.series_uid)
                return True
        async with self._disk:
            # INVARIANT: no await between finding out who is in use and hiding the pack.
            series_uid = self._shelf.longest_unused(spares_since)
            if series_uid is None:
                return False
            with self._shelf.leaving(series_uid) as change:
                await _to_its_end(partial(self._shelf.remove_pack, change))
        return True

    async def drop(self, series_uid: str) -> Dropped:
        """Drop a series because somebody wants it gone, if it is not pinned or in use. Raises OSError."""
        async with self._lock, self._disk:
            if self._shelf.is_pinned(series_uid):
                return Dropped(is_pinned=True)
            if series_uid in self._shelf.in_use():
                return Dropped(is_in_use=True)
            with self._shelf.leaving(series_uid) as change:
                await _to_its_end(partial(self._shelf.remove_pack, change))
        return Dropped(change.before_bytes)

    async def drop_parts(self, path: Sequence[str]) -> int:
        """Drop the parts of all series at a path that nobody has open; return how many bytes those were.

        Raises OSError.
        """
        return sum([await self._parts.drop(series_uid) for series_uid in self._parts.below(path)])

    async def drop_damaged(self, series_uid: str, is_meant: Callable[[os.stat_result], bool]) -> bool:
        """Drop a series although somebody may have it open; False if its pack is another one by now."""
        async with self._lock, self._disk:
            # INVARIANT: no await between looking at the pack and hiding it.
            if not self._shelf.condemn(series_uid, is_meant):
                return False
            with self._shelf.leaving(series_uid) as change:
                await _to_its_end(partial(self._shelf.remove_pack, change))
        return True

    async def remove(self, file: Path) -> bool:
        """Remove a pack that came in; False if that failed: it then takes room until the next start."""
        try:
            await _to_its_end(partial(file.unlink, missing_ok=True))
        except OSError as error:
            log.warning("%s in the cache folder could not be removed: %s", file.name, error.strerror)
            return False
        return True

    # -- sentences --------------------------------------------------------------------------------

    def _no_space(self, reservation: Reservation, size_bytes: int) -> NoSpace:
        needed = f"series {reservation.series.series_uid} needs {size_bytes:,} bytes, and of the "
        if (since := reservation.spares_since()) is not None:
            kept_bytes = self.taken_bytes - reservation.disk_bytes - self._droppable_bytes(since)
            return NoSpace(f"{needed}{self._limit_bytes:,} of the cache {kept_bytes:,} were used lately")
        open_parts_bytes = self._parts.disk_bytes - self._droppable_parts_bytes(None)
        others_bytes = self.reserved_bytes - reservation.disk_bytes + self._shelf.hidden_bytes
        others_bytes += open_parts_bytes
        kept_bytes = others_bytes + self._shelf.kept_bytes()
        pinned = "pinned, " if self._shelf.pinned_bytes else ""
        return NoSpace(
            f"{needed}{self._limit_bytes:,} of the cache {kept_bytes:,} are {pinned}open or coming in"
        )


async def _to_its_end(change: Callable[[], None]) -> None:
    """Do in a thread, whoever is cancelled meanwhile, what changes the disk. Raises OSError."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(change)


def _expected_pack_bytes(series: Series) -> int:
    images = series.image_count or 1
    return (series.size_bytes or 0) + images * OVERHEAD_BYTES_PER_IMAGE + PACK_OVERHEAD_BYTES
