"""What is on disk: a row a series in SQLite, with its bytes and when it was last used, and its layout.

Layouts outlive bytes: an evicted series keeps its row with `pack_bytes` 0, so that it still lists at
once. A row says `publishing` between the two steps that no file system does together, writing the
row and renaming the pack; `unfinished` returns such rows after a crash. Calls block: reads and the
short writes take microseconds and may be made inline, those that write a layout belong in a thread.
One connection, guarded by a lock. What SQLite raises leaves as OSError, ENOSPC where the disk is full.
"""

import errno
import json
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tciafs.store.layout import Layout, decode_layout, encode_layout

__all__ = ["Entry", "Ledger"]

log = logging.getLogger(__name__)

SCHEMA_VERSION = 3
SCHEMA = """
DROP TABLE IF EXISTS series;
DROP TABLE IF EXISTS layouts;
DROP TABLE IF EXISTS pins;
CREATE TABLE series (
    series_uid TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    pack_bytes INTEGER NOT NULL,
    publishing INTEGER NOT NULL,
    used_at REAL NOT NULL,
    path TEXT NOT NULL,
    pinned INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE layouts (series_uid TEXT PRIMARY KEY, layout BLOB NOT NULL);
CREATE TABLE pins (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX series_by_use ON series (used_at, pack_bytes, pinned) WHERE pack_bytes > 0;
CREATE INDEX series_pinned ON series (pack_bytes) WHERE pinned;
CREATE INDEX series_publishing ON series (publishing) WHERE publishing;
"""
# Apart, since SQLite writes a row anew as a whole: to note that a series was used must not cost megabytes.
PROBE = (
    "SELECT series_uid, version, layout, pack_bytes, publishing, used_at, path, pinned FROM series "
    "LEFT JOIN layouts USING (series_uid) LIMIT 1"
)
TOTAL = "SELECT COALESCE(SUM(pack_bytes), 0) FROM series WHERE pack_bytes > 0"
COUNT = "SELECT COUNT(*) FROM series WHERE pack_bytes > 0"
UNFINISHED = "SELECT series_uid FROM series WHERE publishing"
FIND = (
    "SELECT layout, pack_bytes FROM series JOIN layouts USING (series_uid) "
    "WHERE series_uid = ? AND NOT publishing"
)
LEAST_RECENTLY_USED = (
    "SELECT series_uid, pack_bytes FROM series WHERE pack_bytes > 0 AND NOT pinned AND used_at < ? "
    "ORDER BY used_at LIMIT ?"
)
TOTAL_UNUSED = f"{TOTAL} AND NOT pinned AND used_at < ?"
BYTES_UNUSED = (
    "SELECT pack_bytes FROM series WHERE series_uid = ? AND pack_bytes > 0 AND NOT pinned AND used_at < ?"
)
TOTAL_PINNED = "SELECT COALESCE(SUM(pack_bytes), 0) FROM series WHERE pinned"
BELOW = "substr(path, 1, length(:path)) = :path"
ON_DISK_AFTER = (
    "SELECT series_uid FROM series WHERE pack_bytes > 0 AND series_uid > ? ORDER BY series_uid LIMIT ?"
)
ON_DISK_BELOW = (
    "SELECT series_uid, path, pack_bytes FROM series "
    f"WHERE pack_bytes > 0 AND series_uid > :after AND {BELOW} ORDER BY series_uid LIMIT :limit"
)
INSERT = "INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?, ?, ?, ?)"
INSERT_LAYOUT = "INSERT OR REPLACE INTO layouts VALUES (?, ?)"

COVERED = "SELECT EXISTS (SELECT 1 FROM pins WHERE substr(:path, 1, length(path)) = path)"

DAMAGE = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
)
"""Not among them: a disk that is full, read-only or failing, which may be well again tomorrow."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row: `pack_bytes` is what the pack takes on disk, 0 when it was evicted."""

    layout: Layout
    pack_bytes: int


class Ledger:
    """The table of all series that were ever complete.

    A table that is damaged, or of another version of this program, is given up with a word in the log.
    `is_blank` says that there is none (any more): `fill` makes one, from what the packs say.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_damaged = False
        self._is_frozen = False
        try:
            self._db = _connect(path)
            self.is_blank = _is_blank(self._db)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise _as_os_error(error) from error
            log.warning("the ledger of the cache is damaged (%s) and is made anew from the packs", error)
            _remove(path)
            self._db = _connect(path)
            self.is_blank = True

    def fill(self, packs: Iterable[tuple[Layout, int, float]]) -> None:
        """Begin a table with these packs: layout, bytes, and Unix seconds of the last use.

        All of them or, after a crash, none: `is_blank` is then still true for whoever comes next.
        """
        with self._transaction():
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            for layout, pack_bytes, used_at in packs:
                self._insert(layout, encode_layout(layout), pack_bytes, used_at, publishing=False)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.is_blank = False

    def find(self, series_uid: str) -> Entry | None:
        """Return what is known of a series, None if it was never complete or its row makes no sense."""
        with self._session():
            row = self._db.execute(FIND, (series_uid,)).fetchone()
        if row is None:
            return None
        try:
            return Entry(decode_layout(row[0]), row[1])
        except (ValueError, TypeError) as error:
            log.warning("the layout of series %s in the ledger cannot be read: %s", series_uid, error)
            return None

    def pack_bytes(self, series_uid: str) -> int:
        """Return the size of the pack of a series, of whatever version; 0 if there is none."""
        with self._session():
            row = self._db.execute(
                "SELECT pack_bytes FROM series WHERE series_uid = ?", (series_uid,)
            ).fetchone()
        return int(row[0]) if row else 0

    def begin_publishing(self, layout: Layout, pack_bytes: int) -> None:
        """Announce a pack that is about to be renamed into its place; blocking.

        It is on disk then: after a power failure a renamed pack must never be read by an older layout.
        """
        self._write_layout(layout, pack_bytes, publishing=True, forced=True)

    def end_publishing(self, series_uid: str) -> None:
        """Say that the pack is in its place."""
        self._write("UPDATE series SET publishing = 0 WHERE series_uid = ?", series_uid)

    def record(self, layout: Layout, pack_bytes: int) -> None:
        """Write down a pack that was found in its place; blocking."""
        self._write_layout(layout, pack_bytes, publishing=False, forced=False)

    def unfinished(self) -> list[str]:
        """Return the series whose publishing began and was not seen to end."""
        with self._session():
            rows = self._db.execute(UNFINISHED).fetchall()
        return [uid for (uid,) in rows]

    def drop(self, series_uid: str) -> None:
        """Forget a series altogether."""
        with self._transaction():
            for table in ("series", "layouts"):
                self._db.execute(f"DELETE FROM {table} WHERE series_uid = ?", (series_uid,))

    def evicted(self, series_uid: str) -> None:
        """Keep the layout of a series whose pack is gone."""
        self.all_evicted([series_uid])

    def all_evicted(self, series_uids: Iterable[str]) -> None:
        """Keep the layouts of series whose packs are gone."""
        # A power failure may undo this, or the unlinking, or both: the next start compares, so that no
        # eviction has to wait for the disk.
        with self._transaction():
            self._db.executemany(
                "UPDATE series SET pack_bytes = 0, publishing = 0 WHERE series_uid = ?",
                [(uid,) for uid in series_uids],
            )

    def used(self, used_at: Mapping[str, float]) -> None:
        """Record when series were last used: Unix seconds by series UID."""
        with self._transaction():
            self._db.executemany(
                "UPDATE series SET used_at = ? WHERE series_uid = ?",
                [(at, uid) for uid, at in used_at.items()],
            )

    def least_recently_used(self, limit: int, before: float = math.inf) -> list[tuple[str, int]]:
        """Return (series UID, pack bytes) of the `limit` packs that were not used for longest.

        Only of those that were last used `before` (Unix seconds).
        """
        with self._session():
            return self._db.execute(LEAST_RECENTLY_USED, (before, limit)).fetchall()

    def unused_bytes(self, before: float, but_not: Iterable[str]) -> int:
        """Return the bytes of the packs last used `before` (Unix seconds), leaving out some series."""
        with self._session():
            (total,) = self._db.execute(TOTAL_UNUSED, (before,)).fetchone()
            rows = [self._db.execute(BYTES_UNUSED, (uid, before)).fetchone() for uid in but_not]
        return int(total) - sum(int(row[0]) for row in rows if row is not None)

    def on_disk(self) -> Iterator[str]:
        """Yield the UIDs of all series that have their pack on disk."""
        with self._session():
            rows = self._db.execute("SELECT series_uid FROM series WHERE pack_bytes > 0").fetchall()
        return (uid for (uid,) in rows)

    def on_disk_after(self, series_uid: str, limit: int) -> list[str]:
        """Return the UIDs of the next `limit` series that have their pack on disk, in order."""
        with self._session():
            rows = self._db.execute(ON_DISK_AFTER, (series_uid, limit)).fetchall()
        return [uid for (uid,) in rows]

    def on_disk_below(
        self, path: Sequence[str], after: str, limit: int
    ) -> list[tuple[str, tuple[str, ...], int]]:
        """Return the next `limit` series behind a UID that are on disk and below a path.

        Each is its UID, its path, and what its pack takes; of those whose path is not known it is ().
        """
        wanted = {"path": _path_text(path), "after": after, "limit": limit}
        with self._session():
            rows = self._db.execute(ON_DISK_BELOW, wanted).fetchall()
        return [(uid, _path_of(text), pack_bytes) for uid, text, pack_bytes in rows]

    def pin(self, path: Sequence[str]) -> None:
        """Keep the series at a path, present and future: keys from the collection down; blocking."""
        with self._transaction(forced=True):
            self._db.execute("INSERT OR IGNORE INTO pins VALUES (:path)", {"path": _path_text(path)})
            self._db.execute(f"UPDATE series SET pinned = 1 WHERE {BELOW}", {"path": _path_text(path)})

    def unpin(self, path: Sequence[str]) -> bool:
        """Keep what is at a path or below no more; False if a pin above it does. Blocking."""
        text = {"path": _path_text(path)}
        with self._transaction(forced=True):
            self._db.execute(f"DELETE FROM pins WHERE {BELOW}", text)
            (is_covered,) = self._db.execute(COVERED, text).fetchone()
            if not is_covered:
                self._db.execute(f"UPDATE series SET pinned = 0 WHERE {BELOW}", text)
        return not is_covered

    def is_pinned(self, series_uid: str) -> bool:
        """Return whether a series is kept."""
        with self._session():
            row = self._db.execute("SELECT pinned FROM series WHERE series_uid = ?", (series_uid,)).fetchone()
        return bool(row and row[0])

    def pinned_bytes(self) -> int:
        """Return what the packs of series that are kept take on disk."""
        with self._session():
            (total,) = self._db.execute(TOTAL_PINNED).fetchone()
        return int(total)

    def total_bytes(self) -> int:
        """Return the bytes of all packs on disk; takes a while where there are very many."""
        with self._session():
            (total,) = self._db.execute(TOTAL).fetchone()
        return int(total)

    def count(self) -> int:
        """Return how many series have their pack on disk; takes a while where there are very many."""
        with self._session():
            (count,) = self._db.execute(COUNT).fetchone()
        return int(count)

    def freeze(self) -> None:
        """Write nothing from now on: each attempt raises OSError."""
        self._is_frozen = True

    def close(self) -> None:
        """Close the database; one that turned out to be damaged is removed, for the next start to remake."""
        with self._lock:
            self._db.close()
            if self._is_damaged and not self._is_frozen:
                _remove(self._path)

    @contextmanager
    def _session(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                self._is_damaged = self._is_damaged or _is_damage(error)
                raise _as_os_error(error) from error

    @contextmanager
    def _transaction(self, *, forced: bool = False) -> Iterator[None]:
        """Write all that is written inside, or nothing; `forced`: to the disk, with all before it."""
        if self._is_frozen:
            raise OSError(errno.EROFS, "the ledger of the cache belongs to somebody else")
        with self._session():
            self._db.execute(f"PRAGMA synchronous = {'FULL' if forced else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._db.rollback()
                raise

    def _write_layout(self, layout: Layout, pack_bytes: int, *, publishing: bool, forced: bool) -> None:
        encoded = encode_layout(layout)  # not under the lock, for which the daemon's loop may wait
        with self._transaction(forced=forced):
            self._insert(layout, encoded, pack_bytes, time.time(), publishing=publishing)

    def _insert(
        self, layout: Layout, encoded: bytes, pack_bytes: int, used_at: float, *, publishing: bool
    ) -> None:
        path = _path_text(layout.path)
        (pinned,) = self._db.execute(COVERED, {"path": path}).fetchone()
        row = (layout.series_uid, layout.version, pack_bytes, publishing, used_at, path, pinned)
        self._db.execute(INSERT, row)
        self._db.execute(INSERT_LAYOUT, (layout.series_uid, encoded))

    def _write(self, statement: str, *values: object) -> None:
        with self._transaction():
            self._db.execute(statement, values)


def _path_text(path: Sequence[str]) -> str:
    """Return keys as a text that begins with that of each path around it, and of no other."""
    return "".join(f"{json.dumps(key)}," for key in path)


def _path_of(text: str) -> tuple[str, ...]:
    """Return the keys of which `_path_text` has made a text."""
    return tuple(json.loads(f"[{text[:-1]}]"))


def _code(error: sqlite3.Error) -> int:
    # Only errors that SQLite itself reports have a code; its low byte is the primary one.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)) & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    return _code(error) in DAMAGE


def _as_os_error(error: sqlite3.Error) -> OSError:
    number = errno.ENOSPC if _code(error) == sqlite3.SQLITE_FULL else errno.EIO
    return OSError(number, f"the ledger of the cache: {error}")


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        db.close()
        raise
    return db


def _is_blank(db: sqlite3.Connection) -> bool:
    """Look whether there is a table, and that it can be read. Closes `db` where it raises."""
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == SCHEMA_VERSION:
            for statement in (PROBE, TOTAL, UNFINISHED):
                db.execute(statement).fetchall()
            return False
    except BaseException:
        db.close()
        raise
    if version != 0:
        log.warning("the ledger of the cache is of version %d and is made anew from the packs", version)
    return True
