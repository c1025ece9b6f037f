"""All studies, or all series, of a collection into rows of the table, a row a patient.

What comes is good only when it has come to its end, so it is gathered first, by patient: in memory while it
is little, else in `BUCKETS` temporary files without a name, of which one at a time is brought to rows. Memory
is bounded whatever the length; killed at any moment, this leaves nothing behind. Blocking: this process
does nothing else.
"""

import struct
import tempfile
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import msgspec

from tciafs.catalogue.damage import is_damage, leave_mark
from tciafs.catalogue.sums import Sum
from tciafs.catalogue.table import TABLE_ERRORS, Listing, Question, Table, pack, unpack
from tciafs.errors import UnreadableAnswer, Unusable
from tciafs.model import Archive, Partial, Series, Study, series_identity, study_identity
from tciafs.worker.messages import Finished, Report, RowReplaced, RowsWritten

__all__ = ["list_collection"]

RECORDS_IN_MEMORY = 20_000
"""Some 20 MB of the larger kind."""

BUCKETS = 64
ROWS_AT_ONCE = 500
"""Written in one transaction, for whose end the daemon may have to wait."""

TOLD_BYTES = 4 << 20
"""Of all that is written so much is told to the daemon: some 13,000 patients of one study."""

ROW_IN_MEMORY_BYTES = 200
"""What a row takes there besides its own bytes."""

LENGTH = struct.Struct("<I")

Record: TypeAlias = Study | Series

IDENTITY: Mapping[str, Callable[[Any], Hashable]] = {"studies": study_identity, "series": series_identity}


async def list_collection(
    archive: Archive,
    kind: str,
    collection: str,
    folder: Path,
    asked_at: float,
    tell: Callable[[Report], None],
) -> None:
    """Write the rows of all patients of a collection, telling of them, of changes, and of the end.

    `kind` is "studies" or "series", `folder` that of the daemon's table. Raises TciafsError and writes
    nothing where the archive fails or the table is none of this version; raises Unusable where that is found
    to be damaged, TABLE_ERRORS where the disk fails otherwise.
    """
    table = Table.opened(folder)
    try:
        with _Gathered(kind, collection, folder) as gathered:
            async with _all_of(archive, kind, collection) as batches:
                async for batch in batches:
                    gathered.add(batch)
            if not gathered.count:
                raise UnreadableAnswer(f"the archive lists no {kind} in all of {collection}")
            _write_all(table, kind, collection, gathered.listings(asked_at), tell)
        tell(Finished())
    except TABLE_ERRORS as error:
        if not is_damage(error):
            raise
        leave_mark(folder)
        raise Unusable(f"the listings cache is damaged ({error}); mounting again starts it anew") from error
    finally:
        table.close()


def _all_of(
    archive: Archive, kind: str, collection: str
) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Record]]]:
    if kind == "studies":
        return archive.every_study(collection)
    return archive.every_series(collection)


def _write_all(
    table: Table,
    kind: str,
    collection: str,
    listings: Iterator[tuple[Question, Listing[Any]]],
    tell: Callable[[Report], None],
) -> None:
    """Write all rows, and behind those of series what they come to: to read them for that takes seconds."""
    is_summed = kind == "series"
    total, left_bytes = Sum(), TOLD_BYTES
    if is_summed:
        table.drop_sum(collection)
    while some := list(islice(listings, ROWS_AT_ONCE)):
        rows = _write(table, some, tell)
        is_partial = any(listing.is_partial for _question, listing in some)
        left_bytes -= sum(len(row) + ROW_IN_MEMORY_BYTES for _patient, row in rows)
        tell(RowsWritten(rows if left_bytes >= 0 else [], is_partial))
        for _question, listing in some if is_summed else ():
            total.add_patient(listing.records)
    if is_summed:
        table.put_sum(collection, total)


def _write(
    table: Table, listings: Sequence[tuple[Question, Listing[Any]]], tell: Callable[[Report], None]
) -> list[tuple[str, bytes]]:
    """Write some rows at once, tell of those that were there and are others now, return them by patient."""
    rows = [(question, pack(question, listing)) for question, listing in listings]
    before = table.put_rows(rows)
    for (question, listing), old, (_, new) in zip(listings, before, rows, strict=True):
        if old is not None and _differs(question, old, listing):
            tell(RowReplaced(question, old, new))
    return [(patient, row) for (_kind, _collection, patient), row in rows]


def _differs(question: Question, before: bytes, listing: Listing[Any]) -> bool:
    try:
        return set(unpack(question, before).records) != set(listing.records)
    except msgspec.MsgspecError:
        return False  # a row that nobody could read is no answer that was replaced


class _Gathered:
    """The records of a collection by patient; a context that gives up its files at the end."""

    def __init__(self, kind: str, collection: str, folder: Path) -> None:
        self._kind = kind
        self._identity = IDENTITY[kind]
        self._collection = collection
        self._folder = folder
        self._files = ExitStack()
        self._buckets: Sequence[IO[bytes]] = ()
        self._by_patient: defaultdict[str, list[Record]] = defaultdict(list)
        self._in_memory = 0
        self._is_partial = False
        self.count = 0

    def __enter__(self) -> "_Gathered":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, records: Sequence[Record]) -> None:
        """Take in records of any patients; where some are Partial, so are all listings."""
        self._is_partial = self._is_partial or isinstance(records, Partial)
        for record in records:
            self._by_patient[record.patient_id].append(record)
        self.count += len(records)
        self._in_memory += len(records)
        if self._in_memory > RECORDS_IN_MEMORY:
            self._spill()

    def listings(self, asked_at: float) -> Iterator[tuple[Question, Listing[Any]]]:
        """Yield the listing of each patient, of records of one identity the first; `add` nothing any more.

        An archive that is asked for one patient answers so too.
        """
        if not self._buckets:
            yield from self._as_listings(self._by_patient, asked_at)
            return
        self._spill()
        for bucket in self._buckets:
            yield from self._as_listings(self._read(bucket), asked_at)

    def _as_listings(
        self, by_patient: dict[str, list[Record]], asked_at: float
    ) -> Iterator[tuple[Question, Listing[Any]]]:
        for patient, records in by_patient.items():
            found: dict[Hashable, Record] = {}
            for record in records:
                found.setdefault(self._identity(record), record)
            listing: Listing[Any] = Listing(tuple(found.values()), asked_at, self._is_partial)
            yield (self._kind, self._collection, patient), listing

    def _spill(self) -> None:
        if not self._buckets:
            self._buckets = [self._new_bucket() for _ in range(BUCKETS)]
        for patient, records in self._by_patient.items():
            row = pack((self._kind, self._collection, patient), Listing(tuple(records), 0.0))
            name = patient.encode("utf-8", "surrogatepass")
            bucket = self._buckets[zlib.crc32(name) % BUCKETS]
            bucket.write(LENGTH.pack(len(name)) + name + LENGTH.pack(len(row)) + row)
        self._by_patient.clear()
        self._in_memory = 0

    def _new_bucket(self) -> IO[bytes]:
        return self._files.enter_context(tempfile.TemporaryFile(dir=self._folder))

    def _read(self, bucket: IO[bytes]) -> dict[str, list[Record]]:
        by_patient: defaultdict[str, list[Record]] = defaultdict(list)
        bucket.seek(0)
        while length := bucket.read(LENGTH.size):
            patient = bucket.read(*LENGTH.unpack(length)).decode("utf-8", "surrogatepass")
            row = bucket.read(*LENGTH.unpack(bucket.read(LENGTH.size)))
            by_patient[patient] += unpack((self._kind, self._collection, patient), row).records
        return by_patient
