"""The pack format: what is written reads back, what is damaged is noticed."""

import errno
import hashlib
import io
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal.isal_zlib import crc32

from tciafs.errors import SeriesDamaged
from tciafs.store import pack as pack_module
from tciafs.store.layout import Layout, PackedImage
from tciafs.store.pack import MAGIC, TRAILER, PackWriter, md5_of_range, read_layout
from tests.fakes import make_series, write_pack

SERIES = make_series()
IMAGES = (("1-1.dcm", b"first image"), ("1-2.dcm", b""), ("1-3.dcm", b"third"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "series.pack"


def contents(file: Path, layout: Layout) -> list[tuple[str, bytes]]:
    data = file.read_bytes()
    return [(each.name, data[each.offset : each.offset + each.size_bytes]) for each in layout.images]


def written(file: Path, *images: tuple[str, bytes]) -> PackWriter:
    writer = PackWriter(file)
    for name, data in images:
        writer.begin()
        writer.write(data)
        writer.end(name)
    return writer


def test_a_pack_describes_itself(file: Path) -> None:
    layout = write_pack(file, SERIES, *IMAGES)
    assert read_layout(file) == layout
    assert (layout.series_uid, layout.version) == (SERIES.series_uid, SERIES.version)
    assert contents(file, layout) == list(IMAGES)
    assert [each.crc32 for each in layout.images] == [crc32(data) for _, data in IMAGES]
    assert layout.image_bytes == 16


@given(st.lists(st.tuples(st.text(max_size=20), st.lists(st.binary(max_size=50), max_size=4)), max_size=12))
def test_any_images_in_any_pieces_read_back(images: list[tuple[str, list[bytes]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pack"
        writer = PackWriter(file)
        for name, pieces in images:
            writer.begin()
            for piece in pieces:
                writer.write(piece)
            writer.end(name)
        writer.finish(Layout("1.2", "v", writer.images, ()))
        writer.close()
        assert contents(file, read_layout(file)) == [(name, b"".join(pieces)) for name, pieces in images]


def test_an_image_can_be_read_while_the_pack_grows(file: Path) -> None:
    writer = written(file, IMAGES[0])
    (image,) = writer.images
    assert file.read_bytes()[image.offset :] == IMAGES[0][1]
    writer.close()


def test_an_unfinished_image_is_overwritten_by_the_next(file: Path) -> None:
    writer = written(file, IMAGES[0])
    writer.begin()
    writer.write(b"broken off in the middle, and longer than what follows")
    writer.begin()
    writer.write(b"whole")
    writer.end("1-2.dcm")
    layout = Layout("1.2", "v", writer.images, ())
    writer.finish(layout)
    writer.close()
    assert contents(file, read_layout(file)) == [IMAGES[0], ("1-2.dcm", b"whole")]
    assert layout.images[1].crc32 == crc32(b"whole")


def test_an_unfinished_image_is_left_out_of_a_finished_pack(file: Path) -> None:
    writer = written(file, IMAGES[0])
    writer.begin()
    writer.write(b"broken off")
    writer.finish(Layout("1.2", "v", writer.images, ()))
    writer.close()
    assert contents(file, read_layout(file)) == [IMAGES[0]]
    assert b"broken off" not in file.read_bytes()


@pytest.mark.parametrize("count", [0, 1])
def test_a_pack_goes_on_behind_the_images_that_it_keeps(file: Path, count: int) -> None:
    writer = written(file, *IMAGES)
    writer.keep(count)
    kept_bytes = sum(len(data) for _, data in IMAGES[:count])
    assert (list(writer.images.names), file.stat().st_size) == ([n for n, _ in IMAGES[:count]], kept_bytes)
    writer.write(b"new")
    assert writer.end("1-9.dcm") == PackedImage("1-9.dcm", kept_bytes, 3, crc32(b"new"))
    writer.close()


def test_images_are_where_they_are_whatever_their_order(file: Path) -> None:
    writer = written(file, ("", b"a"), ("", b"bc"))
    a, bc = writer.images
    writer.arrange([replace(bc, name="1-1.dcm"), replace(a, name="1-2.dcm")])
    writer.begin()
    writer.write(b"def")
    writer.end("1-3.dcm")
    layout = Layout("1.2", "v", writer.images, ())
    writer.finish(layout)
    writer.close()
    assert contents(file, read_layout(file)) == [("1-1.dcm", b"bc"), ("1-2.dcm", b"a"), ("1-3.dcm", b"def")]
    writer = PackWriter(file.with_suffix(".other"))
    writer.arrange(layout.images)
    writer.keep(2)
    assert writer.end("1-3.dcm").offset == 3
    writer.close()


def test_a_pack_never_overwrites_a_file(file: Path) -> None:
    file.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        PackWriter(file)


class StingyFile(io.RawIOBase):
    """Takes three bytes at a time, and nothing any more when `room` is used up."""

    def __init__(self, room: int) -> None:
        self.taken = bytearray()
        self.place = 0
        self.room = room

    def write(self, data: Any) -> int:
        piece = bytes(data)[: min(3, self.room)]
        if not piece:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.taken[self.place :] = piece
        self.place += len(piece)
        self.room -= len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = offset
        return offset

    def truncate(self, size: int | None = None) -> int:
        del self.taken[self.place :]
        return self.place


def stingy_writer(file: Path, room: int) -> tuple[PackWriter, StingyFile]:
    writer = PackWriter(file)
    writer.close()
    stingy = StingyFile(room)
    writer._file = stingy  # type: ignore[assignment]
    return writer, stingy


def test_short_writes_lose_nothing(file: Path) -> None:
    writer, stingy = stingy_writer(file, 1000)
    writer.begin()
    writer.write(b"ten bytes!")
    assert writer.end("1-1.dcm") == PackedImage("1-1.dcm", 0, 10, crc32(b"ten bytes!"))
    assert stingy.taken == b"ten bytes!"


def test_what_was_written_before_the_disk_was_full_is_overwritten_too(file: Path) -> None:
    writer, stingy = stingy_writer(file, 5)
    writer.begin()
    with pytest.raises(OSError, match="No space"):
        writer.write(b"ten bytes!")
    stingy.room = 100
    writer.begin()
    writer.write(b"four")
    assert writer.end("1-1.dcm") == PackedImage("1-1.dcm", 0, 4, crc32(b"four"))
    assert stingy.taken == b"four"


WRITE_BEYOND_A_LIMIT = """
import errno, pathlib, resource, sys
from tciafs.store.pack import PackWriter
writer = PackWriter(pathlib.Path(sys.argv[1]))
writer.begin()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    writer.write(bytes(2000))
except OSError as error:
    sys.exit(0 if error.errno == errno.EFBIG else 1)
sys.exit(2)
"""


def test_the_system_saying_no_is_an_os_error(file: Path) -> None:
    # In a process of its own: the limit would end this one as soon as it prints to a file.
    ended = subprocess.run([sys.executable, "-c", WRITE_BEYOND_A_LIMIT, str(file)], check=False)
    assert ended.returncode == 0


def test_any_turned_byte_of_the_layout_or_the_trailer_is_noticed(file: Path) -> None:
    layout = write_pack(file, SERIES, *IMAGES)
    whole = file.read_bytes()
    for place in range(layout.image_bytes, len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(SeriesDamaged):
            read_layout(file)


def test_any_missing_end_is_noticed(file: Path) -> None:
    write_pack(file, SERIES, *IMAGES)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(SeriesDamaged):
            read_layout(file)


@pytest.mark.parametrize("encoded", [msgspec.msgpack.encode({"other": 1}), b"\xc1"])
def test_a_layout_of_another_shape_is_no_layout(file: Path, encoded: bytes) -> None:
    file.write_bytes(encoded + TRAILER.pack(0, len(encoded), crc32(encoded), MAGIC))
    with pytest.raises(SeriesDamaged, match="cannot be read"):
        read_layout(file)


@given(st.binary(max_size=100), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_no_trailer_leads_astray(rest: bytes, offset: int, length: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(rest + TRAILER.pack(offset, length, 0, MAGIC))
        file.flush()
        # An empty layout has the checksum 0 and is no MessagePack; anything else is out of bounds.
        with pytest.raises(SeriesDamaged):
            read_layout(Path(file.name))


def test_a_pack_that_is_not_there_is_an_os_error(file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_layout(file)


def test_the_digest_of_a_range_takes_it_in_pieces(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "MD5_PIECE_BYTES", 4)
    file.write_bytes(b"..the range..")
    with file.open("rb") as opened:
        assert md5_of_range(opened.fileno(), 2, 9) == hashlib.md5(b"the range").hexdigest()
        assert md5_of_range(opened.fileno(), 11, 9) == hashlib.md5(b"..").hexdigest()
