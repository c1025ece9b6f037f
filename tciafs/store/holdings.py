"""What is on disk, for who wants to show it: how much lies below a place, and where an image's bytes are.

Reads the ledger in a thread, a part at a time, so that no reader waits for it. Changes nothing, fetches
nothing, and counts nothing as used.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from tciafs.store.disk_errors import disk_errors
from tciafs.store.shelf import Shelf

__all__ = ["Held", "Holdings", "Located"]

ROWS_AT_ONCE = 2000
"""Some 2 ms, for which the ledger is held."""


@dataclass(frozen=True, slots=True)
class Held:
    """So many series on disk, and the bytes that their packs take there."""

    series: int = 0
    pack_bytes: int = 0

    def __add__(self, other: "Held") -> "Held":
        return Held(self.series + other.series, self.pack_bytes + other.pack_bytes)


@dataclass(frozen=True, slots=True)
class Located:
    """Where the bytes of an image are: in the file `pack`, from `offset` on; the `image`th of `images`."""

    pack: Path
    offset: int
    size_bytes: int
    name: str
    image: int
    images: int


class Holdings:
    """The series on disk. Its methods raise TciafsError where the cache folder fails."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def below(self, whose: Sequence[str]) -> Mapping[str, Held]:
        """Return what is on disk below a place, by the key of each of its children.

        `whose` are keys from the collection down; series whose place is not known are nowhere.
        """
        with disk_errors():
            return await trio.to_thread.run_sync(self._below, tuple(whose))

    async def series_below(self, whose: Sequence[str]) -> frozenset[str]:
        """Return the UIDs of the series on disk below a place."""
        with disk_errors():
            rows = await trio.to_thread.run_sync(list, self._rows(tuple(whose)))
        return frozenset(uid for uid, _path, _pack_bytes in rows)

    def _below(self, whose: tuple[str, ...]) -> Mapping[str, Held]:
        found: dict[str, Held] = {}
        for _uid, path, pack_bytes in self._rows(whose):
            if len(path) > len(whose):
                key = path[len(whose)]
                found[key] = found.get(key, Held()) + Held(1, pack_bytes)
        return found

    def _rows(self, whose: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], int]]:
        after: str | None = ""
        while after is not None:
            rows = self._shelf.on_disk_below(whose, after, ROWS_AT_ONCE)
            yield from rows
            after = rows[-1][0] if len(rows) == ROWS_AT_ONCE else None

    async def locate(self, series_uid: str, image: int | None) -> Located | None:
        """Return where an image of a series is, counted from 0 in the archive's order; None: the middle one.

        None where the series is not on disk, or has no such image.
        """
        with disk_errors():
            entry = await trio.to_thread.run_sync(self._shelf.entry, series_uid)
        if entry is None or not entry.pack_bytes:
            return None
        images = entry.layout.images
        place = len(images) // 2 if image is None else image
        if not 0 <= place < len(images):
            return None
        found, pack = images[place], self._shelf.place_of(series_uid)
        return Located(pack, found.offset, found.size_bytes, found.name, place, len(images))
