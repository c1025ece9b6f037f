"""The table of listings on disk: bytes under text keys and never code, made anew where it is not ours."""

import errno
import os
import pickle  # noqa: TID251 - to show that what it would do is not done
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import diskcache
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.catalogue import table as table_module
from tciafs.catalogue.catalogue import Catalogue, CatalogueConfig
from tciafs.catalogue.table import WELL_AGAIN, Listing, Question, Table, pack, unpack
from tciafs.errors import Unusable
from tciafs.model import Collection, Patient, Series, Study
from tests.catalogue.conftest import LUNG, opened
from tests.fakes import FakeArchive, make_series


@pytest.fixture
async def written(archive: FakeArchive, config: CatalogueConfig) -> Path:
    """A folder in which the collections are remembered; returns the database in it."""
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
    archive.asked.clear()
    return config.folder / "cache.db"


def execute(database: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(statement, values)


class Exploit:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.expect_log("the remembered listing of collections is unreadable: .* not plain bytes")
async def test_a_planted_pickle_is_refused_and_never_executed(
    written: Path, archive: FakeArchive, config: CatalogueConfig, tmp_path: Path
) -> None:
    code = pickle.dumps(Exploit(tmp_path / "executed"))
    execute(
        written,
        "UPDATE Cache SET mode = ?, value = ? WHERE key = '11:collections'",
        diskcache.core.MODE_PICKLE,
        code,
    )
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).records == (LUNG,)
    assert archive.asked == [("collections",)]
    assert not (tmp_path / "executed").exists()


@pytest.mark.expect_log("the listings cache is damaged .*not plain bytes.* starts anew")
async def test_a_pickle_planted_in_every_row_is_never_executed(
    written: Path, archive: FakeArchive, config: CatalogueConfig, tmp_path: Path
) -> None:
    code = pickle.dumps(Exploit(tmp_path / "executed"))
    execute(written, "UPDATE Cache SET mode = ?, value = ?", diskcache.core.MODE_PICKLE, code)
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).records == (LUNG,)
    assert not (tmp_path / "executed").exists()


@pytest.mark.expect_log("the remembered listing of collections is unreadable: .* not plain bytes")
@pytest.mark.parametrize(
    "mode",
    [
        diskcache.core.MODE_RAW,
        diskcache.core.MODE_BINARY,
        diskcache.core.MODE_TEXT,
        diskcache.core.MODE_PICKLE,
    ],
)
async def test_a_planted_file_name_is_refused_and_never_opened(
    written: Path, archive: FakeArchive, config: CatalogueConfig, tmp_path: Path, mode: int
) -> None:
    secret = pack(("collections",), Listing((Collection("Secret"),), 1.0))
    (tmp_path / "secret").write_bytes(secret)
    execute(
        written,
        "UPDATE Cache SET mode = ?, filename = '../../secret', value = NULL WHERE key = '11:collections'",
        mode,
    )
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).records == (LUNG,)


async def test_a_planted_key_is_never_unpickled(
    written: Path, archive: FakeArchive, config: CatalogueConfig, tmp_path: Path
) -> None:
    code = pickle.dumps(Exploit(tmp_path / "executed"))
    execute(written, "INSERT INTO Cache (key, raw, mode, value) VALUES (?, 0, 1, x'00')", code)
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
        with pytest.raises(ValueError, match="a key that is not text"):
            list(catalogue._remembered._table._rows)
    assert not (tmp_path / "executed").exists()


def test_the_table_takes_nothing_but_bytes(tmp_path: Path) -> None:
    with closing(Table.opened_or_made(tmp_path)) as table:
        rows = table._rows
        for value in ("text", 1, None, [b"bytes"]):
            with pytest.raises(ValueError, match="bytes only"):
                rows.set("key", value)
        with (tmp_path / "file").open("w+b") as file, pytest.raises(ValueError, match="bytes only"):
            rows.set("key", file, read=True)
        rows.set("key", b"bytes")
        assert rows["key"] == b"bytes"
        with pytest.raises(ValueError, match="not plain bytes"):
            rows.get("key", read=True)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([1.0]),
        msgspec.msgpack.encode([1.0, [["Lung", "and more"]]]),
        msgspec.msgpack.encode(["now", [["Lung"]]]),
        msgspec.msgpack.encode({"records": []}),
    ],
)
@pytest.mark.expect_log("the remembered listing of collections is unreadable")
async def test_an_answer_of_another_shape_was_never_there(
    written: Path, archive: FakeArchive, config: CatalogueConfig, value: bytes
) -> None:
    execute(written, "UPDATE Cache SET value = ? WHERE key = '11:collections'", value)
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).records == (LUNG,)


@pytest.mark.expect_log(
    "WARNING tciafs.catalogue.table: the listings cache is of another version .* starts anew"
)
async def test_a_table_of_another_version_of_the_program_starts_anew_with_one_line(
    written: Path, archive: FakeArchive, config: CatalogueConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "SCHEMA_VERSION", b"of another time")
    for _ in range(2):
        async with opened(archive, config) as catalogue:
            assert (await catalogue.collections()).records == (LUNG,)
    assert archive.asked == [("collections",)]


async def test_a_table_of_before_there_were_versions_starts_anew(
    written: Path, archive: FakeArchive, config: CatalogueConfig, expect_log: Callable[[str], None]
) -> None:
    expect_log("of another version")
    execute(written, "DELETE FROM Cache WHERE key = 'schema'")
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
    assert archive.asked == [("collections",)]


def no_database(database: Path) -> None:
    database.write_bytes(b"this is no database" * 1000)


def other_settings(database: Path) -> None:
    execute(database, "INSERT INTO Settings VALUES ('disk_surprise', 1)")


def other_table(database: Path) -> None:
    execute(database, "DROP TABLE Settings")
    execute(database, "CREATE TABLE Settings (something)")


@pytest.mark.parametrize("damage", [no_database, other_settings, other_table])
@pytest.mark.expect_log("WARNING tciafs.catalogue.table: the listings cache is damaged .* starts anew")
async def test_a_damaged_table_starts_anew(
    written: Path, archive: FakeArchive, config: CatalogueConfig, damage: Callable[[Path], None]
) -> None:
    assert [file.name for file in written.parent.iterdir()] == ["cache.db"]  # nobody has it open
    damage(written)
    for _ in range(2):
        async with opened(archive, config) as catalogue:
            assert (await catalogue.collections()).records == (LUNG,)
    assert archive.asked == [("collections",)]


@pytest.mark.expect_log("the remembered listing of collections is unreadable: no such")
@pytest.mark.expect_log("the listing of collections could not be kept: no such")
async def test_a_table_damaged_while_in_use_does_not_stop_listings(
    written: Path, archive: FakeArchive, config: CatalogueConfig
) -> None:
    async with opened(archive, config) as catalogue:
        execute(written, "DROP TABLE Cache")
        assert (await catalogue.collections()).records == (LUNG,)


@pytest.mark.expect_log("the listing of patients/.* could not be kept")
@pytest.mark.expect_log("the remembered listing of patients/.* is unreadable")
async def test_text_that_is_no_unicode_is_listed_but_not_kept(
    catalogue: Catalogue, archive: FakeArchive
) -> None:
    assert (await catalogue.patients("Lung\udcff")).records == ()


@pytest.fixture
def unreadable(config: CatalogueConfig) -> Path:
    """A folder in whose place there is a file."""
    config.folder.parent.mkdir(parents=True)
    config.folder.write_text("in the way")
    return config.folder


async def test_a_folder_that_is_a_file_is_unusable(
    unreadable: Path, archive: FakeArchive, config: CatalogueConfig
) -> None:
    with pytest.raises(Unusable, match="listings cannot be used: File exists"):
        async with Catalogue.running(archive, config):
            raise AssertionError("it was opened")


def sqlite_trouble(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("trouble")
    error.sqlite_errorcode = code | 3 << 8
    return error


TROUBLES = [
    *((sqlite_trouble(code), Unusable) for code in sorted(WELL_AGAIN)),
    (OSError(errno.ENOMEM, "trouble"), Unusable),
    (diskcache.Timeout("trouble"), Unusable),
    (MemoryError("trouble"), MemoryError),
]


@pytest.mark.parametrize("open_table", [Table.opened, Table.opened_or_made])
@pytest.mark.parametrize(("trouble", "raised"), TROUBLES, ids=range(len(TROUBLES)))
async def test_a_disk_or_a_memory_in_trouble_is_no_reason_to_throw_listings_away(
    written: Path,
    config: CatalogueConfig,
    monkeypatch: pytest.MonkeyPatch,
    open_table: Callable[[Path], Table],
    trouble: Exception,
    raised: type[Exception],
) -> None:
    before = written.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr("tciafs.catalogue.table.diskcache.Cache", fail)
    with pytest.raises(raised, match="trouble"):
        open_table(config.folder)
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (no_database, "is damaged"),
        (other_settings, "is damaged"),
        (lambda database: execute(database, "DELETE FROM Cache"), "is of another version"),
        (Path.unlink, "is not there"),
    ],
    ids=["no database", "other settings", "emptied", "gone"],
)
async def test_only_the_first_who_opens_a_table_makes_it_anew(
    written: Path, config: CatalogueConfig, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(written)
    before = [file.stat().st_ino for file in config.folder.glob("cache.db")]
    with pytest.raises(Unusable, match=f"the listings cache .* {why}.*; mounting again starts it anew"):
        Table.opened(config.folder)
    assert [file.stat().st_ino for file in config.folder.glob("cache.db")] == before


@pytest.mark.expect_log("the listings cache is damaged")
def test_a_table_that_cannot_be_made_anew_is_unusable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.DatabaseError("still damaged")

    (tmp_path / "cache.db").touch()
    monkeypatch.setattr("tciafs.catalogue.table.diskcache.Cache", fail)
    with pytest.raises(Unusable, match="still damaged"):
        Table.opened_or_made(tmp_path)


# -- rows --

DAYS = st.none() | st.dates()
TEXTS = st.none() | st.text()
SERIES = st.builds(
    Series,
    st.just("Lung"),
    st.just("P1"),
    st.text(),
    st.text(),
    TEXTS,
    st.none() | st.floats(allow_nan=False),
    TEXTS,
    st.none() | st.integers(0, 2**63 - 1),
    released=DAYS,
    licence_name=TEXTS,
    third_party=TEXTS,
    model=TEXTS,
)
ANSWERS: st.SearchStrategy[tuple[Question, list[Any]]] = st.one_of(
    st.tuples(st.just(("collections",)), st.lists(st.builds(Collection, st.text()))),
    st.tuples(st.just(("patients", "Lung")), st.lists(st.builds(Patient, st.just("Lung"), st.text()))),
    st.tuples(
        st.just(("studies", "Lung", "P1")),
        st.lists(st.builds(Study, st.just("Lung"), st.just("P1"), st.text(), DAYS, TEXTS, TEXTS)),
    ),
    st.tuples(st.just(("series", "Lung", "P1")), st.lists(SERIES)),
)


@given(ANSWERS, st.floats(0, 1e9), st.booleans())
def test_what_is_packed_is_unpacked_the_same(
    answer: tuple[Question, list[Any]], asked_at: float, is_partial: bool
) -> None:
    question, records = answer
    listing = Listing(tuple(records), asked_at, is_partial)
    assert unpack(question, pack(question, listing)) == listing


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 1000])
def test_a_long_row_is_deflated_and_reads_like_a_short_one(count: int) -> None:
    records = tuple(make_series(f"1.2.{number}") for number in range(count))
    question, listing = ("series", "Lung", "P1"), Listing(records, 1.0)
    row = pack(question, listing)
    assert len(row) < 200 + 60 * count
    assert unpack(question, row) == listing


@pytest.mark.parametrize(
    "spoilt",
    [lambda row: row[:-1], lambda row: row[:2], lambda row: row[:30] + b"\0\0\0" + row[33:]],
    ids=["cut off", "nothing left", "changed"],
)
def test_a_long_row_that_was_damaged_is_a_clear_error(spoilt: Callable[[bytes], bytes]) -> None:
    question = ("patients", "Lung")
    row = pack(question, Listing(tuple(Patient("Lung", str(number)) for number in range(1000)), 1.0))
    with pytest.raises(msgspec.DecodeError):
        unpack(question, spoilt(row))


def test_a_long_row_is_inflated_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    question = ("patients", "Lung")
    row = pack(question, Listing(tuple(Patient("Lung", "P" * 100) for _ in range(100)), 1.0))
    monkeypatch.setattr(table_module, "LONGEST_ROW_BYTES", 5000)
    with pytest.raises(msgspec.DecodeError, match="too long"):
        unpack(question, row)


@given(st.binary() | st.binary().map(lambda rest: table_module.DEFLATED + rest))
def test_a_row_of_any_bytes_is_an_answer_or_a_clear_error(row: bytes) -> None:
    for question in (("collections",), ("patients", "L"), ("studies", "L", "P"), ("series", "L", "P")):
        with suppress(msgspec.MsgspecError):
            unpack(question, row)


def test_rows_are_written_all_or_none(tmp_path: Path) -> None:
    question: Question = ("collections",)
    with closing(Table.opened_or_made(tmp_path)) as table:
        with pytest.raises(ValueError, match="bytes only"):
            table.put_rows([(question, b"good"), (("patients", "x"), None)])  # type: ignore[list-item]
        assert table.row(question) is None


def test_who_writes_rows_is_told_what_was_there_before(tmp_path: Path) -> None:
    one, other = ("patients", "A"), ("patients", "B")
    with closing(Table.opened_or_made(tmp_path)) as table:
        assert table.put_rows([(one, b"old")]) == [None]
        assert table.put_rows([(other, b""), (one, b"new"), (one, b"newer")]) == [None, b"old", b"new"]
        assert (table.row(one), table.row(other)) == (b"newer", b"")


def test_no_archive_can_make_two_questions_one_row(tmp_path: Path) -> None:
    questions = [
        ("studies", "A\0B", "C"),
        ("studies", "A", "B\0C"),
        ("studies", "A", "1:B"),
        ("studies", "A1:B"),
    ]
    with closing(Table.opened_or_made(tmp_path)) as table:
        for number, question in enumerate(questions):
            table.put_rows([(question, b"%d" % number)])
        assert [table.row(question) for question in questions] == [b"0", b"1", b"2", b"3"]
