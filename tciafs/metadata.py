"""The retriever's metadata.csv: a row for each series, with its 17 columns.

The retriever writes values without quotes, and sizes in the way of the machine's country; here values are
quoted where they must be, and sizes are always written with a point. What an archive does not say in its
listings is empty. Defined here and only here: columns, their forms. Pure functions.
"""

import csv
import datetime as dt
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TextIO

from tciafs.naming import cleaned

__all__ = ["COLUMNS", "MetadataRow", "day_text", "read_rows", "size_text", "write_rows"]

COLUMNS = (
    "Series UID",
    "Collection",
    "3rd Party Analysis",
    "Data Description URI",
    "Subject ID",
    "Study UID",
    "Study Description",
    "Study Date",
    "Series Description",
    "Manufacturer",
    "Modality",
    "SOP Class Name",
    "SOP Class UID",
    "Number of Images",
    "File Size",
    "File Location",
    "Download Timestamp",
)
UNITS = ("KB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, slots=True)
class MetadataRow:
    """What a row says, in the order of COLUMNS; all are texts as they are written."""

    series_uid: str
    collection: str
    third_party: str
    data_uri: str
    patient_id: str
    study_uid: str
    study_description: str
    study_date: str
    series_description: str
    manufacturer: str
    modality: str
    sop_class_name: str
    sop_class_uid: str
    image_count: str
    size: str
    location: str
    downloaded_at: str

    @property
    def values(self) -> tuple[str, ...]:
        """The texts in the order of COLUMNS."""
        return tuple(getattr(self, each.name) for each in fields(self))

    @property
    def as_retrieved(self) -> "MetadataRow":
        """The same with descriptions and manufacturer as the retriever's server hands them out."""
        return replace(
            self,
            study_description=cleaned(self.study_description),
            series_description=cleaned(self.series_description),
            manufacturer=cleaned(self.manufacturer),
        )


def write_rows(file: TextIO, rows: Iterable[MetadataRow], *, with_heading: bool = True) -> None:
    """Write rows to a file that was opened with newline=""."""
    writer = csv.writer(file)
    if with_heading:
        writer.writerow(COLUMNS)
    writer.writerows(row.values for row in rows)


def read_rows(text: str) -> list[MetadataRow]:
    """Return the rows of a table that `write_rows` wrote; a line of another length is none."""
    rows = csv.reader(io.StringIO(text, newline=""))
    return [MetadataRow(*row) for row in rows if len(row) == len(COLUMNS) and tuple(row) != COLUMNS]


def size_text(size_bytes: int | None) -> str:
    """Return a size as the retriever writes it, in powers of 1000: "163.31 KB"."""
    if size_bytes is None:
        return ""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size, unit = size_bytes / 1000, 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.2f} {UNITS[unit]}"


def day_text(day: dt.date | None) -> str:
    """Return a day as the retriever writes it: MM-DD-YYYY."""
    return "" if day is None else f"{day:%m-%d-}{day.year:04}"
