"""Manifests in all the forms in which they are found, the real ones among them where they are at hand."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.errors import Misuse
from tciafs.selection.manifests import is_uid, read_manifest, uids_in

HEAD = """\
downloadServerUrl=https://nbia.cancerimagingarchive.net/nbia-download/servlet/DownloadServlet
includeAnnotation=true
noOfrRetry=4
databasketId=manifest-1746549740123.tcia
manifestVersion=3.0
"""

uids = st.lists(st.integers(0, 10**9), min_size=2, max_size=6).map(lambda parts: ".".join(map(str, parts)))


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "expected", "odd_lines"),
    [
        (HEAD + "ListOfSeriesToDownload=\n1.2.3\n1.2.4\n", ("1.2.3", "1.2.4"), 0),
        (HEAD + "ListOfSeriesToDownload=\n1.2.3\n1.2.4", ("1.2.3", "1.2.4"), 0),  # no end of line at the end
        (HEAD + "LISTOFSERIESTODOWNLOAD=1.2.3\r\n1.2.4\r\n", ("1.2.3", "1.2.4"), 0),
        (HEAD + "1.2.4\nListOfSeriesToDownload=\n1.2.3\n\n\n", ("1.2.4", "1.2.3"), 0),  # one before its list
        (HEAD + "ListOfSeriesToDownload=\nSeries ID\n1.2.3,\n1.2.4,,\n", ("1.2.3", "1.2.4"), 0),
        (HEAD + "ListOfSeriesToDownload=\n# from Ann\n1.2.3\n1.2.3\n", ("1.2.3",), 0),
        (HEAD + "ListOfSeriesToDownload=\n1.2.3\n../../etc/passwd\n1.2.x\n", ("1.2.3",), 2),
        ("1.2.3\n 1.2.4 \n", ("1.2.3", "1.2.4"), 0),  # a bare list
        ("SeriesInstanceUID\n1.2.3\n", ("1.2.3",), 0),  # a table of one column
        ("Series UID,Collection\n1.2.3,A\n1.2.4,B\n", ("1.2.3", "1.2.4"), 0),
        ('PatientID\tSeriesInstanceUID\n"P, 1"\t1.2.3\n\t\nP2\t1.2.4\n', ("1.2.3", "1.2.4"), 0),
        ("Subject;Series Instance UID\nA;1.2.3\nB\n", ("1.2.3",), 1),
        # as the retriever wrote it in a country that writes 15,20 MB: a field too many
        ("Series UID,Collection,File Size,File Location\r\n1.2.3,LIDC,15,20 MB,./x\r\n", ("1.2.3",), 0),
        (
            "# by IDC\ncp s3://idc-open-data/0a5dd5d3-1.2.3.4/* ./nlst/1002/1.3.6.1.4.9/CT_1.3.6.1.4.1.77/\n",
            ("1.3.6.1.4.1.77",),
            0,
        ),
    ],
)
def test_each_form_is_read(text: str, expected: tuple[str, ...], odd_lines: int) -> None:
    assert uids_in(text) == (expected, odd_lines)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_windows_programs_write_is_read(tmp_path: Path, encoding: str) -> None:
    file = written(tmp_path / "Ann's lung.tcia", (HEAD + "ListOfSeriesToDownload=\n1.2.3\n").encode(encoding))
    manifest = read_manifest(file)
    assert (manifest.name, manifest.uids, manifest.odd_lines) == ("Ann's lung", ("1.2.3",), 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no series"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "names no series"),
        ("<!DOCTYPE html><p>Sorry", "web page"),
        (HEAD.replace("3.0", "1.0"), "version 1 or 2 only refers to a basket"),
        ('<TCIACollection apiVersion="v2"><Downloads><URL>https://x/1.tcia', "download that one"),
        ("cp s3://idc-open-data/0a5dd5d3-8e3a-4f35-9a6e-95e1a5d6f3aa/* .\n", "Imaging Data Commons"),
    ],
)
def test_a_file_that_names_nothing_is_refused_with_the_reason(
    tmp_path: Path, text: str | bytes, reason: str
) -> None:
    with pytest.raises(Misuse, match=reason):
        read_manifest(written(tmp_path / "manifest.tcia", text))


@pytest.mark.parametrize("place", ["missing.tcia", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(Misuse, match="cannot be read"):
        read_manifest(tmp_path / place)


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    try:
        found, odd_lines = uids_in(text)
    except csv.Error:
        return
    assert all(map(is_uid, found))
    assert odd_lines >= 0


@given(
    st.lists(st.tuples(uids, st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))), min_size=1)
)
def test_a_quoted_table_gives_its_column(rows: list[tuple[str, str]]) -> None:
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_ALL).writerows(
        [("Description", "SeriesInstanceUID"), *((b, a) for a, b in rows)]
    )
    assert uids_in(table.getvalue()) == (tuple(dict.fromkeys(uid for uid, _ in rows if is_uid(uid))), 0)


def test_the_real_ones_are_read(shared: Path) -> None:
    files = sorted((shared / "data" / "manifests").iterdir())
    assert files
    for file in files:
        expected = re.findall(r"^\s*([0-9]+(?:\.[0-9]+)+)", file.read_text("utf-8"), re.MULTILINE)
        manifest = read_manifest(file)
        assert manifest.uids == tuple(dict.fromkeys(expected))
        assert manifest.odd_lines == 0
