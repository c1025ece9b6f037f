"""A listing's body as it is collected: inflated if the server compressed it, and bounded.

The bound holds while inflating too, so that a small body cannot grow past it. No I/O in here.
"""

import zlib

from tciafs.errors import UnreadableAnswer

__all__ = ["Body"]

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Body:
    """Collects one body; add pieces until it `is_too_long` or they end, then `finish`."""

    def __init__(self, encoding: str, limit_bytes: int) -> None:
        """Prepare for a Content-Encoding; raises UnreadableAnswer for one that was not asked for.

        RFC 9110 section 8.4.1: a server may call gzip "x-gzip", and mean zlib by "deflate".
        """
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise UnreadableAnswer(f"the answer is compressed by {encoding!r}, not by gzip")
        self._inflater = None if encoding in ("", "identity") else zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
        self._limit_bytes = limit_bytes
        self._content = bytearray()

    @property
    def is_too_long(self) -> bool:
        """True once there is more than the limit."""
        return len(self._content) > self._limit_bytes

    def add(self, piece: bytes) -> None:
        """Take the next piece as it was sent; raises UnreadableAnswer where it cannot be."""
        if self.is_too_long or not piece:
            return
        room_bytes = self._limit_bytes + 1 - len(self._content)
        if self._inflater is None:
            self._content += piece[:room_bytes]
            return
        try:
            self._content += self._inflater.decompress(piece, room_bytes)
        except zlib.error as error:
            raise UnreadableAnswer(f"the answer is compressed wrongly: {error}") from error

    def finish(self) -> bytes:
        """Return what was collected; raises UnreadableAnswer where the compressed body ended early.

        A body without any bytes is empty however it was said to be compressed.
        """
        inflater = self._inflater
        if inflater is None or self.is_too_long:
            return bytes(self._content)
        if inflater.unused_data or (self._content and not inflater.eof):
            raise UnreadableAnswer("the compressed answer ended early, or too late")
        return bytes(self._content)
