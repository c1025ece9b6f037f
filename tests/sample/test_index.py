"""An index as collections, with a table made by hand: what is found, and that downloads agree with it."""

import datetime as dt
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config, dcmread

from tciafs.sample.holdings import Collection, Holdings, Keys
from tciafs.sample.index_collections import collections_of_index
from tciafs.sample.index_table import BLOCK_ROWS, IndexRow, IndexTable, table_of_columns
from tciafs.sample.records import CC_BY, Series

DAY = dt.date(1880, 9, 9)
ROW = IndexRow(
    series_uid="1.2.3",
    collection="Some Collection",
    patient_id="P 1",
    study_uid="1.2",
    species="Human",
    sex="F",
    age="061Y",
    study_date=DAY,
    study_description="IRM FÉMUR/CUISSE GAUCHE",
    modality="MR",
    number=7,
    description="ADC (10^-6 mm²/s)",
    series_date=None,
    body_part="LEG",
    manufacturer="maker",
    model="model",
    analysis_result=None,
    doi="10.7937/x",
    licence=CC_BY,
    submitted=dt.date(2021, 1, 1),
    released=dt.date(2022, 2, 2),
    image_count=3,
)


@pytest.fixture(autouse=True)
def _odd_values_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)


def table(*rows: IndexRow) -> IndexTable:
    ordered = sorted(rows, key=lambda row: (row.collection, row.patient_id, row.study_uid, row.series_uid))
    return table_of_columns(
        (name, [getattr(row, name) for row in ordered]) for name in reversed(IndexRow._fields)
    )


def row(number: int, **fields: Any) -> IndexRow:
    return ROW._replace(**{"series_uid": f"1.2.3.{number}", **fields})


def holdings(*rows: IndexRow) -> Holdings:
    return Holdings(collections_of_index(table(*rows)))


def found(archive: Holdings, **keys: Any) -> list[str]:
    return sorted(series.uid for series in archive.series(Keys(**keys), restricted=False))


def series_of(record: IndexRow) -> Series:
    (only,) = holdings(record).series(Keys(), restricted=False)
    return only


def test_patients_studies_and_series_are_found_by_their_keys() -> None:
    archive = holdings(
        row(1),
        row(2),
        row(3, study_uid="1.4"),
        row(4, patient_id="P 2", study_uid="1.5"),
        row(5, collection="Zoo", study_uid="1.6", species="Mouse"),
    )
    assert [each.name for each in archive.collections(restricted=False)] == ["Some Collection", "Zoo"]
    assert found(archive) == ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4", "1.2.3.5"]
    assert found(archive, patient_id="p 1") == ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.5"]
    assert found(archive, patient_id="P 1", study_uid="1.2") == ["1.2.3.1", "1.2.3.2"]
    assert found(archive, study_uid="1.5") == ["1.2.3.4"]
    assert found(archive, series_uid="1.2.3.3") == ["1.2.3.3"]
    assert found(archive, series_uid="1.2.3.3", study_uid="1.2") == []
    patients = list(archive.patients(Keys(), restricted=False, collection="some collection"))
    assert [patient.patient_id for patient in patients] == ["P 1", "P 2"]
    studies = archive.studies(Keys(patient_id="P 1"), restricted=False, collection="Some Collection")
    assert [(study.uid, count) for study, count in studies] == [("1.2", 2), ("1.4", 1)]


@pytest.mark.parametrize("uid", ["", "1", "1.2.3.1 ", "頭", "1" * 65, "1.2.3.1\0"])
def test_a_uid_that_is_not_there_is_not_found(uid: str) -> None:
    archive = holdings(row(1))
    assert found(archive, series_uid=uid) == found(archive, study_uid=uid) == []


def test_a_study_under_two_patients_belongs_to_both() -> None:
    archive = holdings(row(1), row(2, patient_id="P 2"), row(3, patient_id="P 2"))
    assert found(archive, study_uid="1.2") == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    studies = [
        (study.patient.patient_id, count) for study, count in archive.studies(Keys(), restricted=False)
    ]
    assert studies == [("P 1", 1), ("P 2", 2)]


def test_a_study_whose_series_disagree_is_listed_once() -> None:
    archive = holdings(row(1), row(2, study_description="other", study_date=None))
    ((study, count),) = archive.studies(Keys(), restricted=False)
    assert (study.description, count) == (ROW.study_description, 2)
    described = {series.study.description for series in archive.series(Keys(), restricted=False)}
    assert described == {ROW.study_description, "other"}


def test_series_released_after_a_day_are_found() -> None:
    archive = holdings(row(1), row(2, released=None), row(3, released=dt.date(2023, 1, 1)))
    assert found(archive, released_after=dt.date(2022, 2, 2)) == ["1.2.3.3"]
    assert found(archive, released_after=dt.date(2022, 2, 1)) == ["1.2.3.1", "1.2.3.3"]


def test_a_revised_row_is_found_as_it_is_now() -> None:
    archive = holdings(row(1), row(2))
    archive.revise("1.2.3.2", {"ImageCount": 1000, "DateReleased": "12-31-2024"})
    assert found(archive, released_after=dt.date(2024, 1, 1)) == ["1.2.3.2"]
    series = archive.find("1.2.3.2", restricted=False)
    assert series is not None
    assert series.image_count == 1000
    archive.withdraw("1.2.3.2")
    ((_, count),) = archive.studies(Keys(), restricted=False)
    assert count == 1


def test_more_rows_than_a_block_are_all_there() -> None:
    count = BLOCK_ROWS + 7
    archive = holdings(*(row(number) for number in range(count)))
    assert len(found(archive)) == count


cells = st.builds(
    row,
    st.integers(1, 10_000),
    collection=st.sampled_from("AB"),
    patient_id=st.sampled_from(["p", "q", "Q1"]),
    study_uid=st.sampled_from(["1.1", "1.2", "1.3"]),
)


@given(
    st.lists(cells, max_size=30, unique_by=lambda record: record.series_uid),
    st.sampled_from(["P", "q1", "no"]),
    st.sampled_from(["1.1", "1.3", "9"]),
)
def test_the_table_finds_what_looking_at_every_row_finds(
    rows: list[IndexRow], patient_id: str, study_uid: str
) -> None:
    archive = holdings(*rows) if rows else Holdings([])

    def expected(**fields: str) -> list[str]:
        return sorted(
            each.series_uid
            for each in rows
            if all(getattr(each, name).upper() == value.upper() for name, value in fields.items())
        )

    assert found(archive, patient_id=patient_id) == expected(patient_id=patient_id)
    assert found(archive, study_uid=study_uid) == expected(study_uid=study_uid)
    assert found(archive, patient_id=patient_id, study_uid=study_uid) == expected(
        patient_id=patient_id, study_uid=study_uid
    )
    counts = sum(count for _, count in archive.studies(Keys(), restricted=False))
    assert counts == len(rows)


HARD = {
    "as real ones": ROW,
    "nothing but identifiers": ROW._replace(
        sex=None,
        age=None,
        study_date=None,
        study_description=None,
        modality=None,
        number=None,
        description=None,
    ),
    "control bytes": ROW._replace(description="SliceTh-\x00_SliceInc-\x01_Filter-\x02-C"),
    "slashes": ROW._replace(description="a/b", study_description="//"),
    "longest": ROW._replace(description="é" * 65, patient_id="P" * 55, series_uid="1." + "2" * 62),
    "many images": ROW._replace(image_count=1234),
    "one image": ROW._replace(image_count=1),
}


@pytest.mark.parametrize("record", HARD.values(), ids=HARD.keys())
def test_images_made_up_agree_with_their_row(record: IndexRow) -> None:
    series = series_of(record)
    images = series.images()
    files = [b"".join(image.pieces()) for image in images]
    assert series.image_count == len(files) == record.image_count
    assert series.size_bytes == sum(map(len, files)) == sum(image.size_bytes for image in images)
    assert len(set(files)) == len(files)
    for image, file in zip(images, files, strict=True):
        assert len(file) == image.size_bytes
        header = dcmread(io.BytesIO(file), stop_before_pixels=len(files) > 10)
        assert header.SOPInstanceUID == header.file_meta.MediaStorageSOPInstanceUID == image.sop_uid
        assert (header.AcquisitionNumber, header.InstanceNumber) == (image.acquisition, image.instance)
        assert header.SeriesInstanceUID == record.series_uid
        assert header.PatientID == record.patient_id
        assert header.get("SeriesDescription") == record.description
        assert (header.Modality or None) == record.modality
        assert header.StudyDate == (f"{record.study_date:%Y%m%d}" if record.study_date else "")


def test_images_of_different_series_have_different_identifiers_and_mostly_sizes() -> None:
    series = [series_of(row(number)) for number in range(50)]
    uids = {image.sop_uid for each in series for image in each.images()}
    assert len(uids) == 50 * ROW.image_count
    assert len({each.size_bytes for each in series}) > 25
    assert any(image.acquisition == 2 for each in series for image in each.images())


def test_what_an_index_leaves_out_is_made_up_alike_each_time() -> None:
    records = [row(number, study_uid=f"1.2.{number}") for number in range(100)]
    (one,) = collections_of_index(table(*records))
    (other,) = collections_of_index(table(*records))
    assert ids(one) == ids(other)
    assert None in ids(one)
    assert len(set(ids(one))) > 10


def ids(collection: Collection) -> list[str | None]:
    return [study.study_id for study, _ in collection.studies(Keys())]


def test_an_index_that_is_not_there_is_said_in_a_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "idc_index.parquet"
    command = [sys.executable, "-m", "tciafs.sample", "--idc-index", str(missing)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].endswith(f"error: {missing} is not a file")
