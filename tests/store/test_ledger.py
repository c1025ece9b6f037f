"""The ledger: its statements, that it outlives the process, and that no damage stops the program."""

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tciafs.store.layout import Layout, PackedImage, PackedImages
from tciafs.store.ledger import SCHEMA_VERSION, Entry, Ledger

IMAGES = PackedImages([PackedImage("1-1.dcm", 0, 4, 7), PackedImage("1-2.dcm", 4, 6, 8)])
A = Layout("1.1", "2:10:None", IMAGES, ("crc32",))
B = replace(A, series_uid="1.2")
C = replace(A, series_uid="1.3")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def opened(path: Path) -> Ledger:
    ledger = Ledger(path)
    if ledger.is_blank:
        ledger.fill(())
    return ledger


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with closing(opened(path)) as ledger:
        yield ledger


def publish(ledger: Ledger, layout: Layout, pack_bytes: int) -> None:
    ledger.begin_publishing(layout, pack_bytes)
    ledger.end_publishing(layout.series_uid)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


def test_a_series_never_heard_of_is_unknown(ledger: Ledger) -> None:
    assert ledger.find("1.1") is None
    assert (ledger.pack_bytes("1.1"), ledger.total_bytes(), ledger.unfinished()) == (0, 0, [])
    assert ledger.count() == 0


def test_a_series_is_known_once_it_is_published(ledger: Ledger) -> None:
    ledger.begin_publishing(A, 100)
    assert (ledger.find("1.1"), ledger.unfinished()) == (None, ["1.1"])
    ledger.end_publishing("1.1")
    assert (ledger.find("1.1"), ledger.unfinished()) == (Entry(A, 100), [])
    assert (ledger.pack_bytes("1.1"), ledger.total_bytes()) == (100, 100)


def test_a_new_version_takes_the_place_of_the_old(ledger: Ledger) -> None:
    newer = replace(A, version="3:15:None")
    publish(ledger, A, 100)
    publish(ledger, newer, 150)
    assert (ledger.find("1.1"), ledger.total_bytes()) == (Entry(newer, 150), 150)


def test_a_pack_that_was_found_is_recorded(ledger: Ledger) -> None:
    ledger.begin_publishing(A, 100)
    ledger.record(A, 90)
    assert (ledger.find("1.1"), ledger.unfinished()) == (Entry(A, 90), [])


def test_a_layout_outlives_its_bytes(ledger: Ledger) -> None:
    publish(ledger, A, 100)
    ledger.evicted("1.1")
    assert (ledger.find("1.1"), ledger.total_bytes(), ledger.count()) == (Entry(A, 0), 0, 0)
    assert ledger.least_recently_used(9) == []


def test_a_dropped_series_is_forgotten(ledger: Ledger) -> None:
    publish(ledger, A, 100)
    ledger.drop("1.1")
    assert (ledger.find("1.1"), ledger.total_bytes()) == (None, 0)


def test_the_longest_unused_come_first(ledger: Ledger) -> None:
    for layout in (A, B, C):
        publish(ledger, layout, 10)
    ledger.used({"1.1": 300.0, "1.2": 100.0, "1.3": 200.0, "9.9": 1.0})
    assert ledger.least_recently_used(9) == [("1.2", 10), ("1.3", 10), ("1.1", 10)]
    assert ledger.least_recently_used(1) == [("1.2", 10)]


def test_filling_begins_a_table_with_what_is_given(ledger: Ledger) -> None:
    publish(ledger, C, 5)
    ledger.fill([(A, 10, 2.0), (B, 20, 1.0)])
    assert ledger.least_recently_used(9) == [("1.2", 20), ("1.1", 10)]


def test_filling_happens_as_a_whole_or_not_at_all(path: Path) -> None:
    def packs() -> Iterator[tuple[Layout, int, float]]:
        yield A, 10, 1.0
        raise KeyboardInterrupt

    with closing(Ledger(path)) as ledger:
        with pytest.raises(KeyboardInterrupt):
            ledger.fill(packs())
        assert ledger.is_blank
    with closing(Ledger(path)) as ledger:
        assert ledger.is_blank
        ledger.fill([(A, 10, 1.0)])
        assert not ledger.is_blank


def test_all_is_there_after_reopening(path: Path) -> None:
    with closing(opened(path)) as ledger:
        publish(ledger, A, 100)
        ledger.begin_publishing(B, 50)
    with closing(Ledger(path)) as ledger:
        assert not ledger.is_blank
        assert (ledger.find("1.1"), ledger.find("1.2"), ledger.unfinished()) == (Entry(A, 100), None, ["1.2"])
        assert ledger.total_bytes() == 150


def test_a_file_that_is_no_database_is_made_anew(path: Path, expect_log: Callable[[str], None]) -> None:
    expect_log("WARNING tciafs.store.ledger: .* damaged .* made anew")
    path.write_bytes(b"this is no database" * 1000)
    path.with_name("ledger.sqlite-wal").write_bytes(b"nor this")
    with closing(opened(path)) as ledger:
        assert ledger.find("1.1") is None
        publish(ledger, A, 100)


def test_a_database_of_another_version_is_made_anew(path: Path, expect_log: Callable[[str], None]) -> None:
    expect_log("of version 99 and is made anew")
    with closing(opened(path)) as ledger:
        publish(ledger, A, 100)
    execute(path, "DROP TABLE series", "CREATE TABLE series (other)", "PRAGMA user_version = 99")
    with closing(Ledger(path)) as ledger:
        assert ledger.is_blank
        ledger.fill([(B, 20, 1.0)])
        assert (ledger.find("1.1"), ledger.find("1.2")) == (None, Entry(B, 20))


def test_a_table_of_another_shape_is_made_anew(path: Path, expect_log: Callable[[str], None]) -> None:
    expect_log("damaged .no such (column|table)")
    execute(path, "CREATE TABLE series (series_uid)", f"PRAGMA user_version = {SCHEMA_VERSION}")
    with closing(Ledger(path)) as ledger:
        assert ledger.is_blank


def test_damage_seen_later_is_mended_by_the_next_start(path: Path) -> None:
    with closing(opened(path)) as ledger:
        publish(ledger, A, 100)
        ledger._db.execute("DROP TABLE series")
        with pytest.raises(OSError, match="no such table") as raised:
            ledger.find("1.1")
        assert raised.value.errno == errno.EIO
    assert not path.exists()
    with closing(Ledger(path)) as ledger:
        assert ledger.is_blank


@pytest.mark.parametrize("layout", ["x'00'", "NULL || 'text'", "12", "'text'"])
def test_a_row_that_makes_no_sense_is_unknown_but_counted(
    path: Path, layout: str, expect_log: Callable[[str], None]
) -> None:
    expect_log("layout of series 1.1 in the ledger cannot be read")
    with closing(opened(path)) as ledger:
        publish(ledger, A, 100)
        ledger._db.execute(f"UPDATE layouts SET layout = coalesce({layout}, 7)")
        assert ledger.find("1.1") is None
        assert (ledger.pack_bytes("1.1"), ledger.total_bytes()) == (100, 100)


def test_to_note_a_use_does_not_write_the_layout_again(tmp_path: Path) -> None:
    images = PackedImages(PackedImage(f"1-{number:05}.dcm", 0, 1, 2) for number in range(20_000))
    with closing(opened(tmp_path / "ledger.sqlite")) as ledger:
        ledger.record(replace(A, images=images), 100)
        log = tmp_path / "ledger.sqlite-wal"
        ledger._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ledger.used({"1.1": 5.0})
        ledger.evicted("1.1")
        assert 0 < log.stat().st_size < 64 * 1024


def test_a_full_disk_is_said_to_be_full(ledger: Ledger) -> None:
    ledger._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OSError, match="full") as raised:
        publish(ledger, replace(A, version="v" * 100_000), 100)
    assert raised.value.errno == errno.ENOSPC


def test_a_folder_that_cannot_be_used_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="unable to open database file") as raised:
        Ledger(tmp_path / "absent" / "ledger.sqlite")
    assert raised.value.errno == errno.EIO
