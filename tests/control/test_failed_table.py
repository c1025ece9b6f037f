"""The table of failed series: read back as it was written, and harmless wherever it is opened."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.control.failed_table import failed_csv
from tciafs.control.report import printable
from tciafs.control.values import FailureStatus

FAILURE = FailureStatus(
    "1.2.3", "Lung", "P1", 1e9, "SeriesDamaged", "came with 1 of 2 images", "Wait.", 3, 1e9 + 300
)
FULL = replace(FAILURE, study_uid="1.2", description="CT", modality="CT", image_count=2, listed_bytes=30)


def rows(*failures: FailureStatus) -> list[list[str]]:
    return list(csv.reader(io.StringIO(failed_csv(failures), newline=""), strict=True))


def test_a_series_is_a_row_below_the_header() -> None:
    header, full, bare = rows(FULL, FAILURE)
    assert header[:4] == ["Series UID", "Collection", "Subject ID", "Study UID"]
    assert dict(zip(header, full, strict=True)) == {
        "Series UID": "1.2.3",
        "Collection": "Lung",
        "Subject ID": "P1",
        "Study UID": "1.2",
        "Series Description": "CT",
        "Modality": "CT",
        "Number of Images": "2",
        "File Size": "30",
        "Failed At": "2001-09-09T01:46:40Z",
        "Times Failed": "3",
        "Next Try After": "2001-09-09T01:51:40Z",
        "Error": "SeriesDamaged",
        "Reason": "came with 1 of 2 images",
    }
    assert bare[4:8] == ["", "", "", ""]


def test_where_nothing_failed_there_is_a_header_only() -> None:
    assert len(rows()) == 1


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("  +1", "  '+1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("-2+3", "'-2+3"),
        ("x;=1", "x;'=1"),
        ("\t=1", r"\t=1"),
        ("T1 - axial, 5 mm", "T1 - axial, 5 mm"),
        ('say "x", then\r\ny', 'say "x", then\\r\\ny'),
        ("\x1b[2J", r"\x1b[2J"),
        ("", ""),
    ],
)
def test_a_cell_is_a_text_and_nothing_more(text: str, cell: str) -> None:
    assert rows(replace(FULL, description=text))[1][4] == cell


@given(st.text(st.characters() | st.sampled_from('=+-@;,|"\t\r\n ')))
def test_whatever_an_archive_says_stays_in_its_cell(text: str) -> None:
    (_, row) = rows(replace(FULL, collection=text, message=text))
    assert row[1] == row[12]
    assert row[1].isprintable()
    assert not re.match(r"\s*[=+\-@]", row[1])
    assert re.sub(r"(^|[;,|])(\s*)'(?=[=+@-])", r"\1\2", row[1]) == re.sub(
        r"(^|[;,|])(\s*)'(?=[=+@-])", r"\1\2", printable(text)
    )
