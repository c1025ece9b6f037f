"""From parquet files to the table: which rows, made once, and made anew for another release."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tciafs.archives.idc.index import FILES, ensure_table, installed_index
from tciafs.archives.idc.table import IdcTable
from tciafs.errors import Unusable
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
