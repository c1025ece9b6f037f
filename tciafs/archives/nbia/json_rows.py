"""A JSON array of objects that arrives in pieces -> typed rows, as soon as they are complete.

Defined here and only here: where such an array may be cut, and how much of it is kept. No byte is looked at
in Python: it is cut at something that looks like the end of a row, and its decoding proves that it was one.
JSON is read from left to right, so if `[` + what comes before a cut + `]` is an array, the cut is between two
of its elements: inside a text the text would not end, inside a row the row would not.

Rows may hold anything else than what their type asks for; what columns mean is not known here. No I/O.
"""

import functools
import re
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from tciafs.errors import UnreadableAnswer

__all__ = ["RowDecoder"]

Row = TypeVar("Row", bound=msgspec.Struct)

_UTF8_MARK = b"\xef\xbb\xbf"

# Behind the end of a row comes another, or null. Behind an object in a row comes a column's name, and inside
# a text a quotation mark has a backslash before it: few other places look like this.
_ROW_END = re.compile(rb'\}(?P<between>[ \t\r\n]*,[ \t\r\n]*)(?=\{[ \t\r\n]*"|null)')

_BLOCK_BYTES = 64 << 10
_WINDOW_BYTES = 4 << 10
_CUTS_TRIED = 4
_LIMIT_BYTES = 16 << 20


class RowDecoder(Generic[Row]):
    """Decodes one body; `feed` it pieces of any size, then `finish`: both return rows that are not empty.

    Both raise UnreadableAnswer for what is no listing. A body that is no array (one row, `null`, a web page)
    is kept until its end, and so is a single row: of either, `limit_bytes` at most.
    """

    def __init__(self, row_type: type[Row], limit_bytes: int = _LIMIT_BYTES) -> None:
        self._row_type = row_type
        self._nothing = row_type()
        self._decoder = _decoder(row_type)
        self._limit_bytes = limit_bytes
        self._kept = bytearray()  # from "[" on, or all of what is no array
        self._may_be_marked = True
        self._enough_bytes = _BLOCK_BYTES

    def feed(self, piece: bytes) -> list[Row]:
        """Return the rows that are complete with `piece`; often none, then many together."""
        self._kept += piece
        if self._may_be_marked or not self._is_array:
            self._skip_to_the_first_byte()
        rows: list[Row] = []
        if self._is_array and len(self._kept) >= self._enough_bytes:
            rows = self._cut()
        if len(self._kept) > self._limit_bytes:
            self._refuse(f"more than {self._limit_bytes} bytes without the end of a row")
        return rows

    def finish(self) -> list[Row]:
        """Return the rows that are left: of an array, of a single object, or of no body at all."""
        body = bytes(self._kept.strip())
        self._kept.clear()
        if body in (b"", b"null"):
            return []
        try:
            rows = self._decoder.decode(body)
            if isinstance(rows, self._row_type):
                if rows == self._nothing and msgspec.json.decode(body) != {}:
                    raise UnreadableAnswer("the archive sent an object that is no row instead of a listing")
                rows = [rows]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._refuse(str(error), body, error)
        return self._without_empty(rows)

    @property
    def _is_array(self) -> bool:
        return self._kept.startswith(b"[")

    def _skip_to_the_first_byte(self) -> None:
        if self._may_be_marked:
            if len(self._kept) < len(_UTF8_MARK) and _UTF8_MARK.startswith(self._kept):
                return
            self._kept = self._kept.removeprefix(_UTF8_MARK)
            self._may_be_marked = False
        if self._kept[:1].isspace():
            self._kept = self._kept.lstrip()

    def _cut(self) -> list[Row]:
        """Return the rows up to the last end of one that can be found, and keep what is behind it.

        It is tried again when there is twice as much as was looked at in vain, so that no body, whatever is
        in it, costs more than some multiple of its length.
        """
        for row_end, next_row in self._row_ends():
            try:
                rows = self._decoder.decode(bytes(self._kept[:row_end]) + b"]")
            except (msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
                self._refuse(str(error), cause=error)  # wherever it is cut
            except msgspec.DecodeError:
                continue
            del self._kept[1:next_row]
            self._enough_bytes = max(_BLOCK_BYTES, 2 * len(self._kept))
            return self._without_empty(rows)
        self._enough_bytes = 2 * len(self._kept)
        return []

    def _row_ends(self) -> list[tuple[int, int]]:
        """Return where rows seem to end and the next ones begin, for the last few, the last one first."""
        found: list[tuple[int, int]] = []
        window_bytes = _WINDOW_BYTES
        while len(found) < _CUTS_TRIED and window_bytes < 4 * len(self._kept):
            start = max(0, len(self._kept) - window_bytes)
            found = [match.span("between") for match in _ROW_END.finditer(self._kept, start)]
            window_bytes *= 4
        return found[: -_CUTS_TRIED - 1 : -1]

    def _without_empty(self, rows: list[Row | None]) -> list[Row]:
        return [row for row in rows if row is not None and row != self._nothing]

    def _refuse(self, why: str, body: bytes | None = None, cause: Exception | None = None) -> NoReturn:
        start = bytes(self._kept[:1]) if body is None else body
        seen = "a web page" if start.startswith(b"<") else f"something else ({why})"
        raise UnreadableAnswer(f"the archive sent {seen} instead of the JSON of a listing") from cause


@functools.cache
def _decoder(row_type: type[msgspec.Struct]) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(list[row_type | None] | row_type)  # type: ignore[valid-type]
