"""From parquet files to the table: which rows, made once, and made anew for another release."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tciafs.archives.idc.index import FILES, ensure_table, installed_index
from tciafs.archives.idc.table import IdcTable, IndexedSeries
from tciafs.errors import Misuse, Unusable
from tciafs.sample import content, traps
from tciafs.sample.as_idc import write_as_idc

pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of two collections of the sample archive."""
    folder = tmp_path_factory.mktemp("sample")
    shelves = [shelf for shelf in (*content.shelves(), *traps.shelves()) if shelf.name in NAMES]
    write_as_idc(folder, [series for shelf in shelves for series in shelf.series])
    return folder / "index"


NAMES = ("Phantom-Head", "CT Naming Traps")


@contextmanager
def opened(index: Path, folder: Path, *, everything: bool = False) -> Iterator[IdcTable]:
    table = IdcTable(ensure_table(index, folder, everything=everything))
    yield table
    table.close()


def test_collections_have_the_archives_own_spelling(index: Path, tmp_path: Path) -> None:
    with opened(index, tmp_path) as table:
        assert sorted(table.collections()) == sorted(NAMES)


def test_a_series_has_what_the_index_says(index: Path, tmp_path: Path) -> None:
    with opened(index, tmp_path) as table:
        (ct,) = [each for each in table.series("Phantom-Head", "HEAD-001") if each.modality == "CT"]
        results = {each.modality for each in table.series("Phantom-Head", "HEAD-001") if each.analysis_result}
    assert (ct.bucket, ct.image_count, ct.number, ct.licence) == ("idc-open-data", 60, 2.0, "CC BY 4.0")
    assert ct.size_bytes == 7_950_208
    assert (str(ct.study_date), str(ct.begun), str(ct.revised)) == ("2021-05-20", "2021-05-20", "2021-06-01")
    assert results == {"SEG", "RTSTRUCT"}


def test_the_table_is_made_once_and_the_only_one_kept(index: Path, tmp_path: Path) -> None:
    made = ensure_table(index, tmp_path, everything=False)
    before = made.stat()
    assert ensure_table(index, tmp_path, everything=False) == made
    assert made.stat() == before
    everything = ensure_table(index, tmp_path, everything=True)
    os.utime(index / "idc_index.parquet", (1, 1))
    another = ensure_table(index, tmp_path, everything=False)
    assert another != made
    assert sorted(tmp_path.glob("*.sqlite")) == sorted([another, everything])


def test_only_what_tcia_published_is_shown_unless_all_is_wanted(index: Path, tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "other"
    path.mkdir()
    for name in ("collections_index", "version_metadata_index"):
        (path / f"{name}.parquet").write_bytes((index / f"{name}.parquet").read_bytes())
    with duckdb.connect() as database:
        database.execute(
            f"copy (select * replace ('10.5281/zenodo' as source_DOI) from '{index}/idc_index.parquet' "
            f"where Modality = 'SEG' union all select * from '{index}/idc_index.parquet' "
            f"where Modality != 'SEG') to '{path}/idc_index.parquet' (format parquet)"
        )
    with opened(path, tmp_path) as table:
        assert "SEG" not in table.values("modality", [])
    with opened(path, tmp_path, everything=True) as table:
        assert "SEG" in table.values("modality", [])


@pytest.fixture
def revised(index: Path, tmp_path: Path) -> Path:
    """The same index as of release 30: since the last one the CT was revised, and the SEG is gone."""
    import duckdb

    folder = tmp_path / "revised"
    folder.mkdir()
    (folder / "collections_index.parquet").write_bytes((index / "collections_index.parquet").read_bytes())
    with duckdb.connect() as database:
        database.execute(
            f"copy (select * from '{index}/version_metadata_index.parquet' union all "
            "select unnest([29, 30]), unnest(['2026-01-29', '2026-01-30'])) "
            f"to '{folder}/version_metadata_index.parquet' (format parquet)"
        )
        database.execute(
            f"copy (select * replace (if(Modality = 'CT' and PatientID = 'HEAD-001', 30, "
            "series_revised_idc_version) as series_revised_idc_version) "
            f"from '{index}/idc_index.parquet' where Modality is distinct from 'SEG') "
            f"to '{folder}/idc_index.parquet' (format parquet)"
        )
        database.execute(
            "copy (select collection_id, PatientID, SeriesInstanceUID, StudyInstanceUID, Modality, "
            "'older-' || crdc_series_uuid as crdc_series_uuid, 0.01 as series_size_MB, "
            "'s3://other-bucket/x/*' as series_aws_url, 'other-bucket' as aws_bucket, "
            "20::bigint as min_idc_version, 29::bigint as max_idc_version "
            f"from '{index}/idc_index.parquet' where Modality in ('CT', 'SEG') and PatientID = 'HEAD-001') "
            f"to '{folder}/prior_versions_index.parquet' (format parquet)"
        )
    return folder


def of_head(path: Path) -> dict[str | None, IndexedSeries]:
    """Return the series of one patient in a table, by modality."""
    table = IdcTable(path)
    found = {each.modality: each for each in table.series("Phantom-Head", "HEAD-001")}
    table.close()
    return found


def test_an_earlier_release_has_the_series_that_it_had(revised: Path, tmp_path: Path) -> None:
    now = of_head(ensure_table(revised, tmp_path, everything=False))
    then = of_head(ensure_table(revised, tmp_path, everything=False, release=29))
    assert then.keys() - now.keys() == {"SEG"}
    assert then["RTSTRUCT"] == now["RTSTRUCT"]
    ct, older = now["CT"], then["CT"]
    assert (older.uuid, older.bucket) == (f"older-{ct.uuid}", "other-bucket")
    assert (older.image_count, older.size_bytes) == (None, 0)
    assert (older.number, older.description, older.study_description) == (
        ct.number,
        ct.description,
        ct.study_description,
    )
    gone = then["SEG"]
    assert (gone.study_date, gone.licence) == (ct.study_date, None)


def test_releases_are_kept_side_by_side(revised: Path, tmp_path: Path) -> None:
    now = ensure_table(revised, tmp_path, everything=False)
    then = ensure_table(revised, tmp_path, everything=False, release=29)
    assert sorted(tmp_path.glob("*.sqlite")) == sorted([now, then])
    assert ensure_table(revised, tmp_path, everything=False, release=30).is_file()


@pytest.mark.parametrize("release", [31, 999])
def test_a_release_that_is_not_there_is_said_so_with_those_that_are(
    revised: Path, tmp_path: Path, release: int
) -> None:
    with pytest.raises(Misuse, match=rf"no release {release} of the IDC in this index: it has 1 to 30"):
        ensure_table(revised, tmp_path, everything=False, release=release)


def test_an_index_without_earlier_releases_is_said_so(revised: Path, tmp_path: Path) -> None:
    (revised / "prior_versions_index.parquet").unlink()
    with pytest.raises(Misuse, match="has the release 30 of the IDC alone"):
        ensure_table(revised, tmp_path, everything=False, release=29)


def test_a_folder_without_an_index_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="holds no index"):
        ensure_table(tmp_path / "nowhere", tmp_path, everything=False)


def test_files_that_are_no_parquet_are_said_so_and_leave_nothing(index: Path, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / f"{name}.parquet").write_bytes(b"no parquet")
    with pytest.raises(Unusable, match=r"could not be read: .*parquet"):
        ensure_table(tmp_path, tmp_path / "tables", everything=False)
    assert [each.name for each in (tmp_path / "tables").iterdir()] == ["index.lock"]


def test_an_index_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idc_index_data", None)
    with pytest.raises(Unusable, match="pip install"):
        installed_index()
