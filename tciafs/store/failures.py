"""Series that could not be had: why, how often, and when to ask for them again. Outlives the daemon.

Defined here and only here: how long a failure is believed. All of it is in memory; a table on disk is written
along, in microseconds and without waiting for the disk, and read once at the start. What is lost of it
costs one needless question to the archive, so a table that cannot be read or written is given up with a word
in the log. Belongs to the daemon's one thread; knows nothing of trio.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tciafs.errors import (
    AccessDenied,
    SeriesDamaged,
    SlowDown,
    TciafsError,
    UnreadableAnswer,
    error_named,
)
from tciafs.model import Series

__all__ = ["FailedSeries", "Failures"]

log = logging.getLogger(__name__)

LASTING = (SeriesDamaged, AccessDenied, UnreadableAnswer)
"""What is wrong with the series itself; all else is wrong with the line, the server or the disk."""

LASTING_FACTOR = 15
GROWTH = 4
LONGEST_PAUSE_S = 6 * 3600.0
"""Five minutes for a series that is damaged, then 20, 80, 320, and from then on six hours."""

MOST_REMEMBERED = 10_000
MOST_ROW_BYTES = 64 * 1024
"""What is longer is not written down: only a server that means harm has such a record."""

BUSY_S = 1.0

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE failures (
    series_uid TEXT PRIMARY KEY,
    at REAL NOT NULL,
    times INTEGER NOT NULL,
    retry_at REAL NOT NULL,
    error TEXT NOT NULL,
    message TEXT NOT NULL,
    series BLOB NOT NULL
) WITHOUT ROWID
"""
SELECT = "SELECT series, at, times, retry_at, error, message FROM failures ORDER BY at"


@dataclass(frozen=True, slots=True)
class FailedSeries:
    """A series whose last download failed `at` a time, and why; it is asked for again from `retry_at` on.

    It has failed `times` times since it was last had. Times are Unix seconds.
    """

    series: Series
    at: float
    times: int
    retry_at: float
    failure: TciafsError


class Failures:
    """The failed series of one cache folder.

    A failure is believed for `pause_s`, one that is lasting longer, and longer each time. `now` gives Unix
    seconds. `noted` counts the failures since the start.
    """

    def __init__(self, path: Path, pause_s: float, now: Callable[[], float]) -> None:
        self._pause_s = pause_s
        self._now = now
        self.noted = 0
        self._failed: dict[str, FailedSeries] = {}
        self._db: sqlite3.Connection | None = None
        with self._tolerant():
            self._db = _opened(path)
            self._failed = {each.series.series_uid: each for each in _rows(self._db)}

    def find(self, series: Series) -> FailedSeries | None:
        """Return how the present version of a series failed; None if it did not, or was had since."""
        failed = self._failed.get(series.series_uid)
        return failed if failed is not None and failed.series.version == series.version else None

    def refusal(self, series: Series) -> TciafsError | None:
        """Return with what a series is refused without asking the archive, None if it is to be asked."""
        failed = self.find(series)
        if failed is None:
            return None
        # A clock that was put back must not make a pause longer than the longest.
        return failed.failure if 0 < failed.retry_at - self._now() <= LONGEST_PAUSE_S else None

    def every(self) -> Sequence[FailedSeries]:
        """Return all that is remembered, the latest failure last."""
        return tuple(self._failed.values())

    def note(self, series: Series, failure: TciafsError) -> None:
        """Remember that a series could not be had."""
        before = self.find(series)
        times = 1 if before is None else before.times + 1
        self.noted += 1
        at = self._now()
        self._drop([series.series_uid])
        failed = FailedSeries(series, at, times, at + self._pause(failure, times), failure)
        self._failed[series.series_uid] = failed
        with self._tolerant(), suppress(UnicodeEncodeError):  # a record that no table can hold
            row = _as_row(failed)
            if sum(len(value) for value in row if isinstance(value, str | bytes)) <= MOST_ROW_BYTES:
                self._execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._drop(list(self._failed)[:-MOST_REMEMBERED])

    def note_had(self, series_uid: str) -> None:
        """Forget how a series failed that was had now."""
        if series_uid in self._failed:
            self._drop([series_uid])

    def forget(self, is_meant: Callable[[Series], bool]) -> None:
        """Forget how series failed that somebody wants to be asked for again."""
        self._drop([uid for uid, each in self._failed.items() if is_meant(each.series)])

    def close(self) -> None:
        """Close the table."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _pause(self, failure: TciafsError, times: int) -> float:
        pause_s = self._pause_s
        if isinstance(failure, LASTING):
            pause_s *= LASTING_FACTOR * GROWTH ** min(times - 1, 10)
        if isinstance(failure, SlowDown) and failure.retry_after_s is not None:
            pause_s = max(pause_s, failure.retry_after_s)
        return min(pause_s, LONGEST_PAUSE_S)

    def _drop(self, series_uids: Sequence[str]) -> None:
        for uid in series_uids:
            self._failed.pop(uid, None)
        with self._tolerant():
            for uid in series_uids:
                self._execute("DELETE FROM failures WHERE series_uid = ?", (_storable(uid),))

    def _execute(self, statement: str, values: tuple[object, ...]) -> None:
        if self._db is not None:
            self._db.execute(statement, values)

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Go on without the table where it fails."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            log.warning("series that failed are not remembered on disk any more: %s", error)
            self.close()


def _opened(path: Path) -> sqlite3.Connection:
    """Return the table, made anew where it is damaged or of another version of this program."""
    try:
        return _connected(path)
    except sqlite3.OperationalError:  # a disk that is full or failing may be well again tomorrow
        raise
    except sqlite3.DatabaseError as error:
        log.warning("the table of series that failed cannot be read (%s) and is made anew", error)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            db.execute("DROP TABLE IF EXISTS failures")
            db.execute(SCHEMA)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute(SELECT).fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _rows(db: sqlite3.Connection) -> Iterator[FailedSeries]:
    """Yield what the table says; a row that makes no sense is left out."""
    for series, at, times, retry_at, error, message in db.execute(SELECT):
        try:
            record = msgspec.json.decode(series, type=Series)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        yield FailedSeries(record, at, times, retry_at, error_named(error, message))


def _as_row(failed: FailedSeries) -> tuple[object, ...]:
    failure, uid = failed.failure, _storable(failed.series.series_uid)
    sentence = _storable(str(failure))
    series = msgspec.json.encode(failed.series)
    return (uid, failed.at, failed.times, failed.retry_at, type(failure).__name__, sentence, series)


def _storable(text: str) -> str:
    """Return a text without halves of surrogate pairs, which SQLite cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()
