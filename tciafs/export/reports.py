"""What an export leaves beside the images: metadata.csv, LICENSE, and what could not be had.

`Reports` is one export folder's; its methods may be called from several threads. metadata.csv grows by a row
whenever a series is complete, so it says what is there also after an interruption, and is written anew, each
series once, at the end.
"""

import csv
import io
import threading
from collections.abc import Iterable
from pathlib import Path

from tciafs.metadata import MetadataRow, read_rows, write_rows

__all__ = ["Failure", "Reports"]

METADATA = "metadata.csv"
FAILURES = "downloadErrRpt.csv"
LICENCE = "LICENSE"

Failure = tuple[str, str]
"""Where a series is, and why it could not be had."""


class Reports:
    """The tables of an export folder. Raises OSError where it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._rows = {row.series_uid: row for row in _rows_in(folder / METADATA)}

    def row(self, series_uid: str) -> MetadataRow | None:
        """Return what is said of a series that was complete, None if it was not."""
        return self._rows.get(series_uid)

    def add(self, row: MetadataRow) -> None:
        """Note that a series is complete."""
        with self._lock:
            is_new = not (self._folder / METADATA).exists()
            self._rows[row.series_uid] = row
            with (self._folder / METADATA).open("a", encoding="utf-8", newline="") as file:
                write_rows(file, [row], with_heading=is_new)

    def finish(self, failures: Iterable[Failure]) -> None:
        """Write metadata.csv anew, each series once, and the table of failures if there are any."""
        text = io.StringIO(newline="")
        write_rows(text, sorted(self._rows.values(), key=lambda row: row.location))
        replace_file(self._folder / METADATA, text.getvalue())
        table = io.StringIO(newline="")
        csv.writer(table).writerows([("File Location", "Error"), *failures])
        if table.getvalue().count("\n") > 1:
            replace_file(self._folder / FAILURES, table.getvalue())
        else:
            (self._folder / FAILURES).unlink(missing_ok=True)


def replace_file(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="")
    part.replace(path)


def _rows_in(path: Path) -> list[MetadataRow]:
    try:
        return read_rows(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return []
    except csv.Error:
        return []
