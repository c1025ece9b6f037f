"""The index of the NCI Imaging Data Commons as a table on local disk: where each series is, and what is said
of it.

A row a patient: his series, deflated; so a patient is one indexed read, and half a million series take some
tens of megabytes. Another small table finds the patient of a series by a hash of its UID. Made by
`index` in one transaction, and never changed afterwards. Defined here and only here: that table. Blocks,
for tenths of a millisecond.
"""

import datetime as dt
import hashlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from tciafs.errors import Unusable

__all__ = ["FORMAT", "IdcTable", "IndexedSeries", "write_table"]

FORMAT = 1
"""Part of the name of the file: a table of another format is not looked at."""

LEVEL = 6
SCHEMA = """
create table patients (
    number integer primary key,
    collection text not null,
    patient_id text not null,
    revised text,
    series blob not null
);
create table places (
    uid_hash integer not null,
    patient integer not null,
    primary key (uid_hash, patient)
) without rowid;
create table kinds (collection text, modality text, body_part text, manufacturer text);
create table facts (name text primary key, value text not null) without rowid;
"""
INDICES = """
create unique index by_name on patients (collection, patient_id);
create index by_day on patients (revised);
"""


class IndexedSeries(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What the index says of one series; None is a null column, as is a size of 0.

    Its objects are in `bucket` below `uuid`, which is another one for each version of the series. `begun` and
    `revised` are the days of the releases that had its first and this version.
    """

    series_uid: str
    study_uid: str
    bucket: str
    uuid: str
    image_count: int | None
    size_bytes: int
    study_date: dt.date | None
    study_description: str | None
    modality: str | None
    number: float | None
    description: str | None
    body_part: str | None
    manufacturer: str | None
    model: str | None
    analysis_result: str | None
    doi: str | None
    licence: str | None
    begun: dt.date | None
    revised: dt.date | None


Row = tuple[str, str, IndexedSeries]
"""Collection, patient ID and a series."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[IndexedSeries])


def write_table(path: Path, rows: Iterable[Row], facts: dict[str, str]) -> int:
    """Write the table to a new file and return how many series it has.

    The rows of one patient must be neighbours, and are kept in their order. Raises Unusable where the file
    cannot be written, and what `rows` raise.
    """
    try:
        return _write(path, rows, facts)
    except sqlite3.Error as error:
        raise Unusable(f"{path} cannot be written: {error}") from error


def _write(path: Path, rows: Iterable[Row], facts: dict[str, str]) -> int:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript("pragma journal_mode = off; pragma synchronous = off;" + SCHEMA)
        database.execute("begin")
        kinds: set[tuple[str | None, ...]] = set()
        count = 0
        for number, (collection, patient_id, series) in enumerate(_by_patient(rows), start=1):
            blob = zlib.compress(_ENCODER.encode(series), LEVEL)
            revised = max((str(each.revised) for each in series if each.revised), default=None)
            database.execute(
                "insert into patients values (?, ?, ?, ?, ?)", (number, collection, patient_id, revised, blob)
            )
            database.executemany(
                "insert or ignore into places values (?, ?)",
                [(_hash(each.series_uid), number) for each in series],
            )
            kinds.update((collection, each.modality, each.body_part, each.manufacturer) for each in series)
            count += len(series)
        database.executemany("insert into kinds values (?, ?, ?, ?)", kinds)
        database.executemany("insert into facts values (?, ?)", facts.items())
        database.execute("commit")
        database.executescript(INDICES)
    return count


def _by_patient(rows: Iterable[Row]) -> Iterator[tuple[str, str, list[IndexedSeries]]]:
    whose, series = ("", ""), list[IndexedSeries]()
    for collection, patient_id, one in rows:
        if (collection, patient_id) != whose and series:
            yield *whose, series
            series = []
        whose = collection, patient_id
        series.append(one)
    if series:
        yield *whose, series


def _hash(series_uid: str) -> int:
    digest = hashlib.blake2b(series_uid.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class IdcTable:
    """A table that `write_table` has written, opened for reading. Raises Unusable where it cannot be read."""

    def __init__(self, path: Path) -> None:
        try:
            self._database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            self.facts: dict[str, str] = dict(self._database.execute("select name, value from facts"))
        except sqlite3.Error as error:
            raise Unusable(f"the table of the IDC index {path} cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def collections(self) -> list[str]:
        """Return the names of all collections."""
        return [name for (name,) in self._database.execute("select distinct collection from kinds")]

    def patients(self, collection: str) -> list[str]:
        """Return the IDs of the patients of a collection."""
        rows = self._database.execute("select patient_id from patients where collection = ?", (collection,))
        return [patient_id for (patient_id,) in rows]

    def series(self, collection: str, patient_id: str) -> list[IndexedSeries]:
        """Return the series of a patient, none if there is no such patient."""
        rows = self._database.execute(
            "select series from patients where collection = ? and patient_id = ?", (collection, patient_id)
        )
        return [each for (blob,) in rows for each in _read(blob)]

    def every_patient(self, collection: str) -> Iterator[tuple[str, list[IndexedSeries]]]:
        """Yield each patient of a collection and his series."""
        rows = self._database.execute(
            "select patient_id, series from patients where collection = ?", (collection,)
        )
        return ((patient_id, _read(blob)) for patient_id, blob in rows)

    def named(self, series_uid: str) -> list[Row]:
        """Return a series by its UID: collection, patient, what is said of it; or nothing."""
        rows = self._database.execute(
            "select collection, patient_id, series from places join patients on number = patient"
            " where uid_hash = ?",
            (_hash(series_uid),),
        )
        return [
            (collection, patient_id, each)
            for collection, patient_id, blob in rows
            for each in _read(blob)
            if each.series_uid == series_uid
        ]

    def holds(self, series_uid: str) -> bool:
        """Return whether there is a series, by 64 bits of a hash of its UID."""
        query = "select 1 from places where uid_hash = ?"
        return self._database.execute(query, (_hash(series_uid),)).fetchone() is not None

    def holds_collection(self, collection: str) -> bool:
        """Return whether there is a collection."""
        query = "select 1 from patients where collection = ? limit 1"
        return self._database.execute(query, (collection,)).fetchone() is not None

    def released_after(self, day: dt.date) -> list[tuple[str, str, dt.date]]:
        """Return the patients with series of a later release: collection, ID and the last such day."""
        rows = self._database.execute(
            "select collection, patient_id, revised from patients where revised > ?", (str(day),)
        )
        return [(collection, patient, dt.date.fromisoformat(day)) for collection, patient, day in rows]

    def values(self, field: str, wanted: Sequence[tuple[str, str]]) -> list[str]:
        """Return what a field (a column of `kinds`) is in series where other columns have these values."""
        columns = {"collection", "modality", "body_part", "manufacturer"}
        if not {field, *(name for name, _ in wanted)} <= columns:
            raise ValueError(f"no such field: {field}")
        conditions = " and ".join(f"{name} = ?" for name, _ in wanted) or "true"
        rows = self._database.execute(
            f"select distinct {field} from kinds where {field} is not null and {conditions}",
            [value for _, value in wanted],
        )
        return [value for (value,) in rows]


def _read(blob: bytes) -> list[IndexedSeries]:
    return _DECODER.decode(zlib.decompress(blob))
