"""The streaming ZIP reader against zipfile, hand-made ZIPs, damage, truncation and noise."""

import contextlib
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tciafs.archives import unzip
from tciafs.archives.unzip import Event, Limits, MemberData, MemberEnd, MemberStart, Unzipper
from tciafs.errors import UnreadableAnswer

MIB = 1 << 20
SLICE = bytes(range(256)) * 40 + bytes(5000)

Contents = list[tuple[str, bytes]]


@pytest.fixture(params=["fast", "zlib"], autouse=True, scope="module")
def _inflater(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run everything with isal, and with the zlib that replaces it where it is missing."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "zlib":
            patch.setattr(unzip, "deflate", zlib)
        yield


# A ZIP as java.util.zip.ZipOutputStream lays it out, with a knob for each thing that can differ.


@dataclass(frozen=True)
class Made:
    """One member; None for a field in the headers means the truth."""

    name: bytes = b"1-1.dcm"
    contents: bytes = SLICE
    flags: int = 0x0008
    method: int = 8
    data: bytes | None = None
    extra: bytes = b""
    signed: bool = True
    wide: bool = False
    crc32: int | None = None
    size: int | None = None
    suffix: bytes = b""
    central_name: bytes | None = None

    def packed(self) -> bytes:
        if self.data is not None:
            return self.data
        return deflated(self.contents) if self.method == 8 else self.contents

    def truth(self) -> tuple[int, int, int]:
        crc32 = zlib.crc32(self.contents) if self.crc32 is None else self.crc32
        return crc32, len(self.packed()), len(self.contents) if self.size is None else self.size

    def local(self) -> bytes:
        sizes = (0, 0, 0) if self.flags & 8 else self.truth()
        lengths = len(self.name), len(self.extra)
        return (
            b"PK\x03\x04"
            + struct.pack("<HHHLLLLHH", 20, self.flags, self.method, 0x5A21, *sizes, *lengths)
            + self.name
            + self.extra
            + self.packed()
            + (self.descriptor() if self.flags & 8 else b"")
            + self.suffix
        )

    def descriptor(self) -> bytes:
        signature = b"PK\x07\x08" if self.signed else b""
        return signature + struct.pack("<LQQ" if self.wide else "<LLL", *self.truth())

    def central(self, offset: int) -> bytes:
        name = self.name if self.central_name is None else self.central_name
        fields = 20, 20, self.flags, self.method, 0x5A21, *self.truth(), len(name), 0, 0, 0, 0, 0
        return b"PK\x01\x02" + struct.pack("<HHHHLLLLHHHHHLL", *fields, offset) + name


def deflated(contents: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return deflater.compress(contents) + deflater.flush()


def made_zip(*members: Made, comment: bytes = b"", zip64: bool = False) -> bytes:
    out, central = bytearray(), bytearray()
    for member in members:
        central += member.central(len(out))
        out += member.local()
    numbers = len(members), len(members), len(central), len(out)
    ends = b""
    if zip64:
        ends = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, *numbers)
        ends += b"PK\x06\x07" + struct.pack("<LQL", 0, len(out) + len(central), 1)
        numbers = 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, *numbers, len(comment))
    return bytes(out + central + ends + end + comment)


# Reading, with the promises of the event sequence checked on the way.


def events_of(data: bytes, pieces: list[int], limits: Limits | None = None) -> Iterator[Event]:
    unzipper = Unzipper(limits)
    position = 0
    for size in [*pieces, len(data)]:
        yield from unzipper.feed(data[position : position + size])
        position += size
    unzipper.close()


def contents_of(data: bytes, pieces: list[int] | None = None, limits: Limits | None = None) -> Contents:
    """Return the members; raises UnreadableAnswer, and AssertionError for a broken sequence."""
    members: Contents = []
    start: MemberStart | None = None
    inside = bytearray()
    for event in events_of(data, pieces or [], limits):
        if isinstance(event, MemberStart):
            assert start is None
            start, inside = event, bytearray()
        elif isinstance(event, MemberData):
            assert start is not None
            assert type(event.data) is bytes
            assert 0 < len(event.data) <= MIB
            inside += event.data
        else:
            assert start is not None
            assert event == MemberEnd(len(inside), zlib.crc32(inside))
            assert start.size_bytes in (None, len(inside))
            members.append((start.name, bytes(inside)))
            start = None
    assert start is None
    return members


def refusal_of(data: bytes, limits: Limits | None = None) -> str:
    """Return the sentence with which a ZIP is refused, the same for big pieces and single bytes."""
    with pytest.raises(UnreadableAnswer) as whole:
        contents_of(data, limits=limits)
    with pytest.raises(UnreadableAnswer):
        contents_of(data, [1] * min(len(data), 3000), limits)
    return str(whole.value)


# zipfile as the oracle.


class Unseekable(io.RawIOBase):
    """A socket, as far as zipfile can tell."""

    def __init__(self) -> None:
        self.sent = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.sent += memoryview(data)  # type: ignore[arg-type]
        return len(memoryview(data))  # type: ignore[arg-type]


def zipfile_zip(
    members: list[tuple[str, bytes, int, bool]], *, seekable: bool, comment: bytes = b""
) -> bytes:
    target = io.BytesIO() if seekable else Unseekable()
    with zipfile.ZipFile(target, "w") as archive:
        archive.comment = comment
        for name, contents, method, force_zip64 in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=force_zip64) as member:
                member.write(contents)
    return target.getvalue() if isinstance(target, io.BytesIO) else bytes(target.sent)


member_names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/\\"),
    min_size=1,
    max_size=20,
)
member_contents = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda piece, times: piece * times, st.binary(max_size=20), st.integers(0, 4000)),
    st.builds(
        lambda seed, size: random.Random(seed).randbytes(size),
        st.integers(0, 99),
        st.integers(0, 90_000),
    ),
)
# zipfile itself is confused by the signature of the end in a comment.
comments = st.binary(max_size=9).map(lambda comment: comment.replace(b"P", b"p"))
piece_sizes = st.one_of(
    st.lists(st.integers(1, 40), max_size=200), st.lists(st.integers(1, 70_000), max_size=20)
)


@st.composite
def zipfile_zips(draw: st.DrawFn, contents: st.SearchStrategy[bytes] = member_contents) -> bytes:
    seekable = draw(st.booleans())
    methods = [zipfile.ZIP_DEFLATED] + [zipfile.ZIP_STORED] * seekable
    members = st.tuples(member_names, contents, st.sampled_from(methods), st.booleans())
    drawn = draw(st.lists(members, max_size=5, unique_by=lambda member: member[0]))
    return zipfile_zip(drawn, seekable=seekable, comment=draw(comments))


def oracle(data: bytes) -> Contents:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


# A busy machine is no failure, and a test that fails today fails tomorrow.
steady = settings(deadline=None, derandomize=True)


@steady
@given(zipfile_zips(), piece_sizes)
def test_names_and_bytes_are_those_of_zipfile_however_the_input_is_cut(
    data: bytes, pieces: list[int]
) -> None:
    assert contents_of(data, pieces) == oracle(data)


@settings(steady, max_examples=25)
@given(zipfile_zips(st.binary(max_size=60)))
def test_every_truncation_is_noticed(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(UnreadableAnswer):
            contents_of(data[:length])


@settings(steady, max_examples=200)
@given(zipfile_zips(st.binary(max_size=400)), st.data())
def test_a_changed_byte_is_noticed_or_changes_nothing(data: bytes, choice: st.DataObject) -> None:
    for _ in range(20):
        position = choice.draw(st.integers(0, len(data) - 1))
        changed = bytearray(data)
        changed[position] ^= choice.draw(st.integers(1, 255))
        try:
            found = contents_of(bytes(changed))
        except UnreadableAnswer:
            continue
        assert found == oracle(data)


def test_each_bit_of_a_java_zip_matters_or_changes_nothing() -> None:
    members = (
        Made(contents=b"a" * 90),
        Made(name="é.dcm".encode(), flags=0x0808, contents=b"xyz" * 9),
    )
    data = made_zip(*members)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = contents_of(bytes(changed))
        except UnreadableAnswer:
            continue
        assert found == [("1-1.dcm", b"a" * 90), ("é.dcm", b"xyz" * 9)]


@steady
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06"]),
            st.builds(Made.local, st.builds(Made, contents=st.binary(max_size=50))),
            st.builds(made_zip, st.builds(Made, name=st.binary(max_size=9))),
        ),
        max_size=6,
    ).map(b"".join),
    piece_sizes,
)
def test_noise_raises_nothing_but_an_unreadable_answer(data: bytes, pieces: list[int]) -> None:
    with contextlib.suppress(UnreadableAnswer):
        contents_of(data, pieces)


@steady
@given(st.binary(max_size=3000), piece_sizes)
def test_noise_as_deflated_data_ends_in_an_unreadable_answer(noise: bytes, pieces: list[int]) -> None:
    with pytest.raises(UnreadableAnswer):
        contents_of(made_zip(Made(data=noise, contents=b"as it was")), pieces)


# What java writes, and what it may write.


def test_a_java_zip_gives_its_members_in_order() -> None:
    data = made_zip(Made(b"LICENSE", b"License\n"), Made(b"1-1.dcm"), Made(b"1-2.dcm", b""))
    unzipper = Unzipper()
    events = [event for event in unzipper.feed(data) if not isinstance(event, MemberData)]
    unzipper.close()
    assert events == [
        MemberStart("LICENSE", None),
        MemberEnd(8, zlib.crc32(b"License\n")),
        MemberStart("1-1.dcm", None),
        MemberEnd(len(SLICE), zlib.crc32(SLICE)),
        MemberStart("1-2.dcm", None),
        MemberEnd(0, 0),
    ]


def test_a_member_ends_as_soon_as_the_next_record_begins() -> None:
    first = Made(b"1-1.dcm").local()
    unzipper = Unzipper()
    events = list(unzipper.feed(first + b"PK\x03\x04"))
    assert events[-1] == MemberEnd(len(SLICE), zlib.crc32(SLICE))


def test_a_zip_of_nothing_is_valid() -> None:
    assert contents_of(made_zip()) == []
    assert contents_of(made_zip(zip64=True)) == []


@pytest.mark.parametrize("contents", [SLICE, b"", b"a"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_all_forms_of_descriptor_are_read(contents: bytes, wide: bool, signed: bool) -> None:
    member = Made(contents=contents, wide=wide, signed=signed)
    data = made_zip(member, replace(member, name=b"1-2.dcm"), zip64=wide)
    expected = [("1-1.dcm", contents), ("1-2.dcm", contents)]
    assert contents_of(data) == expected
    assert contents_of(data, [1] * len(data)) == expected


def bytes_with_crc32(crc32: int) -> bytes:
    """Return four bytes with this CRC-32: the function is affine in them, so solve bit by bit."""
    zero = zlib.crc32(bytes(4))
    basis: dict[int, tuple[int, int]] = {}
    for bit in range(32):
        image, source = zlib.crc32((1 << bit).to_bytes(4, "little")) ^ zero, 1 << bit
        while image and image.bit_length() in basis:
            known_image, known_source = basis[image.bit_length()]
            image, source = image ^ known_image, source ^ known_source
        basis[image.bit_length()] = image, source
    rest, solution = crc32 ^ zero, 0
    while rest:
        image, source = basis[rest.bit_length()]
        rest, solution = rest ^ image, solution ^ source
    return solution.to_bytes(4, "little")


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_a_checksum_that_looks_like_the_signature_confuses_nobody(wide: bool, signed: bool) -> None:
    contents = bytes_with_crc32(0x08074B50)
    assert struct.pack("<L", zlib.crc32(contents)) == b"PK\x07\x08"
    data = made_zip(Made(contents=contents, wide=wide, signed=signed))
    assert contents_of(data) == [("1-1.dcm", contents)]


def test_names_are_utf8_where_the_flag_says_so_and_otherwise_cp437() -> None:
    raw = "é.dcm".encode()
    assert contents_of(made_zip(Made(raw, b"", flags=0x0808))) == [("é.dcm", b"")]
    assert contents_of(made_zip(Made(raw, b"", flags=0x0008))) == [(raw.decode("cp437"), b"")]
    assert "UTF-8" in refusal_of(made_zip(Made(b"\xe9.dcm", b"", flags=0x0808)))


def test_a_size_in_the_header_is_announced() -> None:
    data = made_zip(Made(flags=0), Made(b"1-2.dcm", method=0, flags=0))
    starts = [event for event in events_of(data, []) if isinstance(event, MemberStart)]
    assert starts == [MemberStart("1-1.dcm", len(SLICE)), MemberStart("1-2.dcm", len(SLICE))]


def test_sizes_may_stand_in_a_zip64_field() -> None:
    data = zipfile_zip([("1-1.dcm", SLICE, zipfile.ZIP_STORED, True)], seekable=True)
    starts = [event for event in events_of(data, []) if isinstance(event, MemberStart)]
    assert starts == [MemberStart("1-1.dcm", len(SLICE))]


@pytest.mark.parametrize("extra", [b"\1", b"\1\0\xff\xff", b"\1\0\x03\0abc", b"UT\x05\0\1aaaa"])
def test_odd_extra_fields_are_left_alone(extra: bytes) -> None:
    assert contents_of(made_zip(Made(extra=extra))) == [("1-1.dcm", SLICE)]


def test_a_zip_in_a_zip_is_only_data() -> None:
    inner = made_zip(Made(), Made(b"1-2.dcm"))
    for member in Made(b"a.zip", inner), Made(b"a.zip", inner, method=0, flags=0):
        assert contents_of(made_zip(member)) == [("a.zip", inner)]


def test_folders_give_no_events_and_may_not_have_contents() -> None:
    for flags, method in (0, 0), (8, 0), (8, 8):
        folder = Made(b"d/", b"", flags=flags, method=method)
        assert contents_of(made_zip(folder, Made())) == [("1-1.dcm", SLICE)]
        assert "folder" in refusal_of(made_zip(Made(b"d/", b"x")))


def test_a_comment_is_skipped() -> None:
    assert contents_of(made_zip(Made(), comment=b"PK\x05\x06")) == [("1-1.dcm", SLICE)]


def test_many_members_need_zip64_in_the_end_record() -> None:
    names = [f"{number}".encode() for number in range(0x10000)]
    data = made_zip(*(Made(name, b"", method=0, flags=0) for name in names), zip64=True)
    assert len(contents_of(data)) == 0x10000


def test_a_buffer_may_be_used_again_once_its_events_are_taken() -> None:
    data = made_zip(Made(), Made(b"1-2.dcm"))
    buffer = bytearray(37)
    unzipper = Unzipper()
    ends = []
    for position in range(0, len(data), len(buffer)):
        piece = data[position : position + len(buffer)]
        buffer[: len(piece)] = piece
        events = unzipper.feed(memoryview(buffer)[: len(piece)])
        ends += [event for event in events if isinstance(event, MemberEnd)]
    unzipper.close()
    assert len(ends) == 2
    buffer.append(0)  # a BufferError if the unzipper still held on to it


def test_events_that_were_not_taken_come_with_the_next_piece() -> None:
    data = made_zip(Made())
    unzipper = Unzipper()
    events = [next(unzipper.feed(data[:-30]))]
    events += unzipper.feed(data[-30:])
    unzipper.close()
    assert events == list(events_of(data, []))


def test_output_comes_in_bounded_pieces_however_much_a_piece_inflates_to() -> None:
    contents = bytes(5 * MIB)
    assert contents_of(made_zip(Made(contents=contents))) == [("1-1.dcm", contents)]
    packed = deflated(contents)
    for tail in range(1, 12):
        data = made_zip(Made(data=packed, contents=contents))
        assert contents_of(data, [37 + len(packed) - tail, tail]) == [("1-1.dcm", contents)]


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 2 * MIB])
@pytest.mark.parametrize("around", range(-9, 25))
def test_the_end_of_a_member_is_found_beside_any_border_of_pieces(size: int, around: int) -> None:
    member = Made(contents=bytes(size))
    header_bytes = 30 + len(member.name)
    pieces = [header_bytes + len(member.packed()) + around]
    assert contents_of(made_zip(member), pieces) == [("1-1.dcm", bytes(size))]


# What is refused.


def listing_only_the_first(first: Made, second: Made) -> bytes:
    members, central = first.local() + second.local(), first.central(0)
    numbers = 1, 1, len(central), len(members)
    return members + central + b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, *numbers, 0)


REFUSED = {
    "not a ZIP": b"<html>Scheduled maintenance</html>",
    "two members named '1-1.dcm'": made_zip(Made(), Made()),
    "encrypted": made_zip(Made(flags=0x0009)),
    "by method 12": made_zip(Made(method=12)),
    "size unknown": made_zip(Made(method=0)),
    "its checksum or sizes": made_zip(Made(method=0, flags=0, size=7)),
    "0 bytes long": made_zip(Made(name=b"")),
    "256 bytes long": made_zip(Made(name=b"x" * 256)),
    "NUL": made_zip(Made(name=b"a\0b")),
    "belong to nothing": made_zip(Made(suffix=b"garbage")),
    "belong to nothing follow '1-2": made_zip(Made(), Made(b"1-2", flags=0, suffix=b"garbage")),
    "disagrees with its checksum": made_zip(Made(crc32=1)),
    "'1-1.dcm' in the ZIP disagrees": made_zip(Made(flags=0, crc32=1)),
    "disagrees with its checksum or sizes": made_zip(Made(size=1)),
    "checksum or sizes": made_zip(Made(flags=0, size=len(SLICE) - 1)),
    "or sizes": made_zip(Made(flags=0, size=len(SLICE) + 1)),
    "'1-1.dcm' in the ZIP is damaged": made_zip(Made(data=b"\xff" * 20)),
    "disagrees about '2-2.dcm'": made_zip(Made(central_name=b"2-2.dcm")),
    "leaves out '1-2.dcm'": listing_only_the_first(Made(), Made(b"1-2.dcm")),
    "Bytes follow the end": made_zip(Made()) + b"\0",
    "several disks": made_zip()[:4] + b"\1" + made_zip()[5:],
    "in its list of contents": made_zip(Made())[:-22] + b"PK\x05\x05" + bytes(18),
    "disagrees with its contents": made_zip(Made(), comment=b"")[:-6] + bytes(6),
    "ZIP64 end": made_zip(Made(), zip64=True).replace(b"PK\x06\x07", b"PK\x06\x08"),
    "ended early, in '1-1.dcm'": made_zip(Made())[:100],
    "ended early, in the list of contents": made_zip(Made())[:-10],
    "ended early, before its first member": b"",
}


@pytest.mark.parametrize("words", REFUSED)
def test_each_kind_of_bad_zip_has_its_sentence(words: str) -> None:
    # The name leaves quoting to repr, so that no control character reaches a terminal.
    assert words in refusal_of(REFUSED[words])


def test_an_offset_that_points_elsewhere_is_an_overlap_and_refused() -> None:
    first, second = Made(), Made(b"1-2.dcm")
    members = first.local() + second.local()
    central = first.central(0) + second.central(0)
    end = struct.pack("<HHHHLLH", 0, 0, 2, 2, len(central), len(members), 0)
    assert "disagrees about '1-2.dcm'" in refusal_of(members + central + b"PK\x05\x06" + end)


def test_after_a_refusal_every_call_refuses() -> None:
    unzipper = Unzipper()
    with pytest.raises(UnreadableAnswer, match="not a ZIP"):
        list(unzipper.feed(b"<html>"))
    with pytest.raises(UnreadableAnswer, match="not a ZIP"):
        list(unzipper.feed(made_zip(Made())))
    with pytest.raises(UnreadableAnswer, match="not a ZIP"):
        unzipper.close()


def test_closing_twice_gives_the_same_answer() -> None:
    good, short = Unzipper(), Unzipper()
    list(good.feed(made_zip(Made())))
    list(short.feed(made_zip(Made())[:-1]))
    for _ in range(2):
        good.close()
        with pytest.raises(UnreadableAnswer, match="ended early"):
            short.close()


# Limits.

ROOMY = Limits()
BLACK = bytes(3 * MIB)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (replace(ROOMY, max_members=1), "more than 1 members"),
        (replace(ROOMY, max_name_bytes=6), "7 bytes long, not 1 to 6"),
        (replace(ROOMY, max_member_bytes=len(BLACK) - 1), f"more than {len(BLACK) - 1} bytes"),
        (
            replace(ROOMY, max_total_bytes=2 * len(BLACK) - 1),
            f"The ZIP inflates to more than {2 * len(BLACK) - 1} bytes",
        ),
        (replace(ROOMY, max_ratio=900, ratio_grace_bytes=2 * MIB), "The ZIP inflates to more than"),
    ],
)
def test_limits_are_kept(limits: Limits, words: str) -> None:
    assert words in refusal_of(made_zip(Made(contents=BLACK), Made(b"1-2.dcm", BLACK)), limits)


def test_a_size_in_the_header_is_refused_before_its_member_starts() -> None:
    data = made_zip(Made(flags=0, method=0))
    with pytest.raises(UnreadableAnswer, match="more than 9 bytes"):
        next(events_of(data, [], Limits(max_member_bytes=9)))


def test_black_images_are_no_bomb() -> None:
    size_bytes = 80 * MIB
    data = made_zip(Made(contents=bytes(size_bytes)))
    assert len(data) * 900 < size_bytes
    ends = [
        event
        for event in events_of(data, [], Limits.for_series(1, size_bytes))
        if isinstance(event, MemberEnd)
    ]
    assert [end.size_bytes for end in ends] == [size_bytes]


def test_a_bomb_is_stopped_near_what_the_series_should_be() -> None:
    data = made_zip(Made(contents=bytes(80 * MIB)))
    events = events_of(data, [], Limits.for_series(1, 1000))
    assert isinstance(next(events), MemberStart)
    for _ in range(64):
        assert isinstance(next(events), MemberData)
    with pytest.raises(UnreadableAnswer, match="inflates to more than"):
        next(events)


def test_the_limits_of_a_series_follow_what_the_archive_says_of_it() -> None:
    assert Limits.for_series(None, None) == Limits()
    assert Limits.for_series(10, None).max_members == 1020
    assert Limits.for_series(None, 10).max_members == Limits().max_members
    assert Limits.for_series(None, 10 * MIB).max_total_bytes == 276 * MIB


def test_data_that_never_becomes_output_does_not_go_on_for_ever() -> None:
    limits = Limits(max_members=1, max_total_bytes=1000)
    header, empty_block = Made().local()[:37], b"\0\0\0\xff\xff"
    endless = empty_block * (limits.max_wire_bytes // len(empty_block))
    assert "ended early, in '1-1.dcm'" in refusal_of(header + endless[: -len(header)], limits)
    assert "longer than anything" in refusal_of(header + endless, limits)
