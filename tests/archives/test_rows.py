"""Listings as NBIA servers of all versions have been seen to write them, and as nobody should."""

import datetime as dt
import json
import logging
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.archives.http.client import Reader
from tciafs.archives.nbia.listings import (
    Changes,
    Records,
    collections_listing,
    every_series,
    every_study,
    patients_listing,
    series_listing,
    studies_listing,
)
from tciafs.archives.nbia.rows import read_date
from tciafs.errors import UnreadableAnswer
from tciafs.model import MOST_IMAGES, Change, Collection, Patient, Series, Study

T = TypeVar("T")

warns_of_rows_left_out = pytest.mark.expect_log(
    r"WARNING tciafs\.archives\.nbia\.listings: .* rows of .* left out"
)

LIDC = "LIDC-IDRI"
PATIENT = "LIDC-IDRI-0001"
STUDY_UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.298806137288633453246975630178"
SERIES_UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192"

SERIES_V1 = {
    "SeriesInstanceUID": SERIES_UID,
    "StudyInstanceUID": STUDY_UID,
    "Modality": "DX",
    "SeriesDate": "2000-01-01 00:00:00.0",
    "SeriesNumber": 3000923,
    "AnnotationsFlag": True,
    "Collection": LIDC,
    "PatientID": PATIENT,
    "ImageCount": 2,
    "TimeStamp": "2012-03-04 00:00:00.0",
    "FileSize": 16357620,
    "LicenseName": "Creative Commons Attribution 3.0 Unported License",
    "LicenseURI": "http://creativecommons.org/licenses/by/3.0/",
    "CollectionURI": "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
}
SERIES_V4 = {
    "SeriesInstanceUID": SERIES_UID,
    "StudyInstanceUID": STUDY_UID,
    "Collection": LIDC,
    "Site": "LIDC",
    "PatientID": PATIENT,
    "SeriesDescription": "",
    "SeriesNumber": 500.5,
    "ImageCount": 1,
    "MaxSubmissionTimestamp": "03-04-2012",
    "DataDescriptionURI": "https://doi.org/10.7937/x",
    "FileSize": 7,
    "ReleasedStatus": "YES",
    "DateReleased": "08-07-2023",
    "StudyDate": "06-19-1990",
    "ThirdPartyAnalysis": "NO",
    "BodyPartExamined": "CHEST",
    "Manufacturer": "GE",
    "ManufacturerModelName": "LightSpeed",
    "Authorized": 1,
}


NO_FLAGS: tuple[object, ...] = (False, None, 0, "false", "No", "", "odd", [], {}, 0.5)


def rows(*values: object) -> bytes:
    return json.dumps(values).encode()


def read(reader: Reader[T], body: bytes) -> T:
    """Return what is read of a body that comes in two pieces."""
    reader.feed(body[: len(body) // 2])
    reader.feed(body[len(body) // 2 :])
    return reader.finish()


def every(records: Records[T], body: bytes) -> tuple[T, ...]:
    """Return all batches of a body that comes in one piece."""
    return (*records.feed(body), *records.finish())


def read_collections(body: bytes) -> tuple[Collection, ...]:
    return read(collections_listing(), body)


def read_patients(body: bytes, collection: str) -> tuple[Patient, ...]:
    return read(patients_listing(collection), body)


def read_studies(body: bytes, collection: str, patient: str | None) -> tuple[Study, ...]:
    """Return the studies of a patient, or of all."""
    if patient is None:
        return every(every_study(collection), body)
    return read(studies_listing(collection, patient), body)


def read_series(body: bytes, collection: str, patient: str | None) -> tuple[Series, ...]:
    """Return the series of a patient, or of all."""
    if patient is None:
        return every(every_series(collection), body)
    return read(series_listing(collection, patient), body)


def read_changes(body: bytes, since: dt.date) -> tuple[Change, ...]:
    return read(Changes(since), body)


def one_series(row: dict[str, Any]) -> Series:
    (series,) = read_series(rows(row), LIDC, PATIENT)
    return series


def without(row: dict[str, Any], *columns: str) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column not in columns}


# What the two versions send


def test_collections_keep_their_spelling() -> None:
    body = rows({"Collection": "4D-Lung"}, {"Collection": "CT Lymph Nodes"})
    assert read_collections(body) == (Collection("4D-Lung"), Collection("CT Lymph Nodes"))


@pytest.mark.parametrize("column", ["PatientId", "PatientID"])
def test_a_patient_is_known_by_either_spelling(column: str) -> None:
    row = {column: PATIENT, "PatientName": "", "Collection": LIDC, "Phantom": "NO"}
    assert read_patients(rows(row), LIDC) == (Patient(LIDC, PATIENT),)


def test_a_study_of_v1_has_a_timestamp_and_leaves_null_columns_out() -> None:
    row = {
        "StudyInstanceUID": STUDY_UID,
        "StudyDate": "2000-01-01 00:00:00.0",
        "PatientID": PATIENT,
        "PatientName": "",
        "Collection": LIDC,
        "SeriesCount": 9,
    }
    expected = Study(LIDC, PATIENT, STUDY_UID, dt.date(2000, 1, 1))
    assert read_studies(rows(row), LIDC, PATIENT) == (expected,)


def test_a_study_of_v4_has_id_and_raw_description() -> None:
    row = {
        "StudyInstanceUID": STUDY_UID,
        "StudyDate": "09-14-2014",
        "StudyDescription": "PET/CT HEAD & NECK  ",
        "StudyID": "ABD_LYMPH_001",
        "PatientID": PATIENT,
        "Collection": LIDC,
        "Authorized": 1,
    }
    (study,) = read_studies(rows(row), LIDC, None)
    assert study.date == dt.date(2014, 9, 14)
    assert study.study_id == "ABD_LYMPH_001"
    assert study.description == "PET/CT HEAD & NECK  "


def test_a_series_of_v1_is_read() -> None:
    assert one_series(SERIES_V1) == Series(
        LIDC,
        PATIENT,
        STUDY_UID,
        SERIES_UID,
        modality="DX",
        number=3000923.0,
        image_count=2,
        size_bytes=16357620,
        submitted=dt.date(2012, 3, 4),
        studied=dt.date(2000, 1, 1),
        licence_name="Creative Commons Attribution 3.0 Unported License",
        licence_uri="http://creativecommons.org/licenses/by/3.0/",
        data_uri="https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
        has_annotations=True,
    )


@pytest.mark.parametrize(
    ("flag", "has_annotations"),
    [(True, True), ("true", True), ("Yes", True), (1, True), ("YES ", True)]
    + [(each, False) for each in NO_FLAGS],
)
def test_the_flag_of_annotations_is_read_however_it_is_written(flag: object, has_annotations: bool) -> None:
    series = one_series(SERIES_V1 | {"AnnotationsFlag": flag})
    assert series.has_annotations == has_annotations
    assert ("annotated" in series.version) == has_annotations


def test_a_series_of_v4_is_read() -> None:
    assert one_series(SERIES_V4) == Series(
        LIDC,
        PATIENT,
        STUDY_UID,
        SERIES_UID,
        number=500.5,
        description="",
        image_count=1,
        size_bytes=7,
        released=dt.date(2023, 8, 7),
        submitted=dt.date(2012, 3, 4),
        studied=dt.date(1990, 6, 19),
        data_uri="https://doi.org/10.7937/x",
        body_part="CHEST",
        manufacturer="GE",
        third_party="NO",
        model="LightSpeed",
    )


# What has been released

SINCE = dt.date(2023, 8, 6)


def test_a_change_is_of_a_patient_and_of_the_latest_day() -> None:
    sent = [
        SERIES_V4,
        SERIES_V4 | {"SeriesInstanceUID": "1.2", "DateReleased": "09-01-2023"},
        SERIES_V4 | {"SeriesInstanceUID": "1.3", "DateReleased": "08-30-2023"},
        SERIES_V4 | {"Collection": "Other"},
    ]
    assert read_changes(rows(*sent), SINCE) == (
        Change(LIDC, PATIENT, dt.date(2023, 9, 1)),
        Change("Other", PATIENT, dt.date(2023, 8, 7)),
    )


def test_what_was_released_on_the_day_itself_or_before_is_no_change() -> None:
    sent = [SERIES_V4 | {"PatientID": day[:2], "DateReleased": day} for day in ("08-06-2023", "07-30-2023")]
    assert read_changes(rows(SERIES_V4, *sent), SINCE) == (Change(LIDC, PATIENT, dt.date(2023, 8, 7)),)


@warns_of_rows_left_out
@pytest.mark.parametrize("column", ["Collection", "PatientID", "DateReleased"])
def test_a_change_of_nobody_or_of_no_day_is_left_out(column: str) -> None:
    assert read_changes(rows(without(SERIES_V4, column)), SINCE) == ()


# Ways to say nothing


@pytest.mark.parametrize("body", [b"", b" \r\n", b"[]", b"{}", b"[{}]", b"[null, {}]", b"null"])
def test_an_empty_answer_is_an_empty_listing(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert read_collections(body) == ()
    assert read_patients(body, LIDC) == ()
    assert read_studies(body, LIDC, None) == ()
    assert read_series(body, LIDC, PATIENT) == ()
    assert read_changes(body, SINCE) == ()
    assert not caplog.records


# Oddities that are forgiven


def test_a_single_object_is_a_listing_of_one() -> None:
    assert read_series(json.dumps(SERIES_V4).encode(), LIDC, None) == (one_series(SERIES_V4),)


def test_a_byte_order_mark_is_ignored() -> None:
    assert read_collections(b"\xef\xbb\xbf" + rows({"Collection": "X"})) == (Collection("X"),)


def test_null_columns_are_the_same_as_absent_ones() -> None:
    nulls: dict[str, Any] = {
        column: None for column in SERIES_V4 if column not in ("PatientID", "Collection")
    }
    nulls |= {"SeriesInstanceUID": SERIES_UID, "StudyInstanceUID": STUDY_UID}
    full = {"PatientID": PATIENT, "Collection": LIDC} | nulls
    assert one_series(full) == Series(LIDC, PATIENT, STUDY_UID, SERIES_UID)


@pytest.mark.parametrize(
    ("sent", "number"),
    [
        (500, 500.0),
        (500.25, 500.25),
        ("500.000000", 500.0),
        (" 7 ", 7.0),
        (-3, -3.0),
        ("", None),
        ("seven", None),
        ("nan", None),
        ("inf", None),
        (True, None),
        ([1], None),
        ({"a": 1}, None),
        (10**400, None),
    ],
)
def test_a_series_number_comes_as_any_kind_of_number(sent: object, number: float | None) -> None:
    assert one_series(SERIES_V4 | {"SeriesNumber": sent}).number == number


@pytest.mark.parametrize(
    ("sent", "count"),
    [
        (0, 0),
        (2, 2),
        ("2", 2),
        (2.0, 2),
        ("2.0", 2),
        (2.5, None),
        (-1, None),
        (False, None),
        ("many", None),
        (1e300, None),
        (10**30, None),
    ],
)
def test_counts_and_sizes_are_whole_and_possible_or_unknown(sent: object, count: int | None) -> None:
    series = one_series(SERIES_V4 | {"ImageCount": sent, "FileSize": sent})
    assert (series.image_count, series.size_bytes) == (count, count)


@pytest.mark.parametrize(
    ("sent", "count"),
    [(91_980, 91_980), (MOST_IMAGES, MOST_IMAGES), (MOST_IMAGES + 1, None), ((1 << 63) - 1, None)],
)
def test_more_images_than_any_series_has_are_not_believed(sent: int, count: int | None) -> None:
    series = one_series(SERIES_V4 | {"ImageCount": sent, "FileSize": sent})
    assert (series.image_count, series.size_bytes) == (count, sent)


@pytest.mark.parametrize(
    ("sent", "text"),
    [("", ""), (" a ", " a "), (12, "12"), (12.0, "12"), (1.5, "1.5"), (True, None), ([], None)],
)
def test_a_text_is_kept_as_it_is_and_may_come_as_a_number(sent: object, text: str | None) -> None:
    assert one_series(SERIES_V4 | {"SeriesDescription": sent}).description == text


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2000-01-01 00:00:00.0", dt.date(2000, 1, 1)),
        ("2000-01-01T00:00:00Z", dt.date(2000, 1, 1)),
        ("09-26-2001", dt.date(2001, 9, 26)),
        ("2019-04-09", dt.date(2019, 4, 9)),
        ("20171120", dt.date(2017, 11, 20)),
        (20171120, dt.date(2017, 11, 20)),
        ("01-01-1880", dt.date(1880, 1, 1)),
        ("26-09-2001", None),
        ("02-30-2001", None),
        ("0000-01-01", None),
        ("2000-01-01x", None),
        ("200\N{ARABIC-INDIC DIGIT TWO}-01-01", None),
        ("", None),
        ("NA", None),
        (None, None),
        (True, None),
        ("2000-01-01 " + "9" * 10_000, dt.date(2000, 1, 1)),
    ],
)
def test_a_date_comes_in_four_forms(text: object, date: dt.date | None) -> None:
    assert read_date(text) == date


@given(st.dates())
def test_every_day_is_read_in_every_form(day: dt.date) -> None:
    iso = day.isoformat()
    v4 = f"{day.month:02}-{day.day:02}-{day.year:04}"
    assert {read_date(form) for form in (iso, f"{iso} 00:00:00.0", v4, iso.replace("-", ""))} == {day}


@given(st.text())
def test_no_text_is_an_error_as_a_date(text: str) -> None:
    assert read_date(text) is None or isinstance(read_date(text), dt.date)


# Rows that cannot be used


@pytest.mark.parametrize(
    "uid",
    [
        None,
        "",
        12,
        "..",
        ".",
        "1..2",
        ".1",
        "1.",
        "1.2/../../etc",
        "1.2\n",
        "1.2 ",
        "1.2.x",
        "1.\N{ARABIC-INDIC DIGIT TWO}",
        "1" * 65,
    ],
)
@warns_of_rows_left_out
@pytest.mark.parametrize("column", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_a_row_without_a_proper_uid_is_left_out(column: str, uid: object) -> None:
    assert read_series(rows(SERIES_V4 | {column: uid}), LIDC, PATIENT) == ()


@warns_of_rows_left_out
def test_rows_left_out_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = without(SERIES_V4, "SeriesInstanceUID")
    assert len(read_series(rows(bad, SERIES_V4, bad), LIDC, None)) == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("2 of 3 rows of series left out")


@warns_of_rows_left_out
@pytest.mark.parametrize("row", [{"PatientName": "x"}, {"PatientId": ""}, {"PatientId": None}])
def test_a_patient_without_an_id_is_left_out(row: dict[str, Any]) -> None:
    assert read_patients(rows(row | {"Collection": LIDC}), LIDC) == ()


@warns_of_rows_left_out
def test_a_series_without_a_patient_belongs_to_the_one_asked_for_or_to_nobody() -> None:
    row = without(SERIES_V4, "PatientID")
    assert one_series(row).patient_id == PATIENT
    assert read_series(rows(row), LIDC, None) == ()


def test_a_row_that_names_no_collection_is_of_the_one_asked_for() -> None:
    assert read_patients(rows({"PatientId": PATIENT}), LIDC) == (Patient(LIDC, PATIENT),)


def test_case_twins_of_collection_and_patient_are_told_apart() -> None:
    patients = rows({"PatientId": "A", "Collection": "Lung"}, {"PatientId": "B", "Collection": "LUNG"})
    assert read_patients(patients, "LUNG") == (Patient("LUNG", "B"),)
    series = rows(
        SERIES_V4,
        SERIES_V4 | {"PatientID": PATIENT.lower(), "SeriesInstanceUID": "1.2"},
        SERIES_V4 | {"Collection": LIDC.lower(), "SeriesInstanceUID": "1.3"},
    )
    assert [one.series_uid for one in read_series(series, LIDC, PATIENT)] == [SERIES_UID]
    assert len(read_series(series, LIDC, None)) == 2


def test_a_row_that_comes_twice_is_one_record() -> None:
    again = SERIES_V4 | {"Site": "another", "SeriesDescription": "changed"}
    assert read_series(rows(SERIES_V4, again), LIDC, PATIENT) == (one_series(SERIES_V4),)
    assert read_collections(rows({"Collection": "A"}, {"Collection": "A"})) == (Collection("A"),)


def test_one_study_uid_under_two_patients_is_two_studies() -> None:
    twin = {"StudyInstanceUID": STUDY_UID, "Collection": LIDC}
    body = rows(twin | {"PatientID": "A"}, twin | {"PatientID": "B"})
    assert [study.patient_id for study in read_studies(body, LIDC, None)] == ["A", "B"]


# Answers that are no listing


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><body>Maintenance</body></html>", "a web page"),
        (b"  <!DOCTYPE html>", "a web page"),
        (b"Server was not able to process your request", "something else"),
        (b'[{"Collection": "cut o', "something else"),
        (b'"text"', "something else"),
        (b"7", "something else"),
        (b'["Collection"]', "something else"),
        (b'[{"Collection": "\xff"}]', "something else"),
        (b"[" * 100_000, "something else"),
        (b'[{"Collection": ' + b"[" * 100_000, "something else"),
        (b'{"error": "down for maintenance"}', "no row"),
    ],
)
def test_anything_but_a_listing_is_unreadable(body: bytes, said: str) -> None:
    with pytest.raises(UnreadableAnswer, match=said):
        read_collections(body)


@given(st.binary())
def test_no_bytes_are_another_error(body: bytes) -> None:
    with suppress(UnreadableAnswer):
        read_series(body, LIDC, None)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)
COLUMNS = sorted({*SERIES_V1, *SERIES_V4, "PatientId", "StudyID", "StudyDescription"})


@warns_of_rows_left_out
@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), ANYTHING), max_size=4))
def test_no_values_are_another_error(listing: list[dict[str, Any]]) -> None:
    sent = [{"SeriesInstanceUID": "1.2", "StudyInstanceUID": "1.3"} | row for row in listing]
    with suppress(UnreadableAnswer):
        body = rows(*sent)
        read_collections(body)
        read_patients(body, LIDC)
        read_studies(body, LIDC, None)
        read_changes(body, SINCE)
        for series in read_series(body, LIDC, PATIENT):
            assert (series.collection, series.patient_id) == (LIDC, PATIENT)
            assert series.number is None or isinstance(series.number, float)
            assert (series.image_count or 0) >= 0
