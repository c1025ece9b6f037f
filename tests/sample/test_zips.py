"""The ZIP writer, read back by an independent reader."""

import datetime as dt
import io
import struct
import zipfile
import zlib
from hashlib import md5

from hypothesis import given
from hypothesis import strategies as st

from tciafs.sample.records import Deflated
from tciafs.sample.zips import ZipStream, deflated, packed

NOW = dt.datetime(2024, 2, 29, 13, 14, 16)


def archive_of(members: list[tuple[str, list[bytes]]]) -> bytes:
    stream = ZipStream(NOW)
    parts = [b"".join(stream.member(name, pieces)) for name, pieces in members]
    return b"".join([*parts, *stream.end()])


@given(st.lists(st.lists(st.binary(max_size=5000), max_size=4), max_size=5))
def test_what_goes_in_comes_out(contents: list[list[bytes]]) -> None:
    members = [(f"1-{place}.dcm", pieces) for place, pieces in enumerate(contents)]
    with zipfile.ZipFile(io.BytesIO(archive_of(members))) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == [
            b"".join(pieces) for pieces in contents
        ]


def test_local_headers_know_nothing_of_sizes() -> None:
    content = archive_of([("LICENSE", [b"text"])])
    signature, _, flags, method = struct.unpack_from("<4s3H", content)
    assert (signature, flags & 8, method) == (b"PK\3\4", 8, zipfile.ZIP_DEFLATED)
    assert struct.unpack_from("<3I", content, 14) == (0, 0, 0)


def test_members_carry_the_time_of_the_request() -> None:
    with zipfile.ZipFile(io.BytesIO(archive_of([("LICENSE", [b""])]))) as archive:
        assert archive.getinfo("LICENSE").date_time == (2024, 2, 29, 13, 14, 16)


def test_a_member_can_be_compressed_beforehand_in_two_parts() -> None:
    head, body = b"head " * 50, b"body " * 5000
    whole = head + body
    ready = Deflated(
        (deflated(head, is_last=False), deflated(body, is_last=True)),
        zlib.crc32(whole),
        len(whole),
        md5(whole, usedforsecurity=False).hexdigest(),
    )
    stream = ZipStream(NOW)
    content = b"".join([*stream.ready_member("1-1.dcm", ready), *stream.end()])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("1-1.dcm") == whole


@given(st.binary(max_size=5000))
def test_what_was_packed_can_be_sent_again_and_again(content: bytes) -> None:
    ready = packed(content)
    assert ready.md5_hex == md5(content, usedforsecurity=False).hexdigest()
    stream = ZipStream(NOW)
    parts = [piece for name in ("1-1.dcm", "1-2.dcm") for piece in stream.ready_member(name, ready)]
    with zipfile.ZipFile(io.BytesIO(b"".join([*parts, *stream.end()]))) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == [content, content]


def test_more_members_than_16_bits_count_are_found_again() -> None:
    members: list[tuple[str, list[bytes]]] = [(str(place), []) for place in range(65_600)]
    with zipfile.ZipFile(io.BytesIO(archive_of(members))) as archive:
        assert len(archive.namelist()) == 65_600


def test_a_member_beyond_32_bits_has_its_sizes_in_64() -> None:
    big = Deflated((), 0, 5 << 30, "")
    stream = ZipStream(NOW)
    content = b"".join([*stream.ready_member("big", big), *stream.end()])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.getinfo("big").file_size == 5 << 30
