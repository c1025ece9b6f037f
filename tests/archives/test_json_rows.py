"""Rows out of arrays that come in pieces: any cut gives what the whole would, and no body costs too much."""

import itertools
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tciafs.archives.nbia import json_rows
from tciafs.archives.nbia.json_rows import RowDecoder
from tciafs.errors import UnreadableAnswer


class Row(msgspec.Struct, frozen=True):
    name: Any = None
    size: Any = None


MARK = b"\xef\xbb\xbf"
TRICKY = ["},{", '"},{"', "\\", '\\"},{\\"', "[{", "]", "}]", "\u65e5\u672c", "\U0001f9e0", "\0", "},null"]
TEXTS = st.text() | st.lists(st.sampled_from(TRICKY)).map("".join)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=6,
)
ROWS = st.dictionaries(st.sampled_from(["name", "size", "other"]) | TEXTS, ANYTHING, max_size=4)
LISTINGS = st.lists(st.none() | ROWS, max_size=12)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n\t", ":\n")])


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_BLOCK_BYTES", 16)
    monkeypatch.setattr(json_rows, "_WINDOW_BYTES", 8)


small_blocks = pytest.mark.usefixtures("_small_blocks")


def decoded(pieces: Iterable[bytes], limit_bytes: int = 1 << 20) -> list[Row]:
    decoder = RowDecoder(Row, limit_bytes)
    rows = [row for piece in pieces for row in decoder.feed(piece)]
    return rows + decoder.finish()


def cut(body: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    """Yield the body in pieces of these sizes, again and again."""
    start = 0
    for size in itertools.cycle(sizes):
        yield body[start : start + size]
        start += size
        if start >= len(body):
            return


def outcome(pieces: Iterable[bytes]) -> list[Row] | None:
    """Return the rows, None where the body is unreadable."""
    try:
        return decoded(pieces)
    except UnreadableAnswer:
        return None


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=10)


@small_blocks
@given(LISTINGS, SEPARATORS, st.booleans(), SIZES)
def test_rows_are_the_same_however_their_array_is_cut(
    listing: list[dict[str, Any] | None], separators: tuple[str, str], ascii_only: bool, sizes: list[int]
) -> None:
    body = json.dumps(listing, separators=separators, ensure_ascii=ascii_only).encode(errors="replace")
    expected = [
        Row(row.get("name"), row.get("size"))
        for row in msgspec.json.decode(body, type=list[dict[str, Any] | None])
        if row and (row.get("name"), row.get("size")) != (None, None)
    ]
    assert decoded([body]) == expected
    assert decoded(cut(body, sizes)) == expected
    assert decoded(cut(MARK + b" \n" + body + b"\r\n", sizes)) == expected


FRAGMENTS = st.lists(
    st.sampled_from([b"[", b"]", b"{", b"}", b",", b"},{", b'"', b"\\", b" ", b"null", b"7", b"\xff", MARK])
    | st.sampled_from([b'{"name":1}', b'{"name":1},', b'{"name":{"a":2}},', b'{"a":[{},{"a":1}]},', b"{},"]),
    max_size=30,
).map(b"".join)


@small_blocks
@given(FRAGMENTS | st.binary(), SIZES)
@example(b'[{"name":1},{"name":1},{"name":1},]', [1])
@example(b'[{"name":1},{"name":1}] [{"name":1},{"name":1}]', [1])
@example(b'[{"name":1},{"name":1},7]', [1])
@example(b"  " + MARK + b"[]", [1])
def test_what_is_refused_is_refused_however_it_is_cut(body: bytes, sizes: list[int]) -> None:
    assert outcome(cut(body, sizes)) == outcome([body])
    assert outcome([body]) == outcome_at_once(body)


def outcome_at_once(body: bytes) -> list[Row] | None:
    """Return what the rule says of a body that is not cut, None where it is unreadable."""
    body = body.removeprefix(MARK).strip()
    if body in (b"", b"null"):
        return []
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        rows = msgspec.json.decode(body, type=list[Row | None] | Row)
        if rows == Row() and msgspec.json.decode(body) != {}:
            return None
        return [row for row in (rows if isinstance(rows, list) else [rows]) if row not in (None, Row())]
    return None


def test_rows_come_while_the_rest_is_still_to_come() -> None:
    decoder = RowDecoder(Row)
    row = json.dumps({"name": "x" * 50}).encode()
    count = sum(len(decoder.feed(piece)) for piece in [b"[", *[row + b", "] * 10_000])
    assert count > 9_000
    with pytest.raises(UnreadableAnswer, match="something else"):
        decoder.finish()  # the array has not ended


def test_a_row_is_given_once() -> None:
    body = json.dumps([{"name": number} for number in range(50_000)]).encode()
    assert [row.name for row in decoded(cut(body, [4096]))] == list(range(50_000))


def test_memory_is_that_of_a_block_whatever_the_length() -> None:
    piece = b",".join([json.dumps({"name": '},{"' * 20 + "},{", "size": {"a": {}}}).encode()] * 50) + b","
    decoder = RowDecoder(Row)
    decoder.feed(b"[")
    for _ in range(500):
        decoder.feed(piece)
        assert len(decoder._kept) <= 2 * json_rows._BLOCK_BYTES


@pytest.mark.parametrize(
    ("start", "piece", "said"),
    [
        (b"<html>", b"x" * 100, "a web page"),
        (b'{"name": 1', b" " * 100, "more than 1000 bytes"),
        (b"[", b'[{},{"a":1},{"a":1},' * 5, "something else"),
        (b"[", b"null," * 20, "more than 1000 bytes"),
        (b'[{"name": "', b"},null" * 20, "more than 1000 bytes"),
        (b"[{}] ", b"{},null,", "more than 1000 bytes"),
    ],
)
@small_blocks
def test_what_never_becomes_a_row_is_not_kept_for_ever(start: bytes, piece: bytes, said: str) -> None:
    with pytest.raises(UnreadableAnswer, match=said):
        decoded(itertools.chain([start], itertools.repeat(piece)), 1000)


def test_leading_blanks_are_not_kept() -> None:
    decoder = RowDecoder(Row, 1000)
    for _ in range(1000):
        decoder.feed(b" \n" * 100)
    assert decoder.feed(b'[{"name": 1}]') + decoder.finish() == [Row(1)]


@pytest.mark.parametrize(
    "endless",
    [
        b'{"other":"},{","a":"},null',
        b'{"name":[{"a":1},{"a":2},{"a":3},{"a":4},{"a":5},{"a',
        b'{"name":"',
        b"{},null,{},7,",
        b']{"a":1},{"a":1}',
        b"}" * 9,
        b"} " * 9,
    ],
)
def test_no_body_is_decoded_more_often_than_its_length_allows(
    endless: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    inner = msgspec.json.Decoder(list[Row | None] | Row)

    class Counting:
        def decode(self, body: bytes) -> Any:
            looked_at.append(len(body))
            return inner.decode(body)

    monkeypatch.setattr(json_rows, "_decoder", lambda row_type: Counting())
    body = b"[" + b'{"name": 1},' * 20_000 + endless * (1_000_000 // len(endless))
    with pytest.raises(UnreadableAnswer):
        decoded(cut(body, [700]))
    assert sum(looked_at) < 12 * len(body)
