"""The pack: one file per series, its images and annotations back to back, and behind them its layout.

    | image | image | ... | layout (MessagePack) | trailer: offset, length, CRC-32, magic |

A pack is readable while it grows (an image is an offset and a size in a file that is only appended
to) and describes itself once finished, so that a lost ledger costs nothing but a scan. Defined here
and only here: the file format. Blocking calls throughout; nothing here knows of trio.
"""

import hashlib
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from isal.isal_zlib import crc32

from tciafs.errors import NoSpace, SeriesDamaged
from tciafs.store.layout import Layout, PackedImage, PackedImages, decode_layout, encode_layout

__all__ = ["PackWriter", "md5_of_range", "read_layout"]

MAGIC = b"TCIAPCK2"
TRAILER = struct.Struct("<QII8s")  # layout offset, layout length, CRC-32 of the layout, magic
MD5_PIECE_BYTES = 1024 * 1024


class PackWriter:
    """Appends images to a new pack. Not closed and finished, it leaves a file without a trailer.

    The file never gets larger than `granted_bytes`, which may be raised at any time.
    """

    def __init__(self, path: Path, granted_bytes: int = sys.maxsize) -> None:
        self.granted_bytes = granted_bytes
        self._file = path.open("xb", buffering=0)
        self._end = 0
        self._images = PackedImages()
        self._annotations = PackedImages()
        self._start = 0
        self._crc32 = 0

    @property
    def size_bytes(self) -> int:
        """How large the file is."""
        return self._end

    @property
    def images(self) -> PackedImages:
        """The images that are complete, in order of arrival; it grows with the pack."""
        return self._images

    @property
    def annotations(self) -> PackedImages:
        """The annotations that are complete, in order of arrival; it grows with the pack."""
        return self._annotations

    def begin(self) -> None:
        """Start an image or annotation behind what is complete; what is unfinished is overwritten."""
        if self._end != self._start:
            self._file.seek(self._start)
            self._file.truncate()
            self._end = self._start
        self._crc32 = 0

    def keep(self, count: int) -> None:
        """Drop all but the first `count` images; only what nobody was told of."""
        self._annotations = PackedImages()
        self._images = PackedImages(islice(self._images, count))
        self._start = max((image.offset + image.size_bytes for image in self._images), default=0)
        self.begin()

    def write(self, data: bytes) -> None:
        """Append bytes to the image begun last. Raises OSError, ENOSPC among them, or NoSpace."""
        if self._end + len(data) > self.granted_bytes:
            raise NoSpace(f"a pack was about to grow beyond {self.granted_bytes:,} bytes")
        view = memoryview(data)
        while view:  # a raw write may be short when a disk fills up or a signal arrives
            written = self._file.write(view)
            self._end += written
            view = view[written:]
        self._crc32 = crc32(data, self._crc32)

    def end(self, name: str) -> PackedImage:
        """Complete the image begun last under `name`, and return where it lies."""
        image = self._ended(name)
        self._images.append(image)
        return image

    def end_annotation(self, name: str) -> PackedImage:
        """Complete what was begun last as an annotation, and return where it lies."""
        annotation = self._ended(name)
        self._annotations.append(annotation)
        return annotation

    def _ended(self, name: str) -> PackedImage:
        image = PackedImage(name, self._start, self._end - self._start, self._crc32)
        self._start = self._end
        return image

    def arrange(self, images: Iterable[PackedImage]) -> None:
        """Take other names for the complete images, or another order; where they lie stays."""
        self._images = PackedImages(images)

    def finish(self, layout: Layout) -> None:
        """Append the layout and its trailer and force everything to disk. Raises as `write`."""
        self.begin()
        encoded = encode_layout(layout)
        trailer = TRAILER.pack(self._end, len(encoded), crc32(encoded), MAGIC)
        self.write(encoded + trailer)
        os.fsync(self._file.fileno())

    def finished_bytes(self, layout: Layout) -> int:
        """Return how large the file will be when it is finished with this layout."""
        return self._start + len(encode_layout(layout)) + TRAILER.size

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._file.close()


def read_layout(path: Path) -> Layout:
    """Return the layout at the end of a finished pack.

    Raises SeriesDamaged where the file is not a whole pack, OSError where it cannot be read.
    """
    with path.open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        if size_bytes < TRAILER.size:
            raise SeriesDamaged(f"{path.name} is too short to be a pack")
        file.seek(size_bytes - TRAILER.size)
        offset, length, checksum, magic = TRAILER.unpack(file.read(TRAILER.size))
        if magic != MAGIC or offset + length + TRAILER.size != size_bytes:
            raise SeriesDamaged(f"{path.name} has no valid trailer")
        file.seek(offset)
        encoded = file.read(length)
    if crc32(encoded) != checksum:
        raise SeriesDamaged(f"the layout of {path.name} does not match its checksum")
    try:
        return decode_layout(encoded)
    except ValueError as error:
        raise SeriesDamaged(f"the layout of {path.name} cannot be read: {error}") from error


def md5_of_range(descriptor: int, offset: int, size_bytes: int) -> str:
    """Return the MD5 of part of an open file, as lower-case hex."""
    digest = hashlib.md5(usedforsecurity=False)
    for piece in _pieces(descriptor, offset, size_bytes):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(descriptor: int, offset: int, size_bytes: int) -> Iterator[bytes]:
    end = offset + size_bytes
    while offset < end:
        piece = os.pread(descriptor, min(MD5_PIECE_BYTES, end - offset), offset)
        if not piece:
            return
        yield piece
        offset += len(piece)
