"""What one archive lists that the other has not: remembered on disk, for when it cannot be asked.

Daemon and workers use the file at once. It is what names stand on while a server is away; a disk that fails
costs only that. Defined here and only here: that file. Blocks, for tenths of a millisecond.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from tciafs.archives.notes import Notes
from tciafs.model import Collection, Patient, Series, Study, Value

__all__ = ["Beyond"]

log = logging.getLogger(__name__)

SCHEMA = """
create table if not exists beyond (
    kind text, collection text, whose text, uid text, record blob not null, seen real not null,
    primary key (kind, collection, whose, uid)
) without rowid;
"""
IN_A_BATCH = 1000

Record = TypeVar("Record", Collection, Patient, Study, Series, Value)
Row = tuple[str, str, Collection | Patient | Study | Series | Value]
"""Whose listing it belongs to, what tells it from its siblings, and the record."""


class Beyond:
    """The file at `path`, made if need be.

    A listing is a `kind`, a `collection` ("" is none) and `whose` it is: a patient ID, or what was asked.
    """

    def __init__(self, path: Path) -> None:
        self._notes = Notes(path, SCHEMA, "what NBIA alone has")

    def close(self) -> None:
        """Close the file."""
        self._notes.close()

    def of(self, record: type[Record], kind: str, collection: str, whose: str) -> list[Record]:
        """Return what is remembered of one listing."""
        return [
            each
            for some in self._batches(
                record, "kind = ? and collection = ? and whose = ?", (kind, collection, whose)
            )
            for each in some
        ]

    def of_all(self, record: type[Record], kind: str, collection: str) -> Iterator[Sequence[Record]]:
        """Yield in batches what is remembered of all listings of a kind in a collection."""
        return self._batches(record, "kind = ? and collection = ?", (kind, collection))

    def keep(self, kind: str, collection: str, rows: Iterable[Row], seen: float) -> None:
        """Remember records, seen at a moment (Unix seconds)."""
        self._notes.write(
            "insert or replace into beyond values (?, ?, ?, ?, ?, ?)",
            [(kind, collection, whose, uid, msgspec.msgpack.encode(each), seen) for whose, uid, each in rows],
        )

    def forget_unseen(self, kind: str, collection: str, whose: str, since: float) -> None:
        """Forget what of a listing was not seen any more since a moment."""
        command = "delete from beyond where kind = ? and collection = ? and whose = ? and seen < ?"
        if self.of_any(kind, collection, whose):
            self._notes.write(command, [(kind, collection, whose, since)])

    def forget_all_unseen(self, kind: str, collection: str, since: float) -> None:
        """Forget what of all listings of a kind in a collection was not seen any more since a moment."""
        command = "delete from beyond where kind = ? and collection = ? and seen < ?"
        self._notes.write(command, [(kind, collection, since)])

    def of_any(self, kind: str, collection: str, whose: str) -> bool:
        """Return whether anything is remembered of a listing; a read, where a write would take a lock."""
        query = "select 1 from beyond where kind = ? and collection = ? and whose = ? limit 1"
        return bool(self._notes.ask(query, (kind, collection, whose)))

    def _batches(
        self, record: type[Record], condition: str, values: Sequence[str]
    ) -> Iterator[Sequence[Record]]:
        decoder = msgspec.msgpack.Decoder(record)
        last: tuple[bool, str, str] = (True, "", "")
        query = (
            f"select whose, uid, record from beyond where {condition} and (? or (whose, uid) > (?, ?)) "
            f"order by whose, uid limit {IN_A_BATCH}"
        )
        while rows := self._notes.ask(query, (*values, *last)):
            last = False, rows[-1][0], rows[-1][1]
            try:
                yield [decoder.decode(row[2]) for row in rows]
            except msgspec.MsgspecError as error:
                log.warning("what is remembered of what NBIA alone has cannot be read: %s", error)
