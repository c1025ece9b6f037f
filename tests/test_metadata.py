"""The forms of metadata.csv, and that what is written can be read."""

import datetime as dt
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.metadata import COLUMNS, MetadataRow, day_text, read_rows, size_text, write_rows

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 KB"),
        (163_310, "163.31 KB"),
        (15_200_000, "15.20 MB"),
        (1_234_567_890_123, "1.23 TB"),
        (10**18, "1000.00 PB"),
    ],
)
def test_sizes_are_written_in_powers_of_1000(size_bytes: int | None, text: str) -> None:
    assert size_text(size_bytes) == text


def test_days_are_written_as_the_retriever_writes_them() -> None:
    assert [day_text(dt.date(998, 3, 9)), day_text(None)] == ["03-09-0998", ""]


@given(st.lists(st.lists(TEXTS, min_size=len(COLUMNS), max_size=len(COLUMNS))))
def test_what_is_written_is_read(rows: list[list[str]]) -> None:
    written = [MetadataRow(*row) for row in rows if tuple(row) != COLUMNS]
    file = io.StringIO(newline="")
    write_rows(file, written)
    assert file.getvalue().startswith(",".join(COLUMNS) + "\r\n")
    assert read_rows(file.getvalue()) == written


def test_descriptions_are_cleaned_as_the_retriever_does() -> None:
    empty = MetadataRow(*("" for _ in COLUMNS))
    row = replace(empty, study_description="CT W/O", series_description="t2_tse", manufacturer="GE, Inc.")
    cleaned = row.as_retrieved
    assert cleaned.study_description == "CT WO"
    assert cleaned.series_description == "t2tse"
    assert cleaned.manufacturer == "GE Inc."
    assert empty.as_retrieved.study_description == "NA"
