"""What is on disk: one SQLite row a series, with its layout, its bytes and when it was last used.

Layouts outlive bytes: an evicted series keeps its row with `pack_bytes` 0, so that it still lists at
once. A row says `publishing` between the two steps that no file system does together, writing the
row and renaming the pack; `unfinished` returns such rows after a crash. Calls block: reads take
microseconds and may be made inline, writes wait for the disk and belong in a thread. One connection,
guarded by a lock, so that both may happen at once.
"""

import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tciafs.store.pack import Layout

__all__ = ["Entry", "Ledger"]

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE series (
    series_uid TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    layout BLOB NOT NULL,
    pack_bytes INTEGER NOT NULL,
    publishing INTEGER NOT NULL,
    used_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX series_by_use ON series (used_at) WHERE pack_bytes > 0;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row: `pack_bytes` is the size of the pack on disk, 0 when it was evicted."""

    layout: Layout
    pack_bytes: int


class Ledger:
    """The table of all series that were ever complete."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        # A row lost to power failure costs a download, a row without its pack costs nothing:
        # both are mended at the next use, so commits need not wait for the disk twice.
        self._db.execute("PRAGMA synchronous = NORMAL")
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found != SCHEMA_VERSION:
            self._rebuild()

    def _rebuild(self) -> None:
        self._db.executescript(
            f"BEGIN; DROP TABLE IF EXISTS series; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )

    def find(self, series_uid: str) -> Entry | None:
        """Return what is known of a series, None if it was never complete."""
        with self._lock:
            row = self._db.execute(
                "SELECT layout, pack_bytes FROM series WHERE series_uid = ? AND NOT publishing",
                (series_uid,),
            ).fetchone()
        return None if row is None else Entry(msgspec.msgpack.decode(row[0], type=Layout), row[1])

    def begin_publishing(self, layout: Layout, pack_bytes: int) -> None:
        """Announce a pack that is about to be renamed into its place."""
        self._write(
            "INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?, 1, ?)",
            layout.series_uid,
            layout.version,
            msgspec.msgpack.encode(layout),
            pack_bytes,
            time.time(),
        )

    def end_publishing(self, series_uid: str) -> None:
        """Say that the pack is in its place."""
        self._write("UPDATE series SET publishing = 0 WHERE series_uid = ?", series_uid)

    def unfinished(self) -> list[str]:
        """Return the series whose publishing began and was not seen to end."""
        with self._lock:
            rows = self._db.execute("SELECT series_uid FROM series WHERE publishing").fetchall()
        return [uid for (uid,) in rows]

    def drop(self, series_uid: str) -> None:
        """Forget a series altogether."""
        self._write("DELETE FROM series WHERE series_uid = ?", series_uid)

    def evicted(self, series_uid: str) -> None:
        """Keep the layout of a series whose pack is gone."""
        self._write("UPDATE series SET pack_bytes = 0 WHERE series_uid = ?", series_uid)

    def used(self, series_uids: dict[str, float]) -> None:
        """Record when series were last used: Unix seconds by series UID."""
        with self._lock:
            self._db.executemany(
                "UPDATE series SET used_at = ? WHERE series_uid = ?",
                [(at, uid) for uid, at in series_uids.items()],
            )

    def least_recently_used(self) -> list[tuple[str, int]]:
        """Return (series UID, pack bytes) of what is on disk, the longest unused first."""
        with self._lock:
            return self._db.execute(
                "SELECT series_uid, pack_bytes FROM series WHERE pack_bytes > 0 ORDER BY used_at"
            ).fetchall()

    def total_bytes(self) -> int:
        """Return the bytes of all packs on disk."""
        with self._lock:
            (total,) = self._db.execute("SELECT COALESCE(SUM(pack_bytes), 0) FROM series").fetchone()
        return int(total)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _write(self, statement: str, *values: object) -> None:
        with self._lock:
            self._db.execute(statement, values)
