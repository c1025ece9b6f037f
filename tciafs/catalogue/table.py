"""The table of listings on disk: a diskcache that holds bytes under text keys, and nothing else.

A row is one answer: the records of one parent, and when the archive was asked. It is MessagePack without
field names, and without what the question says already; a long one is deflated. Daemon and workers may have
the table open at once; an instance belongs to the thread that uses it. Defined here and only here: the rows'
form and its version.
"""

import datetime as dt
import hashlib
import logging
import sqlite3
import time
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

import diskcache
import msgspec
from isal import isal_zlib

from tciafs.catalogue.damage import is_marked, remove_mark
from tciafs.catalogue.sums import Sum
from tciafs.errors import Unusable
from tciafs.model import Change, Collection, Patient, Series, Study, Value

__all__ = ["TABLE_ERRORS", "Listing", "Question", "Table", "pack", "said", "unpack"]

log = logging.getLogger(__name__)

DATABASE = "cache.db"
"""What diskcache calls its file; those of SQLite beside it begin with that."""

SCHEMA_VERSION = b"5"
SCHEMA_KEY = "schema"
FACT = "fact"
"""Rows that are no listings have this before their name: what else a catalogue wants to know tomorrow."""

SUM = "sum"
"""The facts that tell what all series of a collection come to."""

LONGEST_KEY = 1024
"""Questions that are longer, since they name a thousand series, lie under a hash of them."""

DEFLATED_BYTES = 512
"""Rows from this length on are deflated: one record alone repeats too little."""

DEFLATED = b"\x78"
"""How what was deflated begins (RFC 1950); no MessagePack of a row does."""

LONGEST_ROW_BYTES = 256 << 20
_NOT_DEFLATED: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # a class, whatever its stubs say

DISK_TIMEOUT_S = 10.0
CACHE_PAGES = 256
"""SQLite's own cache of 1 MiB: diskcache's default is 32 MiB, of which a walk fills every page."""

TABLE_ERRORS = (OSError, sqlite3.Error, diskcache.Timeout, ValueError, msgspec.MsgspecError)
"""What a table raises: ValueError is `_BytesDisk`, or text that is not Unicode."""

WELL_AGAIN = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
"""What SQLite says of a disk or a memory that may be well tomorrow: no reason to throw listings away."""

R = TypeVar("R", Collection, Patient, Study, Series)

Question = tuple[str, ...]
"""What was asked: the kind of the records, then the collection and the patient where they matter."""


MOST_SAID = 5


def said(question: Question) -> str:
    """Return a question for a message."""
    return "/".join(question[:MOST_SAID]) + (" ..." if len(question) > MOST_SAID else "")


@dataclass(frozen=True, slots=True)
class Listing(Generic[R]):
    """What the archive answered, and when it was asked (Unix seconds).

    `is_partial` as in `model.Partial`.
    """

    records: tuple[R, ...]
    asked_at: float
    is_partial: bool = False


# A row


@dataclass(frozen=True, slots=True)
class _Form:
    """How the records of one kind of question lie in a row: those fields that the question does not tell."""

    record: type[Any]
    told: int
    values: Callable[[Any], Any]
    decoder: "msgspec.msgpack.Decoder[Any]"


def _form(record: type[Any], told: int) -> _Form:
    """Return the form of records whose first `told` fields are the rest of the question, in that order."""
    names = record.__struct_fields__[told:]
    hints = typing.get_type_hints(record, {"dt": dt})
    row: Any = tuple.__class_getitem__(tuple(hints[name] for name in names))
    get = attrgetter(*names)
    values = get if len(names) > 1 else lambda each: (get(each),)
    whole = msgspec.defstruct(
        "Row",
        [("asked_at", float), ("records", list[row]), ("is_partial", bool, False)],
        array_like=True,
        gc=False,
    )
    return _Form(record, told, values, msgspec.msgpack.Decoder(whole))


_FORMS = {
    "collections": _form(Collection, 0),
    "patients": _form(Patient, 1),
    "studies": _form(Study, 2),
    "series": _form(Series, 2),
    "named": _form(Series, 0),
    "cart": _form(Series, 0),
    "values": _form(Value, 0),
    "released": _form(Change, 0),
}


def pack(question: Question, listing: Listing[Any]) -> bytes:
    """Return a listing as bytes; equal listings give equal bytes if their records are in one order."""
    values = _FORMS[question[0]].values
    # What is partial says so behind the rest: the others are as long as they always were.
    behind = (True,) if listing.is_partial else ()
    row = msgspec.msgpack.encode((listing.asked_at, [values(record) for record in listing.records], *behind))
    return row if len(row) < DEFLATED_BYTES else isal_zlib.compress(row, 1)


def unpack(question: Question, row: bytes) -> Listing[Any]:
    """Return the listing in a row. Raises msgspec.MsgspecError for bytes of another shape."""
    form = _FORMS[question[0]]
    told = question[1 : 1 + form.told]
    read = form.decoder.decode(_inflated(row) if row.startswith(DEFLATED) else row)
    records = tuple(form.record(*told, *each) for each in read.records)
    # A clock that was ahead for a while must not make an answer young for ever.
    return Listing(records, min(read.asked_at, time.time()), read.is_partial)


def _inflated(row: bytes) -> bytes:
    """Return what was deflated. Raises msgspec.DecodeError, also for what is longer than any answer."""
    inflater = isal_zlib.decompressobj()
    try:
        inflated: bytes = inflater.decompress(row, LONGEST_ROW_BYTES)
    except _NOT_DEFLATED as error:
        raise msgspec.DecodeError(f"a row that cannot be inflated: {error}") from error
    if not inflater.eof:
        raise msgspec.DecodeError("a row that is cut off, or too long")
    return inflated


# The table


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """A diskcache disk that holds bytes under text keys and refuses everything else.

    diskcache unpickles what it finds in its folder (CVE-2025-69872); a cache is data, never code.
    """

    def get(self, key: Any, raw: bool) -> Any:
        if not raw or not isinstance(key, str):
            raise ValueError("the listings cache has a key that is not text")
        return key

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, Any, Any]:
        if read or not isinstance(value, bytes):
            raise ValueError("the listings cache holds bytes only")
        return len(value), diskcache.core.MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode != diskcache.core.MODE_RAW or filename is not None or read:
            raise ValueError("the listings cache has a value that is not plain bytes")
        return bytes(value)


class Table:
    """Listings by question, on disk. Its methods raise TABLE_ERRORS."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    @classmethod
    def opened(cls, folder: Path, patience_s: float = DISK_TIMEOUT_S) -> "Table":
        """Return the table that is in `folder`, where somebody else may have it open.

        Its methods wait for `patience_s` while somebody else holds it, and then raise an error.
        Raises Unusable where there is none, where it is damaged or of another version, or where the disk does
        not let it be; MemoryError where there is none left. None of these changes what is there.
        """
        try:
            return cls(_rows_of(folder, patience_s))
        except _NotOurs as error:
            raise Unusable(
                f"the listings cache {folder} is {error}; mounting again starts it anew"
            ) from error

    @classmethod
    def opened_or_made(cls, folder: Path) -> "Table":
        """Return the table in `folder`, made anew if it is not there, of another version, or damaged.

        Damaged is what cannot be opened, and what was found to be so later (`damage.leave_mark`).
        For the first who opens it only: who has it open by then would read a file that is gone.
        Raises Unusable where the folder or its disk does not let it be; MemoryError as `opened` does.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if is_marked(folder):
                log.warning("the listings cache was found to be damaged and starts anew")
            elif (folder / DATABASE).exists():
                return cls(_rows_of(folder, DISK_TIMEOUT_S))
        except OSError as error:
            raise _unusable(folder, error) from error
        except _NotOurs as error:
            log.warning("the listings cache is %s and starts anew", error)
        return cls(_made_anew(folder))

    def get(self, question: Question) -> Listing[Any] | None:
        """Return what was answered, None if it is not known."""
        row = self.row(question)
        return None if row is None else unpack(question, row)

    def row(self, question: Question) -> bytes | None:
        """Return the row of a question as it lies there, None if there is none."""
        row: bytes | None = self._rows.get(_key(question))
        return row

    def put(self, question: Question, listing: Listing[Any]) -> None:
        """Keep an answer, whatever was there before."""
        self._rows.set(_key(question), pack(question, listing))

    def put_rows(self, rows: Iterable[tuple[Question, bytes]]) -> list[bytes | None]:
        """Keep packed answers, all of them or none; return what was there before of each."""
        with self._rows.transact():
            return [self._replaced(_key(question), row) for question, row in rows]

    def _replaced(self, key: str, row: bytes) -> bytes | None:
        if self._rows.add(key, row):  # of a collection that is walked for the first time, nearly all
            return None
        before: bytes | None = self._rows.get(key)
        self._rows.set(key, row)
        return before

    def fact(self, name: str) -> bytes | None:
        """Return a fact that is no listing, None if it is not known."""
        return self.row((FACT, name))

    def put_fact(self, name: str, fact: bytes) -> None:
        """Keep a fact."""
        self._rows.set(_key((FACT, name)), fact)

    def sum(self, collection: str) -> Sum | None:
        """Return what all series of a collection come to, None if that was not added up.

        Who writes one of its rows of series drops the sum first, or a process that is killed leaves a wrong
        one. Raises msgspec.MsgspecError for bytes of another shape.
        """
        fact = self.fact(_sum_name(collection))
        return None if fact is None else msgspec.msgpack.decode(fact, type=Sum)

    def put_sum(self, collection: str, total: Sum) -> None:
        """Keep what all series of a collection come to."""
        self.put_fact(_sum_name(collection), msgspec.msgpack.encode(total))

    def drop_sum(self, collection: str) -> None:
        """Forget what all series of a collection come to."""
        self._rows.delete(_key((FACT, _sum_name(collection))))

    def __len__(self) -> int:
        """Return the number of rows but that of the version; diskcache counts them as it goes."""
        return max(0, len(self._rows) - 1)

    def close(self) -> None:
        """Close the calling thread's connection; it is opened again when it is needed."""
        self._rows.close()


def _sum_name(collection: str) -> str:
    return f"{SUM}/{collection}"


def _key(question: Question) -> str:
    # With its length before each text no archive can make two questions read the same.
    key = "".join(f"{len(text)}:{text}" for text in question)
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
    return _key((question[0], "long", digest))


def _open(folder: Path, patience_s: float) -> Any:
    return diskcache.Cache(
        str(folder),
        timeout=patience_s,
        disk=_BytesDisk,
        eviction_policy="none",
        cull_limit=0,
        statistics=0,
        sqlite_cache_size=CACHE_PAGES,
        sqlite_mmap_size=0,  # mapped pages count as resident memory
    )


class _NotOurs(Exception):
    """What is there is no table of this version; the text says what it is instead."""


def _rows_of(folder: Path, patience_s: float) -> Any:
    """Return the rows of the table that is there. Raises Unusable, MemoryError and _NotOurs."""
    try:
        if not (folder / DATABASE).exists():
            raise _NotOurs("not there")
        rows = _open(folder, patience_s)
        if rows.get(SCHEMA_KEY) == SCHEMA_VERSION:
            return rows
        rows.close()
    except (OSError, diskcache.Timeout) as error:
        raise _unusable(folder, error) from error
    except (MemoryError, _NotOurs):
        raise
    except Exception as error:  # diskcache believes its file: what a damaged one makes it raise is anything
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in WELL_AGAIN:
            raise _unusable(folder, error) from error
        raise _NotOurs(f"damaged ({error})") from error
    raise _NotOurs("of another version of tciafs")


def _made_anew(folder: Path) -> Any:
    try:
        for file in folder.glob(f"{DATABASE}*"):
            file.unlink()
        rows = _open(folder, DISK_TIMEOUT_S)
        rows.set(SCHEMA_KEY, SCHEMA_VERSION)
        remove_mark(folder)
    except (OSError, sqlite3.Error, diskcache.Timeout) as error:
        raise _unusable(folder, error) from error
    return rows


def _unusable(folder: Path, error: Exception) -> Unusable:
    why = error.strerror if isinstance(error, OSError) else str(error) or "somebody else holds it"
    return Unusable(f"the listings cache {folder} cannot be used: {why}")
