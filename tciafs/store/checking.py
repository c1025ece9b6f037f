"""Packs that are here, read again from the disk and compared with what was written; the damaged go.

A check goes on in turns, so that whoever wants it sees how far it is and may stop it: a turn takes about a
second, of which half is rest, and the pack is read in a thread. What is compared is the pack's own layout
with the ledger's, and the CRC-32 of each image, which was taken as it was written.

MD5s are not kept for this: where the archive gave them, they agreed with the bytes that the CRC-32 stands
for. Against a disk that fails it is as good, and MD5s would take 16 bytes an image in each layout and twenty
times as long.
"""

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from isal.isal_zlib import crc32

from tciafs.errors import SeriesDamaged
from tciafs.store.disk_errors import disk_errors
from tciafs.store.layout import Layout
from tciafs.store.ledger import Entry
from tciafs.store.pack import read_layout
from tciafs.store.room import Room
from tciafs.store.shelf import Shelf

__all__ = ["Checker", "Place", "Turn"]

log = logging.getLogger(__name__)

TURN_S = 1.0
STEP_BYTES = 8 * 1024 * 1024
PIECE_BYTES = 1024 * 1024
MOST_LISTED = 50
MOST_LOOKED_AT = 2000


@dataclass(frozen=True, slots=True)
class Place:
    """How far a pack was read: so many images, and of the next one `offset` bytes with this CRC-32.

    `identity` tells the pack from one that comes in its place.
    """

    image: int = 0
    offset: int = 0
    crc32: int = 0
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of a turn: where the next one goes on (None: it was the last), or what is wrong.

    The pack `is_gone` when it made room for others meanwhile.
    """

    read_bytes: int = 0
    next: Place | None = None
    damage: str | None = None
    is_gone: bool = False


class Checker:
    """Checks the packs of a store. Its methods raise TciafsError where the cache folder fails."""

    def __init__(self, shelf: Shelf, room: Room) -> None:
        self._shelf = shelf
        self._room = room
        self._one_at_a_time = trio.Lock()

    async def listed(self, whose: Sequence[str], after: str) -> tuple[Sequence[Entry], str | None]:
        """Return some series that are on disk, and the UID behind which to go on (None: there are no more).

        They come in order of their UID, those behind `after`; `whose` are the keys on the way to them, from
        the collection down to the series, as many as are meant.
        """
        with disk_errors():
            return await trio.to_thread.run_sync(self._list, tuple(whose), after)

    def _list(self, whose: tuple[str, ...], after: str) -> tuple[Sequence[Entry], str | None]:
        found: list[Entry] = []
        series_uids = self._shelf.on_disk(after, MOST_LOOKED_AT)
        for uid in series_uids:
            entry = self._shelf.entry(uid)
            if entry is not None and entry.layout.path[: len(whose)] == whose:
                found.append(entry)
            if len(found) == MOST_LISTED:
                return found, uid
        return found, series_uids[-1] if len(series_uids) == MOST_LOOKED_AT else None

    async def check(self, series_uid: str, place: Place) -> Turn:
        """Read a pack on from a place for about a second; drop it if it is damaged."""
        async with self._one_at_a_time:
            with disk_errors():
                try:
                    with self._opened(series_uid) as (descriptor, identity):
                        # Behind the opening: if the pack is replaced in between, it is not dropped for what
                        # the ledger says of the one that took its place.
                        entry = await trio.to_thread.run_sync(self._shelf.entry, series_uid)
                        if entry is not None:
                            return await self._turn(entry.layout, descriptor, identity, place)
                except FileNotFoundError:
                    pass
        return Turn(is_gone=True)

    @contextmanager
    def _opened(self, series_uid: str) -> Iterator[tuple[int, str]]:
        descriptor = os.open(self._shelf.place_of(series_uid), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor, _identity(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    async def _turn(self, layout: Layout, descriptor: int, identity: str, place: Place) -> Turn:
        try:
            return await self._read_on(layout, descriptor, identity, place)
        except SeriesDamaged as error:
            damage = str(error)
        except OSError as error:
            if error.errno != errno.EIO:  # what else can be wrong is not the pack
                raise
            damage = f"the disk cannot read it: {error.strerror}"
        if not await self._room.drop_damaged(layout.series_uid, lambda status: _identity(status) == identity):
            return Turn(is_gone=True)
        log.warning("the pack of series %s was damaged on disk and is dropped: %s", layout.series_uid, damage)
        return Turn(damage=damage)

    async def _read_on(self, layout: Layout, descriptor: int, identity: str, place: Place) -> Turn:
        if place.identity != identity or min(place.image, place.offset) < 0:
            await trio.to_thread.run_sync(_compare_layouts, self._shelf.place_of(layout.series_uid), layout)
            place = Place(identity=identity)
        begun, read_bytes = trio.current_time(), 0
        while place.image < layout.file_count:
            if (began := trio.current_time()) - begun >= TURN_S:
                return Turn(read_bytes, place)
            place, step_bytes = await trio.to_thread.run_sync(_step, descriptor, layout, place)
            read_bytes += step_bytes
            await _rest(trio.current_time() - began)
        return Turn(read_bytes)


def _compare_layouts(pack: Path, layout: Layout) -> None:
    """Compare what a pack says of itself with what the ledger says of it. Blocks; raises SeriesDamaged."""
    written = read_layout(pack)
    if (written.series_uid, written.images, written.annotations) != (
        layout.series_uid,
        layout.images,
        layout.annotations,
    ):
        raise SeriesDamaged("it is not the pack that the ledger tells of")


async def _rest(worked_s: float) -> None:
    """Leave the disk to readers for as long as it was read from."""
    await trio.sleep(worked_s)


def _identity(status: os.stat_result) -> str:
    return f"{status.st_ino}:{status.st_mtime_ns}"


def _step(descriptor: int, layout: Layout, place: Place) -> tuple[Place, int]:
    """Read on for some megabytes; return the place behind them, and how many they were. Blocks.

    Raises SeriesDamaged at an image that is not as it was written; OSError.
    """
    at, offset, checksum, read_bytes = place.image, place.offset, place.crc32, 0
    while at < layout.file_count and read_bytes < STEP_BYTES:
        image = layout.file(at)
        wanted = min(PIECE_BYTES, image.size_bytes - offset)
        if wanted:
            data = _read_from_disk(descriptor, image.offset + offset, wanted)
            if len(data) != wanted:
                raise SeriesDamaged(f"it ends in the middle of {image.name}")
            checksum, offset, read_bytes = crc32(data, checksum), offset + wanted, read_bytes + wanted
        if offset == image.size_bytes:
            if checksum != image.crc32:
                raise SeriesDamaged(f"the bytes of {image.name} are not those that were written")
            at, offset, checksum = at + 1, 0, 0
    return Place(at, offset, checksum, place.identity), read_bytes


def _read_from_disk(descriptor: int, offset: int, size_bytes: int) -> bytes:
    # What memory still has of the file says nothing of the disk.
    os.posix_fadvise(descriptor, offset, size_bytes, os.POSIX_FADV_DONTNEED)
    return os.pread(descriptor, size_bytes, offset)
