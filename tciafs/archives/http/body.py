"""A listing's body as it comes: inflated if the server compressed it, in small pieces, and bounded.

The bound holds while inflating too, so that a small body cannot grow past it. No I/O in here.
"""

import zlib
from collections.abc import Iterator

from tciafs.errors import UnreadableAnswer

__all__ = ["PIECE_BYTES", "Inflater"]

PIECE_BYTES = 64 << 10
"""As much as can be decoded before others must have their turn."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Inflater:
    """Inflates one body: `inflate` the pieces as they come, then `finish`."""

    def __init__(self, encoding: str, limit_bytes: int) -> None:
        """Prepare for a Content-Encoding; raises UnreadableAnswer for one that was not asked for.

        RFC 9110 section 8.4.1: a server may call gzip "x-gzip", and mean zlib by "deflate".
        """
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise UnreadableAnswer(f"the answer is compressed by {encoding!r}, not by gzip")
        self._inflater = None if encoding in ("", "identity") else zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
        self._has_begun = False
        self._limit_bytes = limit_bytes
        self._room_bytes = limit_bytes

    def inflate(self, sent: bytes) -> Iterator[bytes]:
        """Yield what a piece holds, in pieces of 1 to PIECE_BYTES; all must be taken.

        Raises UnreadableAnswer where it cannot be inflated, or where the body passes its limit.
        """
        for start in range(0, len(sent), PIECE_BYTES):
            taken = sent[start : start + PIECE_BYTES]
            for piece in (taken,) if self._inflater is None else self._inflated(self._inflater, taken):
                self._room_bytes -= len(piece)
                if self._room_bytes < 0:
                    raise UnreadableAnswer(f"more than {self._limit_bytes} bytes")
                yield piece

    def _inflated(self, inflater: "zlib._Decompress", sent: bytes) -> Iterator[bytes]:
        self._has_begun = True
        while sent:
            if inflater.eof:
                raise UnreadableAnswer("the compressed answer ended too late")
            try:
                piece = inflater.decompress(sent, PIECE_BYTES)
            except zlib.error as error:
                raise UnreadableAnswer(f"the answer is compressed wrongly: {error}") from error
            if piece:
                yield piece
            sent = inflater.unconsumed_tail or inflater.unused_data

    def finish(self) -> None:
        """Raise UnreadableAnswer where the compressed body ended early.

        A body without any bytes is empty however it was said to be compressed.
        """
        if self._inflater is not None and self._has_begun and not self._inflater.eof:
            raise UnreadableAnswer("the compressed answer ended early")
