"""What damage of the table of listings is, and the mark that makes the next start make it anew.

A damaged page is met by who reads a row in it, perhaps days after the table was opened, while others have it
open too. To look through all pages at each start would take seconds, so who meets one leaves a mark beside
the table. Defined here and only here: that file.
"""

import logging
import sqlite3
from pathlib import Path

__all__ = ["is_damage", "is_marked", "leave_mark", "remove_mark"]

log = logging.getLogger(__name__)

MARK = "damaged"
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_damage(error: BaseException | None) -> bool:
    """Return whether SQLite says that its file is damaged, in an error or in what that came of.

    diskcache raises something else where it cannot end the transaction that met the damage.
    """
    while error is not None:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE:
            return True
        error = error.__cause__ or error.__context__
    return False


def leave_mark(folder: Path) -> None:
    """Note beside the table in `folder` that it is damaged. A disk that does not let that be is logged."""
    try:
        (folder / MARK).touch(mode=0o600)
    except OSError as error:
        log.warning(
            "that the listings cache is damaged could not be noted (%s): "
            "remove the folder %s, once nothing is mounted with it",
            error.strerror,
            folder,
        )


def is_marked(folder: Path) -> bool:
    """Return whether the table was found to be damaged. Raises OSError."""
    return (folder / MARK).exists()


def remove_mark(folder: Path) -> None:
    """Take the mark away, if there is one. Raises OSError."""
    (folder / MARK).unlink(missing_ok=True)
