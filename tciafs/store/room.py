"""The limit: room is set aside for what comes in, and made by dropping what was not used for longest.

State changes are synchronous; slow disk work is done in a thread. Must not know who brings a series, or how.
"""

import logging
from functools import partial
from pathlib import Path

import trio

from tciafs.errors import NoSpace
from tciafs.model import Series
from tciafs.store.shelf import Shelf

__all__ = ["Room"]

log = logging.getLogger(__name__)

PACK_OVERHEAD_BYTES = 4096
OVERHEAD_BYTES_PER_IMAGE = 128
"""A pack is its images, a trailer, and in the layout a name, three numbers and their tags each."""


class Room:
    """How the `limit_bytes` of a cache are divided: packs on the shelf, and room reserved for others.

    `disk` lets one thread at a time change what is on disk.
    """

    def __init__(self, shelf: Shelf, limit_bytes: int, disk: trio.CapacityLimiter) -> None:
        self._shelf = shelf
        self._limit_bytes = limit_bytes
        self._disk = disk
        self._lock = trio.Lock()
        self._reserved: dict[str, int] = {}
        self._released = trio.Event()

    @property
    def reserved_bytes(self) -> int:
        """How many bytes are reserved for what is coming in."""
        return sum(self._reserved.values())

    async def await_room(self, series: Series) -> None:
        """Set room aside for a series about to come in. Raises NoSpace.

        Those that are coming in may be dropped once they are here, so their end is awaited first.
        """
        wanted_bytes = _expected_pack_bytes(series)
        while not await self._reserve(series.series_uid, wanted_bytes):
            # INVARIANT: only who has reserved nothing waits, and only for those who have: no circle.
            if wanted_bytes > self._limit_bytes or not self._reserved:
                raise self._no_space(series, wanted_bytes)
            await self._released.wait()

    async def reserve(self, series: Series, wanted_bytes: int) -> None:
        """Set aside so much for a series, instead of what it had, without waiting. Raises NoSpace."""
        if not await self._reserve(series.series_uid, wanted_bytes):
            raise self._no_space(series, wanted_bytes)

    def release(self, series: Series) -> None:
        """Take back what was set aside for a series that is here now, or will not come."""
        self._reserved.pop(series.series_uid, None)
        self._released.set()
        self._released = trio.Event()

    async def remove(self, file: Path) -> None:
        """Remove a pack from the disk; a failure costs room until the next start, and no more."""
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(partial(file.unlink, missing_ok=True), limiter=self._disk)
            except OSError as error:
                log.warning("%s in the cache folder could not be removed: %s", file.name, error.strerror)

    async def _reserve(self, series_uid: str, wanted_bytes: int) -> bool:
        """Set room aside, dropping the least recently used series; False where that is not enough.

        Nothing is dropped then.
        """
        async with self._lock:
            others_bytes = self._reserved_for_others(series_uid)
            while self._shelf.used_bytes + others_bytes + wanted_bytes > self._limit_bytes:
                # INVARIANT: no await between finding out who is in use and taking a pack away.
                in_use = self._shelf.in_use()
                # What is being published has its room reserved still: it counts once.
                kept_bytes = others_bytes + self._shelf.bytes_of(in_use - self._reserved.keys())
                unused = (
                    uid for uid in self._shelf.least_recently_used(len(in_use) + 1) if uid not in in_use
                )
                uid = next(unused, None)
                if uid is None or kept_bytes + wanted_bytes > self._limit_bytes:
                    return False
                await self.remove(self._shelf.evict(uid))
                others_bytes = self._reserved_for_others(series_uid)
            self._reserved[series_uid] = wanted_bytes
            return True

    def _reserved_for_others(self, series_uid: str) -> int:
        return sum(size for uid, size in self._reserved.items() if uid != series_uid)

    def _no_space(self, series: Series, wanted_bytes: int) -> NoSpace:
        in_use = self._shelf.in_use() - self._reserved.keys()
        kept_bytes = self._reserved_for_others(series.series_uid) + self._shelf.bytes_of(in_use)
        return NoSpace(
            f"series {series.series_uid} needs {wanted_bytes:,} bytes, and of the "
            f"{self._limit_bytes:,} of the cache {kept_bytes:,} are open or coming in"
        )


def _expected_pack_bytes(series: Series) -> int:
    images = series.image_count or 1
    return (series.size_bytes or 0) + images * OVERHEAD_BYTES_PER_IMAGE + PACK_OVERHEAD_BYTES
