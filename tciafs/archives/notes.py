"""A small file in which an archive notes what saves it requests: SQLite, used by several processes at once.

It decides nothing, so a disk that fails costs only that, and a warning. Blocks, for tenths of a millisecond.
"""

import logging
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Notes"]

log = logging.getLogger(__name__)

BUSY_S = 5.0


class Notes:
    """The file at `path`, made if need be; `what` is in it, in the words of a warning."""

    def __init__(self, path: Path, schema: str, what: str) -> None:
        self._what = what
        self._database: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Looked into from threads, too: SQLite has them wait for each other.
            self._database = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._database.executescript("pragma journal_mode = wal; pragma synchronous = normal;" + schema)
        except (OSError, sqlite3.Error) as error:
            log.warning("%s is not remembered, since %s cannot be used: %s", what, path, error)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()

    def ask(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none where the file cannot be read."""
        try:
            return [] if self._database is None else self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            log.warning("%s cannot be looked up: %s", self._what, error)
            return []

    def write(self, command: str, rows: Collection[Sequence[object]]) -> None:
        """Do a command for each of some rows, all or none; of none at all the file is not locked."""
        if self._database is None or not rows:
            return
        try:
            self._database.execute("begin immediate")
            self._database.executemany(command, rows)
            self._database.execute("commit")
        except sqlite3.Error as error:
            log.warning("%s cannot be remembered: %s", self._what, error)
            if self._database.in_transaction:
                self._database.execute("rollback")
