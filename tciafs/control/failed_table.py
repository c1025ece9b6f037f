"""The series that could not be had as CSV (RFC 4180), as a spreadsheet or a script wants them.

Columns that the retriever's metadata.csv has too are called as there. Texts come from archives: each cell is
quoted, nothing is left that a terminal could obey, and nothing that a spreadsheet would take for a formula.
Pure functions.
"""

import csv
import datetime as dt
import io
import re
from collections.abc import Iterable

from tciafs.control.report import printable
from tciafs.control.values import FailureStatus

__all__ = ["failed_csv"]

HEADER = (
    "Series UID",
    "Collection",
    "Subject ID",
    "Study UID",
    "Series Description",
    "Modality",
    "Number of Images",
    "File Size",
    "Failed At",
    "Times Failed",
    "Next Try After",
    "Error",
    "Reason",
)

FORMULA = re.compile(r"(^|[;,|])(\s*)(?=[=+@-])")
"""Where a program might begin a cell and a formula in it; some take other separators than the comma."""


def failed_csv(failures: Iterable[FailureStatus]) -> str:
    """Return a header and a row for each series; sizes are bytes, times UTC."""
    text = io.StringIO()
    table = csv.writer(text, quoting=csv.QUOTE_ALL)
    table.writerow(HEADER)
    for each in failures:
        table.writerow(map(_cell, _values(each)))
    return text.getvalue()


def _values(each: FailureStatus) -> tuple[object, ...]:
    return (
        each.series_uid,
        each.collection,
        each.patient,
        each.study_uid,
        each.description,
        each.modality,
        each.image_count,
        each.listed_bytes,
        _moment(each.at),
        each.times,
        _moment(each.retry_at),
        each.error,
        each.message,
    )


def _cell(value: object) -> str:
    """Return a value as a text that is only a text; an apostrophe is how spreadsheets mark one."""
    return "" if value is None else FORMULA.sub(r"\1\2'", printable(str(value)))


def _moment(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
