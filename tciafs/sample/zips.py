"""A ZIP archive written as it is sent: nothing is known before it is compressed.

APPNOTE 4.3: DEFLATE, general purpose bit 3, zero sizes and CRC in the local header, a signed data
descriptor behind the data, central directory at the end, ZIP64 records where 32 bits do not hold.
Of an image that is compressed on the way, one piece is in memory. Must not import anything but the records.
"""

import datetime as dt
import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tciafs.sample.records import Deflated

__all__ = ["ZipStream", "deflated", "packed"]

LEVEL = zlib.Z_BEST_SPEED
"""How hard to try: a CT's noise comes out as large at the level that takes five times as long."""

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
DESCRIPTOR = struct.Struct("<4s3I")
DESCRIPTOR_64 = struct.Struct("<4sI2Q")
CENTRAL_HEADER = struct.Struct("<4s6H3I5H2I")
CENTRAL_END = struct.Struct("<4s4H2IH")
CENTRAL_END_64 = struct.Struct("<4sQ2H2I4Q")
CENTRAL_LOCATOR_64 = struct.Struct("<4sIQI")
VERSION_NEEDED = 20
VERSION_NEEDED_64 = 45
BIT_3_AND_UTF_8 = 0x0808
DEFLATE = 8
MAX_16 = 0xFFFF
MAX_32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    crc32: int
    packed_bytes: int
    size_bytes: int
    offset: int

    @property
    def is_big(self) -> bool:
        return max(self.packed_bytes, self.size_bytes) > MAX_32


class ZipStream:
    """Writes one archive; each method yields the bytes to send next."""

    def __init__(self, when: dt.datetime) -> None:
        self._date = (when.year - 1980) << 9 | when.month << 5 | when.day
        self._time = when.hour << 11 | when.minute << 5 | when.second // 2
        self._entries: list[_Entry] = []
        self._offset = 0

    def member(self, name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield one member, compressing `pieces` on the way."""
        packer = zlib.compressobj(LEVEL, wbits=-zlib.MAX_WBITS)
        crc32 = size_bytes = packed_bytes = 0
        yield self._local_header(name)
        for piece in pieces:
            crc32 = zlib.crc32(piece, crc32)
            size_bytes += len(piece)
            if packed := packer.compress(piece):
                packed_bytes += len(packed)
                yield packed
        packed = packer.flush()
        yield packed
        yield self._finish(name, crc32, packed_bytes + len(packed), size_bytes)

    def ready_member(self, name: str, content: Deflated) -> Iterator[bytes]:
        """Yield one member that was compressed beforehand."""
        yield self._local_header(name)
        yield from content.pieces
        packed_bytes = sum(map(len, content.pieces))
        yield self._finish(name, content.crc32, packed_bytes, content.size_bytes)

    def end(self) -> Iterator[bytes]:
        """Yield the central directory; nothing can be added afterwards."""
        directory_size = 0
        for entry in self._entries:
            record = self._central_header(entry)
            directory_size += len(record)
            yield record
        yield self._central_end(directory_size)

    def _local_header(self, name: str) -> bytes:
        encoded = name.encode()
        return (
            LOCAL_HEADER.pack(
                b"PK\3\4",
                VERSION_NEEDED,
                BIT_3_AND_UTF_8,
                DEFLATE,
                self._time,
                self._date,
                *(0, 0, 0),
                len(encoded),
                0,
            )
            + encoded
        )

    def _finish(self, name: str, crc32: int, packed_bytes: int, size_bytes: int) -> bytes:
        entry = _Entry(name.encode(), crc32, packed_bytes, size_bytes, self._offset)
        self._entries.append(entry)
        form = DESCRIPTOR_64 if entry.is_big else DESCRIPTOR
        descriptor = form.pack(b"PK\7\x08", crc32, packed_bytes, size_bytes)
        self._offset += LOCAL_HEADER.size + len(entry.name) + packed_bytes + len(descriptor)
        return descriptor

    def _central_header(self, entry: _Entry) -> bytes:
        extra, sizes, offset = b"", (entry.packed_bytes, entry.size_bytes), entry.offset
        if entry.is_big or entry.offset > MAX_32:
            extra = struct.pack("<2H3Q", 1, 24, entry.size_bytes, entry.packed_bytes, offset)
            sizes, offset = (MAX_32, MAX_32), MAX_32
        version = VERSION_NEEDED_64 if extra else VERSION_NEEDED
        return (
            CENTRAL_HEADER.pack(
                b"PK\1\2",
                version,
                version,
                BIT_3_AND_UTF_8,
                DEFLATE,
                self._time,
                self._date,
                entry.crc32,
                *sizes,
                len(entry.name),
                len(extra),
                *(0, 0, 0, 0),
                offset,
            )
            + entry.name
            + extra
        )

    def _central_end(self, directory_size: int) -> bytes:
        count, start = len(self._entries), self._offset
        records_64 = b""
        if count > MAX_16 or start + directory_size > MAX_32:
            records_64 = CENTRAL_END_64.pack(
                b"PK\6\6",
                CENTRAL_END_64.size - 12,
                VERSION_NEEDED_64,
                VERSION_NEEDED_64,
                *(0, 0),
                *(count, count),
                directory_size,
                start,
            ) + CENTRAL_LOCATOR_64.pack(b"PK\6\7", 0, start + directory_size, 1)
            count, directory_size, start = MAX_16, MAX_32, MAX_32
        return records_64 + CENTRAL_END.pack(b"PK\5\6", 0, 0, count, count, directory_size, start, 0)


def deflated(content: bytes, *, is_last: bool) -> bytes:
    """Return `content` as DEFLATE blocks that can stand beside others of their kind.

    Blocks that are not last end on a byte boundary and are never referred back to (RFC 1951), so a
    body compressed once can follow many heads.
    """
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(content)
    return packed + packer.flush(zlib.Z_FINISH if is_last else zlib.Z_FULL_FLUSH)


def packed(content: bytes) -> Deflated:
    """Return the file `content` as a member that is ready to be sent, as often as it is asked for."""
    packer = zlib.compressobj(LEVEL, wbits=-zlib.MAX_WBITS)
    pieces = (packer.compress(content), packer.flush())
    md5_hex = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return Deflated(pieces, zlib.crc32(content), len(content), md5_hex)
