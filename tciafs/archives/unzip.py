"""ZIP bytes arriving, checked members leaving: a streaming reader without any I/O.

It reads what java.util.zip.ZipOutputStream writes to a socket (PKWARE APPNOTE 6.3: deflate, sizes
behind the data, ZIP64). Defined here and only here: what a ZIP may look like, and the limits
against hostile ones. One Unzipper belongs to one thread; imports nothing of ours but errors.
"""

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import Any, TypeAlias, TypeVar

from tciafs.errors import UnreadableAnswer

try:
    from isal import isal_zlib

    deflate: Any = isal_zlib
except ImportError:  # no wheel for this machine: half as fast, otherwise the same
    import zlib

    deflate = zlib

__all__ = ["Event", "Limits", "MemberData", "MemberEnd", "MemberStart", "Unzipper"]

INPUT_PIECE_BYTES = 64 << 10  # shown to the inflater at once: it copies what it leaves over
OUTPUT_PIECE_BYTES = 1 << 20  # produced by the inflater at once: the memory that a bomb can take

LOCAL_HEADER, CENTRAL_HEADER, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
DESCRIPTOR, ZIP64_END, ZIP64_LOCATOR = b"PK\x07\x08", b"PK\x06\x06", b"PK\x06\x07"

# The fixed part of each record, without its signature (APPNOTE 4.3.7, 4.3.9, 4.3.12, 4.3.14 to 16).
LOCAL_FIELDS = Struct("<2xHH4xLLLHH")
DESCRIPTOR_32, DESCRIPTOR_64 = Struct("<LLL"), Struct("<LQQ")
CENTRAL_FIELDS = Struct("<4xHH4xLLLHHHH6xL")
ZIP64_END_AND_LOCATOR = Struct("<Q4xLLQQQQ4sLQL")
END_FIELDS = Struct("<HHHHLLH")
EXTRA_FIELD, SIZE_64, ZIP64_EXTRA_ID = Struct("<HH"), Struct("<Q"), 0x0001
MAX_16, MAX_32 = 0xFFFF, 0xFFFF_FFFF
STORED, DEFLATED = 0, 8  # methods, and below them general purpose bit flags (APPNOTE 4.4.4, 4.4.5)
ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
SIZES_FOLLOW, PATCHED, NAME_IS_UTF8 = 1 << 3, 1 << 5, 1 << 11


@dataclass(frozen=True, slots=True)
class MemberStart:
    """A member begins; `name` is decoded but unchecked, `size_bytes` None is known at its end."""

    name: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class MemberData:
    """The next bytes of the member, at most 1 MiB and never none; not yet checked."""

    data: bytes


@dataclass(frozen=True, slots=True)
class MemberEnd:
    """The member is complete: its CRC-32 and both its lengths agree with what was sent."""

    size_bytes: int
    crc32: int


Event: TypeAlias = MemberStart | MemberData | MemberEnd
_Result = TypeVar("_Result")
_Parser: TypeAlias = Generator[Event | None, None, _Result]  # None: more bytes are needed


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a ZIP may contain before it is taken for an attack; sizes are after inflating.

    `max_ratio` is for the whole ZIP, and only for output above `ratio_grace_bytes`: an empty
    segmentation deflates 1000:1, close to deflate's own limit of 1032:1, and is valid DICOM.
    """

    max_members: int = 200_000
    max_name_bytes: int = 255
    max_member_bytes: int = 16 << 30
    max_total_bytes: int = 1 << 40
    max_ratio: int = 500
    ratio_grace_bytes: int = 4 << 30

    @classmethod
    def for_series(cls, image_count: int | None, size_bytes: int | None) -> "Limits":
        """Return the limits for a series of which the archive says this (None: it does not say).

        They leave room for licence, checksums, annotations (which the archive does not count) and
        growth since the listing: whoever counts the images finds that out.
        """
        members = cls().max_members if image_count is None else 2 * image_count + 1000
        if size_bytes is None:
            return cls(max_members=members)
        most, grace = 2 * size_bytes + (256 << 20), size_bytes + (64 << 20)
        return cls(max_members=members, max_total_bytes=most, ratio_grace_bytes=grace)

    @property
    def max_wire_bytes(self) -> int:
        """Bytes of ZIP that contents within the limits can need, however badly they deflate."""
        return self.max_total_bytes * 9 // 8 + 1024 * self.max_members + (1 << 20)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A member as a header tells it; `size_bytes` None: only known behind the data, as the rest."""

    name: str
    method: int
    offset: int
    crc32: int
    compressed_bytes: int
    size_bytes: int | None


class _Input:
    """The bytes fed and not yet read; `offset` counts those read since the beginning."""

    def __init__(self) -> None:
        self.offset = self.fed_bytes = 0
        self._window = memoryview(b"")
        self._position = 0

    def append(self, data: bytes | bytearray | memoryview) -> None:
        unread = bytes(self._window[self._position :])
        self._window, self._position = memoryview(unread + data if unread else data), 0
        self.fed_bytes += len(data)

    def peek(self, count: int) -> memoryview:
        return self._window[self._position : self._position + count]

    def advance(self, count: int) -> None:
        """Mark `count` bytes as read, or as unread again where it is negative."""
        self._position += count
        self.offset += count

    def take(self, count: int) -> _Parser[bytes]:
        parts = bytearray()
        while True:
            piece = self.peek(count - len(parts))
            parts += piece
            self.advance(len(piece))
            if len(parts) == count:
                return bytes(parts)
            yield None


class Unzipper:
    """Reads one ZIP. Feed it pieces of any size, take the events, close it at the end of input.

    A member is intact once its MemberEnd is out, but that no member is missing, and that the names
    are right, is certain only when `close` has returned. Folders are checked like members and give
    no events. Refused are encryption, other methods than stored and deflate, several disks, stored
    data of unknown length, two members of one name, and bytes that belong to nothing.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._input = _Input()
        self._entries: dict[str, _Entry] = {}
        self._total_bytes = 0
        self._place: str | None = "before its first member"  # None: complete
        self._failure: str | None = None
        self._parser = self._read()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """Return the events that `data` completes; take them all before `data` is changed.

        Raises UnreadableAnswer while they are taken, and from then on every time.
        """
        self._input.append(data)
        return self._events()

    def close(self) -> None:
        """Check that the ZIP is complete; raises UnreadableAnswer if it is not, or was invalid."""
        deque(self._events(), maxlen=0)
        if self._place is not None:
            self._failure = f"The ZIP ended early, {self._place}, at byte {self._input.offset}"
            raise UnreadableAnswer(self._failure)

    def _events(self) -> Iterator[Event]:
        if self._failure is not None:
            raise UnreadableAnswer(self._failure)
        try:
            if self._input.fed_bytes > self._limits.max_wire_bytes:
                raise UnreadableAnswer("The ZIP is longer than anything that it may contain")
            # Not `yield from`: a caller that stops early must not close the parser.
            for event in self._parser:
                if event is None:
                    self._input.append(b"")  # all is read: let go of the caller's buffer
                    return
                yield event
        except UnreadableAnswer as error:
            self._failure = str(error)
            raise

    def _read(self) -> _Parser[None]:
        signature = yield from self._input.take(4)
        if signature not in (LOCAL_HEADER, END, ZIP64_END):
            beginning = signature + bytes(self._input.peek(36))
            raise UnreadableAnswer(f"The answer is not a ZIP: it begins with {beginning!r}")
        while signature == LOCAL_HEADER:
            signature = yield from self._member()
        self._place = "in the list of contents at its end"
        count, start = len(self._entries), self._input.offset - len(signature)
        while signature == CENTRAL_HEADER:
            yield from self._central_entry()
            signature = yield from self._input.take(4)
        if self._entries:
            raise UnreadableAnswer(f"The list of contents leaves out {next(iter(self._entries))!r}")
        size_bytes = self._input.offset - len(signature) - start
        yield from self._end(signature, (count, count, size_bytes, start))
        self._place = None
        while not self._input.peek(1):
            yield None
        raise UnreadableAnswer("Bytes follow the end of the ZIP")

    def _member(self) -> _Parser[bytes]:
        """Read a member; its result is the signature of the record behind it."""
        said = yield from self._local_header()
        is_file = not said.name.endswith("/")
        self._place = f"in {said.name!r}"
        if is_file:
            yield MemberStart(said.name, said.size_bytes)
        start = self._input.offset
        contents = self._inflated(said) if said.method == DEFLATED else self._stored(said)
        size_bytes, crc32 = yield from contents
        true = crc32, self._input.offset - start, size_bytes
        entry = _Entry(said.name, said.method, said.offset, *true)
        behind = b""
        if said.size_bytes is None:
            behind = yield from self._descriptor(entry, true)
        elif said != entry:
            raise UnreadableAnswer(f"{said.name!r} in the ZIP disagrees with its checksum or sizes")
        self._entries[said.name] = entry
        if is_file:
            # Before the next record is waited for: a slow server may take its time with that.
            yield MemberEnd(size_bytes, crc32)
        signature = behind or (yield from self._input.take(4))
        if signature not in (LOCAL_HEADER, CENTRAL_HEADER):
            raise UnreadableAnswer(f"Bytes that belong to nothing follow {said.name!r} in the ZIP")
        return signature

    def _local_header(self) -> _Parser[_Entry]:
        offset = self._input.offset - len(LOCAL_HEADER)
        fixed = yield from self._input.take(LOCAL_FIELDS.size)
        flags, method, crc32, packed, size, *lengths = LOCAL_FIELDS.unpack(fixed)
        name = yield from self._name(lengths[0], flags)
        size, packed = _widened((yield from self._input.take(lengths[1])), size, packed)
        entry = _Entry(name, method, offset, crc32, packed, size)
        if name in self._entries:
            raise UnreadableAnswer(f"The ZIP has two members named {name!r}")
        if len(self._entries) >= self._limits.max_members:
            raise UnreadableAnswer(f"The ZIP has more than {self._limits.max_members} members")
        if flags & ENCRYPTED:
            raise UnreadableAnswer(f"{name!r} in the ZIP is encrypted")
        if method not in (STORED, DEFLATED) or flags & PATCHED:
            raise UnreadableAnswer(f"{name!r} in the ZIP is not deflated, but by method {method}")
        if flags & SIZES_FOLLOW:
            return replace(entry, size_bytes=None)
        self._check_contents(entry, size, 0)
        return entry

    def _name(self, length: int, flags: int) -> _Parser[str]:
        if not 0 < length <= self._limits.max_name_bytes:
            most = self._limits.max_name_bytes
            raise UnreadableAnswer(f"A name in the ZIP is {length} bytes long, not 1 to {most}")
        raw = yield from self._input.take(length)
        if b"\0" in raw:
            raise UnreadableAnswer(f"A name in the ZIP contains NUL: {raw!r}")
        try:
            return raw.decode("utf-8" if flags & NAME_IS_UTF8 else "cp437")
        except UnicodeDecodeError:
            raise UnreadableAnswer(f"A name in the ZIP is not the UTF-8 it says: {raw!r}") from None

    def _inflated(self, said: _Entry) -> _Parser[tuple[int, int]]:
        inflater = deflate.decompressobj(-15)
        size_bytes = crc32 = 0
        while not inflater.eof:
            piece = self._input.peek(INPUT_PIECE_BYTES)
            try:
                data = inflater.decompress(piece, OUTPUT_PIECE_BYTES)
            except deflate.error as error:
                raise UnreadableAnswer(f"{said.name!r} in the ZIP is damaged: {error}") from error
            left = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            # isal reads ahead, and hands back at the end even bytes of an earlier piece: this may
            # be negative. They are never of an earlier feed: that one ended with all output out.
            self._input.advance(len(piece) - len(left))
            if data:
                size_bytes += len(data)
                crc32 = deflate.crc32(data, crc32)
                self._check_contents(said, size_bytes, len(data))
                yield MemberData(data)
            # A full piece may leave output inside the inflater, though its input is used up.
            drained = len(data) < OUTPUT_PIECE_BYTES and not self._input.peek(1)
            if drained and not inflater.eof:
                yield None
        return size_bytes, crc32

    def _stored(self, said: _Entry) -> _Parser[tuple[int, int]]:
        size_bytes = crc32 = 0
        wanted_bytes = said.size_bytes or 0
        while size_bytes < wanted_bytes:
            data = bytes(self._input.peek(min(wanted_bytes - size_bytes, OUTPUT_PIECE_BYTES)))
            if not data:
                yield None
                continue
            self._input.advance(len(data))
            size_bytes += len(data)
            crc32 = deflate.crc32(data, crc32)
            self._check_contents(said, size_bytes, len(data))
            yield MemberData(data)
        return size_bytes, crc32

    def _check_contents(self, said: _Entry, size_bytes: int, new_bytes: int) -> None:
        limits, self._total_bytes = self._limits, self._total_bytes + new_bytes
        if size_bytes and said.name.endswith("/"):
            raise UnreadableAnswer(f"{said.name!r} in the ZIP is a folder with contents")
        if said.size_bytes is not None and size_bytes > said.size_bytes:
            raise UnreadableAnswer(f"{said.name!r} in the ZIP disagrees with its checksum or sizes")
        if size_bytes > limits.max_member_bytes:
            most = limits.max_member_bytes
            raise UnreadableAnswer(f"{said.name!r} in the ZIP has more than {most} bytes")
        believable_bytes = max(limits.ratio_grace_bytes, limits.max_ratio * self._input.offset)
        most = min(limits.max_total_bytes, believable_bytes)
        if self._total_bytes > most:
            raise UnreadableAnswer(f"The ZIP inflates to more than {most} bytes, its limit")

    def _descriptor(self, entry: _Entry, true: tuple[int, int, int]) -> _Parser[bytes]:
        """Read the data descriptor in whichever of its four forms agrees (APPNOTE 4.3.9).

        Signature and 8-byte sizes are the writer's choice, but the true values are known, and hardly
        ever fit two forms. Where they do, the right one has a record behind it, whose signature is the
        result; it is empty where nothing behind the descriptor had to be read.
        """
        forms = [DESCRIPTOR_64.pack(*true)]
        if max(true) <= MAX_32:
            forms.append(DESCRIPTOR_32.pack(*true))
        forms += [DESCRIPTOR + form for form in forms]
        seen = yield from self._input.take(DESCRIPTOR_32.size)
        complete = False
        while fitting := [form for form in forms if form.startswith(seen)]:
            if fitting == [seen]:
                return b""
            complete = seen in fitting
            behind = yield from self._input.take(4)
            if complete and behind in (LOCAL_HEADER, CENTRAL_HEADER):
                return behind
            seen += behind
        if complete:
            return seen[-4:]
        if entry.method == STORED:
            raise UnreadableAnswer(f"{entry.name!r} in the ZIP is stored, with its size unknown")
        raise UnreadableAnswer(f"{entry.name!r} in the ZIP disagrees with its checksum or sizes")

    def _central_entry(self) -> _Parser[None]:
        fixed = yield from self._input.take(CENTRAL_FIELDS.size)
        flags, method, crc32, packed, size, *lengths, disk, offset = CENTRAL_FIELDS.unpack(fixed)
        name = yield from self._name(lengths[0], flags)
        extra_and_comment = yield from self._input.take(lengths[1] + lengths[2])
        size, packed, offset = _widened(extra_and_comment[: lengths[1]], size, packed, offset)
        entry = _Entry(name, method, offset, crc32, packed, size)
        if disk or self._entries.pop(name, None) != entry:
            raise UnreadableAnswer(f"The list of contents of the ZIP disagrees about {name!r}")

    def _end(self, signature: bytes, true: tuple[int, int, int, int]) -> _Parser[None]:
        """Read the end records; `true` is the count, again the count, the size and the offset."""
        zip64 = signature == ZIP64_END
        if zip64:
            fixed = yield from self._input.take(ZIP64_END_AND_LOCATOR.size)
            # 44 bytes follow this field; the record itself begins where the list ends.
            expected = 44, 0, 0, *true, ZIP64_LOCATOR, 0, true[2] + true[3], 1
            if ZIP64_END_AND_LOCATOR.unpack(fixed) != expected:
                raise UnreadableAnswer("The ZIP64 end of the ZIP disagrees with its contents")
            signature = yield from self._input.take(4)
        if signature != END:
            raise UnreadableAnswer(f"The ZIP has {signature!r} in its list of contents")
        fixed = yield from self._input.take(END_FIELDS.size)
        disk, first_disk, *said, comment_length = END_FIELDS.unpack(fixed)
        if disk or first_disk:
            raise UnreadableAnswer("The ZIP is spread over several disks")
        overflow = MAX_16, MAX_16, MAX_32, MAX_32
        for value, right, elsewhere in zip(said, true, overflow, strict=True):
            if value != right and not (zip64 and value == elsewhere):
                raise UnreadableAnswer("The end of the ZIP disagrees with its contents")
        yield from self._input.take(comment_length)


def _widened(extra: bytes, *fields: int) -> tuple[int, ...]:
    """Return `fields`, those that overflowed taken from the ZIP64 extra field (APPNOTE 4.5.3)."""
    position = 0
    while position + EXTRA_FIELD.size <= len(extra):
        field_id, length = EXTRA_FIELD.unpack_from(extra, position)
        position += EXTRA_FIELD.size
        if field_id == ZIP64_EXTRA_ID:
            sizes = extra[position : position + length]
            wide = SIZE_64.iter_unpack(sizes[: len(sizes) // SIZE_64.size * SIZE_64.size])
            return tuple(next(wide, (MAX_32,))[0] if f == MAX_32 else f for f in fields)
        position += length
    return fields
