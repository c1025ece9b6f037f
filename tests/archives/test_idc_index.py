"""From parquet files to the table: which rows, made once, and made anew for another release."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tciafs.archives.idc import making
from tciafs.archives.idc.index import FILES, LOCK_NAME, installed_index, remove_left_overs
from tciafs.archives.idc.making import make_table, make_while_telling, table_order
from tciafs.archives.idc.table import IdcTable, IndexedSeries, write_table
from tciafs.errors import Misuse, Unusable
from tciafs.sample import content, traps
from tciafs.sample.as_idc import write_as_idc
from tests.archives.test_idc_table import indexed

pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of two collections of the sample archive."""
    folder = tmp_path_factory.mktemp("sample")
    shelves = [shelf for shelf in (*content.shelves(), *traps.shelves()) if shelf.name in NAMES]
    write_as_idc(folder, [series for shelf in shelves for series in shelf.series])
    return folder / "index"


NAMES = ("Phantom-Head", "CT Naming Traps")


def made_table(index: Path, folder: Path, *, everything: bool, release: int | None = None) -> Path:
    """Return the table of an index, made now if need be."""
    order = table_order(index, folder, everything=everything, release=release)
    trio.run(make_table, order)
    assert order.is_carried_out
    return order.path


@contextmanager
def opened(index: Path, folder: Path, *, everything: bool = False) -> Iterator[IdcTable]:
    table = IdcTable(made_table(index, folder, everything=everything))
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
    made = made_table(index, tmp_path, everything=False)
    before = made.stat()
    assert made_table(index, tmp_path, everything=False) == made
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    everything = made_table(index, tmp_path, everything=True)
    os.utime(index / "idc_index.parquet", (1, 1))
    another = made_table(index, tmp_path, everything=False)
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
    now = of_head(made_table(revised, tmp_path, everything=False))
    then = of_head(made_table(revised, tmp_path, everything=False, release=29))
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
    now = made_table(revised, tmp_path, everything=False)
    then = made_table(revised, tmp_path, everything=False, release=29)
    assert sorted(tmp_path.glob("*.sqlite")) == sorted([now, then])
    assert made_table(revised, tmp_path, everything=False, release=30).is_file()


@pytest.mark.parametrize("release", [31, 999])
def test_a_release_that_is_not_there_is_said_so_with_those_that_are(
    revised: Path, tmp_path: Path, release: int
) -> None:
    with pytest.raises(Misuse, match=rf"no release {release} of the IDC in this index: it has 1 to 30"):
        made_table(revised, tmp_path, everything=False, release=release)


def test_an_index_without_earlier_releases_is_said_so(revised: Path, tmp_path: Path) -> None:
    (revised / "prior_versions_index.parquet").unlink()
    with pytest.raises(Misuse, match="has the release 30 of the IDC alone"):
        made_table(revised, tmp_path, everything=False, release=29)


def test_a_folder_without_an_index_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="holds no index"):
        made_table(tmp_path / "nowhere", tmp_path, everything=False)


def test_files_that_are_no_parquet_are_said_so_and_leave_nothing(index: Path, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / f"{name}.parquet").write_bytes(b"no parquet")
    with pytest.raises(Unusable, match=r"could not be made: .*parquet"):
        made_table(tmp_path, tmp_path / "tables", everything=False)
    assert [each.name for each in (tmp_path / "tables").iterdir()] == ["index.lock"]


def test_an_index_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idc_index_data", None)
    with pytest.raises(Unusable, match="pip install"):
        installed_index()


# -- the process ----------------------------------------------------------------------------------


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of tables, as somebody does who makes one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def left_behind(folder: Path) -> list[Path]:
    """Leave in a folder what a process leaves that is killed while it makes a table, and sorts on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    table, sorting = folder / "index-tcia-0123.77.new", folder / "index-tcia-0123.77.new.tmp"
    table.write_bytes(b"half a table")
    sorting.mkdir()
    (sorting / "spilled").write_bytes(b"rows")
    return [table, sorting]


def test_two_who_want_a_table_at_once_get_one(index: Path, tmp_path: Path) -> None:
    order = table_order(index, tmp_path, everything=False)
    made = list[os.stat_result]()

    async def make() -> None:
        await make_table(order)
        made.append(order.path.stat())

    async def make_twice() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make)
            nursery.start_soon(make)

    trio.run(make_twice)
    assert made[0].st_ino == made[1].st_ino
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([order.path.name, LOCK_NAME])


def test_what_a_killed_process_has_left_goes_with_the_next(index: Path, tmp_path: Path) -> None:
    left = left_behind(tmp_path)
    made_table(index, tmp_path, everything=False)
    assert not any(each.exists() for each in left)


def test_what_is_left_behind_is_not_touched_while_somebody_makes_a_table(tmp_path: Path) -> None:
    left = left_behind(tmp_path)
    with held(tmp_path):
        remove_left_overs(tmp_path)
        assert all(each.exists() for each in left)
    remove_left_overs(tmp_path)
    assert not any(each.exists() for each in left)
    remove_left_overs(tmp_path / "nowhere")


def test_a_process_that_is_not_wanted_any_more_is_gone(index: Path, tmp_path: Path) -> None:
    order = table_order(index, tmp_path, everything=False)
    before = set(children())

    async def begin_and_leave() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(make_table, order, behind=True))
            with trio.fail_after(10):
                while not set(children()) - before:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    with held(tmp_path):
        trio.run(begin_and_leave)
        assert set(children()) == before
    assert not order.is_carried_out


def children() -> list[int]:
    """Return the processes that this one has started."""
    return [
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]


def test_a_process_ends_with_who_started_it(index: Path, tmp_path: Path) -> None:
    order = table_order(index, tmp_path, everything=False)
    words = [sys.executable, "-m", "tciafs.archives.idc.index", str(index), str(order.path), order.kind]
    with held(tmp_path):
        process = subprocess.Popen(words, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 1


def test_a_table_that_cannot_be_read_is_made_anew(index: Path, tmp_path: Path) -> None:
    order = table_order(index, tmp_path, everything=False)
    order.path.write_bytes(b"no table")
    with opened(index, tmp_path) as table:
        assert sorted(table.collections()) == sorted(NAMES)


def test_a_folder_that_cannot_be_written_is_said_so(index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match=r"could not be made: .*file/tables: Not a directory"):
        made_table(index, tmp_path / "file" / "tables", everything=False)


def test_a_full_disk_is_said_so_and_leaves_nothing(tmp_path: Path) -> None:
    rows = [("Lung", f"P{n}", indexed(f"1.2.{n}")) for n in range(50)]
    path = tmp_path / "table"
    _, most_bytes = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, most_bytes))
    try:
        with pytest.raises(Unusable, match=r"table cannot be written: .*(full|disk I/O)"):
            write_table(path, rows * 50, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        signal.signal(signal.SIGXFSZ, before)


def test_who_waits_hears_how_long(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "TOLD_EVERY_S", 0.0)
    told = list[str]()
    trio.run(make_while_telling, table_order(index, tmp_path, everything=False), told.append)
    assert told[0].startswith("making a table of the index of the Imaging Data Commons")
    assert told[1].startswith("still making it, for 0 s")
    assert told[-1].startswith("made it in ")


def test_what_keeps_it_from_being_made_is_raised_as_it_is_to_who_waits(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / f"{name}.parquet").write_bytes(b"no parquet")
    with pytest.raises(Unusable, match="parquet"):
        trio.run(make_while_telling, table_order(tmp_path, tmp_path, everything=False), lambda _: None)
