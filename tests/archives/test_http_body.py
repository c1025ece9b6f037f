"""Bodies inflated as they come: the same however they are cut, in small pieces, never beyond their bound."""

import gzip
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.archives.http.body import PIECE_BYTES, Inflater
from tciafs.errors import UnreadableAnswer


def inflated(inflater: Inflater, *sent: bytes) -> bytes:
    pieces = [piece for each in sent for piece in inflater.inflate(each)]
    inflater.finish()
    assert all(1 <= len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


@given(st.binary(max_size=2000), st.integers(1, 100), st.integers(-15, 31), st.integers(0, 3000))
def test_a_body_is_the_same_however_it_is_cut_and_compressed(
    content: bytes, size: int, wbits: int, limit_bytes: int
) -> None:
    is_plain = abs(wbits) < 9 or wbits < 0 or 15 < wbits < 25
    sent = content if is_plain else zlib.compress(content, wbits=wbits)
    inflater = Inflater("" if is_plain else "gzip", limit_bytes)
    pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
    if len(content) <= limit_bytes:
        assert inflated(inflater, *pieces) == content
    else:
        with pytest.raises(UnreadableAnswer, match=f"more than {limit_bytes} bytes"):
            inflated(inflater, *pieces)


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 9 * PIECE_BYTES + 7])
def test_a_body_comes_in_small_pieces_however_much_comes_at_once(encoding: str, size: int) -> None:
    content = bytes(size)
    sent = gzip.compress(content) if encoding else content
    assert inflated(Inflater(encoding, size), sent) == content


@given(st.binary(max_size=200))
def test_bytes_that_are_not_compressed_are_unreadable_or_a_body(sent: bytes) -> None:
    with suppress(UnreadableAnswer):
        assert len(inflated(Inflater("deflate", 100), sent)) <= 100


@pytest.mark.parametrize("encoding", ["", "identity", "gzip", " X-GZIP", "deflate"])
def test_a_body_without_bytes_is_empty_however_it_is_compressed(encoding: str) -> None:
    assert inflated(Inflater(encoding, 100)) == b""
    assert inflated(Inflater(encoding, 100), b"", b"") == b""


@pytest.mark.parametrize("kept", range(1, len(gzip.compress(b""))))
def test_a_compressed_body_that_ends_early_is_unreadable_though_it_says_nothing(kept: int) -> None:
    with pytest.raises(UnreadableAnswer, match="ended early"):
        inflated(Inflater("gzip", 100), gzip.compress(b"")[:kept])


@pytest.mark.parametrize("behind", [b"x", gzip.compress(b"y"), bytes(100)], ids=["text", "gzip", "zeros"])
def test_what_comes_behind_a_compressed_body_is_unreadable(behind: bytes) -> None:
    for sent in [(gzip.compress(b"x") + behind,), (gzip.compress(b"x"), behind)]:
        with pytest.raises(UnreadableAnswer, match="ended too late"):
            inflated(Inflater("gzip", 100), *sent)
