"""Parts of images of series that are not here: a file a series, and the map of what is in it.

A file lies in the folder of its run, which the next start removes, and its map is in memory: what a crash or
a power failure leaves of it is never read. It is dense, block behind block as they came, so that its size is
what it takes. It goes when its series is here, has another version, or must make room; who has it open reads
on. Calls that block say so; all else belongs to the daemon's one thread. Methods may raise OSError.
"""

import math
import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import trio

from tciafs.errors import SeriesDamaged
from tciafs.model import Series
from tciafs.store.disk import most_bytes_on_disk
from tciafs.store.layout import Held, Layout, PackedImage
from tciafs.store.open_packs import OpenImage

__all__ = ["BLOCK_BYTES", "PartImage", "Parts", "PartsFile", "blocks_of"]

BLOCK_BYTES = 32 * 1024
"""What is asked for at the least, and counted in the map: most headers lie in one."""

LEAST_HELD_BYTES = 1 << 20
"""Less of an image, unless it is all of it, is not worth to be asked for in two ways."""

NOT_HERE = -1


def blocks_of(image: PackedImage, offset: int, length: int) -> range:
    """Return which blocks of an image hold a part of it, up to its end; none behind that."""
    end = min(offset + length, image.size_bytes)
    return range(offset // BLOCK_BYTES, -(-end // BLOCK_BYTES)) if offset < end else range(0)


class PartsFile:
    """What is here of the images of one version of a series.

    `size_bytes` is how large the file is or is about to be, `disk_bytes` the most that it takes, `whole`
    names the images of which every block is here. `flights` are blocks on their way, by image and number.
    """

    def __init__(self, series: Series, layout: Layout, path: Path) -> None:
        self.series = series
        self.layout = layout
        self.path = path
        self.size_bytes = self.disk_bytes = 0
        self.readers = 0
        self.used_at = time.time()
        self.is_removed = False
        self.whole: set[str] = set()
        self.flights: dict[tuple[str, int], trio.Event] = {}
        self._places: dict[str, array[int]] = {}
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)

    def missing(self, image: PackedImage, blocks: range) -> list[int]:
        """Return which of these blocks of an image are not here."""
        places = self._places.get(image.name)
        if places is None:
            return list(blocks)
        return [block for block in blocks if places[block] == NOT_HERE]

    def write(self, place: int, data: bytes) -> None:
        """Write bytes at a place in the file; blocking."""
        while data:
            written = os.pwrite(self._descriptor, data, place)
            place, data = place + written, data[written:]

    def note(self, image: PackedImage, blocks: range, place: int) -> None:
        """Put blocks, which were written one behind the other from a place on, into the map."""
        count = len(blocks_of(image, 0, image.size_bytes))
        places = self._places.setdefault(image.name, array("q", [NOT_HERE]) * count)
        for number, block in enumerate(blocks):
            places[block] = place + number * BLOCK_BYTES
        if NOT_HERE not in places:
            self.whole.add(image.name)

    def pieces(self, image: PackedImage, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield place and size of what a part of an image consists of, as few pieces as there can be.

        Raises SeriesDamaged where a block is not here.
        """
        end = min(offset + length, image.size_bytes)
        places = self._places.get(image.name)
        place = size_bytes = 0
        for block in blocks_of(image, offset, length):
            if places is None or places[block] == NOT_HERE:
                raise SeriesDamaged(f"a part of {image.name} is not in the cache any more")
            first, last = max(offset, block * BLOCK_BYTES), min(end, (block + 1) * BLOCK_BYTES)
            begins = places[block] + first - block * BLOCK_BYTES
            if size_bytes and begins == place + size_bytes:
                size_bytes += last - first
                continue
            if size_bytes:
                yield place, size_bytes
            place, size_bytes = begins, last - first
        if size_bytes:
            yield place, size_bytes

    @property
    def held(self) -> Held:
        """The beginnings that need not come again with the series: whole images, and what is long enough."""
        pieces: dict[str, list[tuple[int, int]]] = {}
        for name, places in self._places.items():
            image = self.layout.images.find(name)
            if image is None:
                continue
            here = places.index(NOT_HERE) if NOT_HERE in places else len(places)
            size_bytes = min(here * BLOCK_BYTES, image.size_bytes)
            if size_bytes == image.size_bytes or size_bytes >= LEAST_HELD_BYTES:
                pieces[name] = list(self.pieces(image, 0, size_bytes))
        return Held(str(self.path), pieces)

    def read_at_hand(self, place: int, size_bytes: int) -> bytes | None:
        """Return bytes of the file that are in memory, None where the disk has to be waited for."""
        data = bytearray(size_bytes)
        try:
            received = os.preadv(self._descriptor, [data], place, os.RWF_NOWAIT)
        except OSError:
            return None  # `read` says what is wrong, or knows file systems without that question
        return cast(bytes, data) if received == size_bytes else None

    def read(self, place: int, size_bytes: int) -> bytes:
        """Return bytes of the file; blocking. Raises SeriesDamaged where the disk has lost them."""
        data = os.pread(self._descriptor, size_bytes, place)
        if len(data) != size_bytes:
            raise SeriesDamaged(f"parts of series {self.series.series_uid} were cut short on disk")
        return data

    def remove(self) -> None:
        """Remove the file, and close it if nobody reads it; blocking."""
        self.path.unlink(missing_ok=True)
        if not self.readers:
            self.close()

    def close(self) -> None:
        """Close the file, if that was not done before."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(slots=True, eq=False)
class PartImage:
    """An image open for reading of which only parts may be here; close it exactly once.

    `whole` is the image in a pack, once that is there: then it is read from. What is read without a gap ends
    before `run_end`, and began at `run_start`.
    """

    image: PackedImage
    parts: PartsFile
    _all: "Parts" = field(repr=False)
    whole: OpenImage | None = None
    run_start: int = 0
    run_end: int = 0

    @property
    def series(self) -> Series:
        """The series as it was when the image was opened."""
        return self.parts.series

    @property
    def identity(self) -> None:
        """None: what is not whole may still prove to be damaged."""
        return None

    @property
    def source(self) -> object:
        """What it is read from; readers of one source may share pages."""
        return self.parts if self.whole is None else self.whole.source

    @property
    def as_part(self) -> "PartImage":
        """Itself: bytes of it may have to be brought."""
        return self

    def lacks(self, offset: int, length: int) -> bool:
        """Return whether bytes have to be brought before they can be read."""
        if self.whole is not None:
            return False
        return bool(self.parts.missing(self.image, blocks_of(self.image, offset, length)))

    def lacking_bytes(self, offset: int, length: int) -> int:
        """Return about how many bytes have to be brought for a read, in whole blocks."""
        return len(self.parts.missing(self.image, blocks_of(self.image, offset, length))) * BLOCK_BYTES

    def read_at_hand(self, offset: int, length: int) -> bytes | None:
        """Return what `read` does if it is all in memory, None where the disk has to be waited for."""
        if self.whole is not None:
            return self.whole.read_at_hand(offset, length)
        if self.lacks(offset, length):
            return None  # but for `read` to say so
        pieces = list(self.parts.pieces(self.image, offset, length))
        return self.parts.read_at_hand(*pieces[0]) if len(pieces) == 1 else None

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes, fewer only at the end, which are here; may wait for the disk."""
        if self.whole is not None:
            return self.whole.read(offset, length)
        return b"".join(self.parts.read(*piece) for piece in self.parts.pieces(self.image, offset, length))

    def close(self) -> None:
        """Let go of it."""
        if self.whole is not None:
            self.whole.close()
        self._all.release(self.parts)


class Parts:
    """The files of parts of a store. `new_file` returns the path of one that does not exist yet."""

    def __init__(self, folder: Path, new_file: Callable[[Series], Path]) -> None:
        self._folder = folder
        self._new_file = new_file
        self._files: dict[str, PartsFile] = {}
        self._put_away: set[PartsFile] = set()
        self.disk_bytes = 0
        """What all files take, those too that are put away and still open."""

    def find(self, series: Series) -> PartsFile | None:
        """Return what there is of this version of a series."""
        found = self._files.get(series.series_uid)
        return found if found is not None and found.series.version == series.version else None

    def held(self, series: Series) -> Held | None:
        """Return what need not come again of this version of a series."""
        found = self.find(series)
        return None if found is None else found.held

    def has_another(self, series: Series) -> bool:
        """Return whether another version of a series is here in part."""
        return series.series_uid in self._files and self.find(series) is None

    def open(self, series: Series, layout: Layout, image: PackedImage) -> PartImage:
        """Return an image open for reading, with or without anything of it; of its series no other version
        may be here in part.
        """
        parts = self.find(series)
        if parts is None:
            parts = PartsFile(series, layout, self._new_file(series))
            self._files[series.series_uid] = parts
        parts.readers += 1
        parts.used_at = time.time()
        return PartImage(image, parts, self)

    def release(self, parts: PartsFile) -> None:
        """Count one reader of a file less."""
        parts.readers -= 1
        parts.used_at = time.time()
        if parts.is_removed and not parts.readers:
            self._end(parts)

    def grow(self, parts: PartsFile, size_bytes: int) -> int:
        """Count bytes that are about to be written, and return the place for them."""
        place = parts.size_bytes
        parts.size_bytes += size_bytes
        before, parts.disk_bytes = parts.disk_bytes, most_bytes_on_disk(parts.size_bytes, self._folder)
        self.disk_bytes += parts.disk_bytes - before
        return place

    async def drop(self, series_uid: str) -> int:
        """Drop what there is of a series, and return how many bytes that was; who reads it reads on."""
        parts = self._files.pop(series_uid, None)
        if parts is None:
            return 0
        self._put_away.add(parts)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(parts.remove)
        parts.is_removed = True
        if not parts.readers:
            self._end(parts)
        return parts.disk_bytes

    def _end(self, parts: PartsFile) -> None:
        parts.close()
        self._put_away.discard(parts)
        self.disk_bytes -= parts.disk_bytes

    def unused(self, before: float | None = None) -> list[PartsFile]:
        """Return the files that nobody has open, or has used since then (Unix seconds), the oldest first."""
        limit = math.inf if before is None else before
        free = [each for each in self._files.values() if not each.readers and each.used_at < limit]
        return sorted(free, key=lambda each: each.used_at)

    def below(self, path: Sequence[str]) -> list[str]:
        """Return the series at a path of which there is something that nobody has open."""
        return [each.series.series_uid for each in self.unused() if each.series.path[: len(path)] == path]

    def close(self) -> None:
        """Remove and close all files, whoever reads on."""
        for parts in (*self._files.values(), *self._put_away):
            parts.path.unlink(missing_ok=True)
            parts.close()
        self._files.clear()
        self._put_away.clear()
