"""The table of the IDC index: what goes in comes out, and each question finds it."""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from tciafs.archives.idc.records import series_record, speakers, study_record
from tciafs.archives.idc.table import IdcTable, IndexedSeries, write_table
from tciafs.errors import Unusable
from tciafs.model import MOST_IMAGES, Series, Study

DAY, LATER = dt.date(2024, 2, 29), dt.date(2025, 4, 16)


def indexed(uid: str, study_uid: str = "1.2", **columns: object) -> IndexedSeries:
    """Return a row with these columns, and others that say something."""
    told: dict[str, object] = {
        "series_uid": uid,
        "study_uid": study_uid,
        "bucket": "idc-open-data",
        "uuid": f"uuid-{uid}",
        "image_count": 2,
        "size_bytes": 2_000,
        "study_date": DAY,
        "study_description": "CHEST",
        "modality": "CT",
        "number": 3.0,
        "description": "axial",
        "body_part": "LUNG",
        "manufacturer": "Maker",
        "model": "Model",
        "analysis_result": None,
        "doi": "10.7937/x",
        "licence": "CC BY 4.0",
        "begun": DAY,
        "revised": DAY,
    }
    return msgspec.convert(list((told | columns).values()), IndexedSeries)


def table_of(path: Path, rows: Iterable[tuple[str, str, IndexedSeries]]) -> IdcTable:
    """Return the table of these rows."""
    write_table(path / "table.sqlite", rows, {"kind": "tcia"})
    return IdcTable(path / "table.sqlite")


@pytest.fixture
def table(tmp_path: Path) -> Iterable[IdcTable]:
    rows = [
        ("Lung", "P1", indexed("1.2.1")),
        ("Lung", "P1", indexed("1.2.2", modality="SEG", manufacturer=None)),
        ("Lung", "P2", indexed("1.3.1", "1.3", revised=LATER)),
        ("NSCLC Radiogenomics", "P1", indexed("1.4.1", "1.4", modality="PT", body_part=None)),
    ]
    table = table_of(tmp_path, rows)
    yield table
    table.close()


def test_listings_are_those_of_the_rows(table: IdcTable) -> None:
    assert sorted(table.collections()) == ["Lung", "NSCLC Radiogenomics"]
    assert sorted(table.patients("Lung")) == ["P1", "P2"]
    assert [each.series_uid for each in table.series("Lung", "P1")] == ["1.2.1", "1.2.2"]
    assert [(patient, len(series)) for patient, series in table.every_patient("Lung")] == [
        ("P1", 2),
        ("P2", 1),
    ]
    assert table.facts == {"kind": "tcia"}


def test_what_there_is_not_is_empty(table: IdcTable) -> None:
    assert table.patients("No such") == []
    assert table.series("Lung", "P9") == []
    assert table.named("9.9") == []


def test_a_series_is_found_by_its_uid_alone(table: IdcTable) -> None:
    ((collection, patient, found),) = table.named("1.3.1")
    assert (collection, patient, found) == ("Lung", "P2", indexed("1.3.1", "1.3", revised=LATER))


def test_later_releases_name_their_patients(table: IdcTable) -> None:
    assert table.released_after(DAY) == [("Lung", "P2", LATER)]
    assert table.released_after(LATER) == []


def test_values_are_those_of_series_that_have_the_others(table: IdcTable) -> None:
    assert sorted(table.values("modality", [])) == ["CT", "PT", "SEG"]
    assert sorted(table.values("modality", [("collection", "Lung")])) == ["CT", "SEG"]
    assert table.values("body_part", [("modality", "PT")]) == []


def test_a_field_that_is_no_column_is_refused(table: IdcTable) -> None:
    with pytest.raises(ValueError, match="no such field"):
        table.values("revised from patients --", [])


def test_a_file_that_is_no_table_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"no database" * 100)
    with pytest.raises(Unusable, match="cannot be read"):
        IdcTable(tmp_path / "other")


def test_no_analysis_result_speaks_for_a_study_that_has_another_series() -> None:
    result, first, second = indexed("1.1", analysis_result="R"), indexed("1.5"), indexed("1.6")
    assert speakers([second, result, first]) == {"1.2": first}
    assert speakers([result]) == {"1.2": result}


@pytest.mark.parametrize(
    ("said", "count"), [(0, 0), (MOST_IMAGES, MOST_IMAGES), (MOST_IMAGES + 1, None), (-1, None), (None, None)]
)
def test_a_number_of_images_that_no_series_has_is_not_known(said: int | None, count: int | None) -> None:
    assert series_record("Lung", "P1", indexed("1.2.1", image_count=said)).image_count == count


def test_records_say_what_the_rows_do() -> None:
    row = indexed("1.2.1", analysis_result="R", licence="CC BY-NC 3.0", revised=LATER)
    series = series_record("Lung", "P1", row)
    assert isinstance(series, Series)
    assert (series.image_count, series.size_bytes, series.number) == (2, 2_000, 3.0)
    assert (series.released, series.submitted, series.studied) == (LATER, DAY, DAY)
    assert series.forbids_commercial_use
    assert (series.data_uri, series.third_party) == ("https://doi.org/10.7937/x", "YES")
    assert study_record("Lung", "P1", row, "7") == Study("Lung", "P1", "1.2", DAY, "7", "CHEST")


def test_a_licence_that_is_not_known_is_named_as_it_is() -> None:
    assert series_record("Lung", "P1", indexed("1", licence="NLM terms")).licence_name == "NLM terms"
    assert series_record("Lung", "P1", indexed("1", licence=None)).licence_name is None
