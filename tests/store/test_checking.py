"""Packs read again from the disk: all of each, in turns, and what is damaged is dropped and fetched anew."""

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from tciafs.errors import SeriesDamaged, TciafsError
from tciafs.model import Series
from tciafs.store import checking
from tciafs.store.checking import Place, Turn
from tciafs.store.ledger import Entry
from tciafs.store.pack import read_layout
from tciafs.store.store import Store, StoreConfig
from tests.fakes import FakeFetcher, make_series, write_pack
from tests.store.test_store import IMAGES, read, settled

SERIES = make_series("1.2.3")
OTHER = make_series("1.2.4")
SIZE_BYTES = sum(len(data) for _, data in IMAGES)
DROPPED = "the pack of series 1.2.3 was damaged on disk and is dropped"


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(tmp_path / "cache", limit_bytes=1_000_000)


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher(dict.fromkeys(("1.2.3", "1.2.4"), IMAGES))


@pytest.fixture
async def store(config: StoreConfig, fetcher: FakeFetcher, autojump_clock: MockClock) -> AsyncIterator[Store]:
    async with Store.running(config, fetcher) as store:
        await fetched(store, SERIES)
        yield store


async def fetched(store: Store, *series: Series) -> None:
    for each in series:
        store.fetch(each)
    await settled(store)


def pack(store: Store, series: Series = SERIES) -> Path:
    return store._shelf.place_of(series.series_uid)


def damage(store: Store, offset: int = 3) -> None:
    """Turn a byte of a pack on disk."""
    data = bytearray(pack(store).read_bytes())
    data[offset] ^= 0xFF
    with pack(store).open("r+b") as file:
        file.write(data)


async def checked(store: Store, series_uid: str = "1.2.3") -> list[Turn]:
    """Return all turns of a check."""
    turns, place = [], Place()
    while True:
        turns.append(await store.checker.check(series_uid, place))
        if (following := turns[-1].next) is None:
            return turns
        place = following


async def test_a_pack_that_is_as_it_was_written_is_read_to_its_end(store: Store) -> None:
    assert await checked(store) == [Turn(SIZE_BYTES)]
    assert store.state(SERIES) == "local"


@pytest.mark.parametrize("offset", range(SIZE_BYTES))
async def test_a_byte_that_turned_is_found_and_the_series_is_fetched_again(
    offset: int, store: Store, fetcher: FakeFetcher, expect_log: Callable[[str], None]
) -> None:
    expect_log(DROPPED)
    damage(store, offset)
    name = IMAGES[0][0] if offset < len(IMAGES[0][1]) else IMAGES[1][0]
    assert await checked(store) == [Turn(damage=f"the bytes of {name} are not those that were written")]
    assert (store.state(SERIES), store.usage().used_bytes, pack(store).exists()) == ("evicted", 0, False)
    known = store.peek(SERIES)
    assert known is not None
    assert [image.name for image in known.layout.images] == [name for name, _ in IMAGES]
    assert [await read(store, SERIES, name) for name, _ in IMAGES] == [data for _, data in IMAGES]
    assert len(fetcher.transfers) == 2
    await settled(store)
    assert await checked(store) == [Turn(SIZE_BYTES)]


@pytest.mark.parametrize("length", [0, 5, SIZE_BYTES, -1])
async def test_a_pack_that_lost_its_end_is_dropped(
    length: int, store: Store, expect_log: Callable[[str], None]
) -> None:
    expect_log(DROPPED)
    os.truncate(pack(store), length if length >= 0 else pack(store).stat().st_size - 1)
    (turn,) = await checked(store)
    assert turn.damage
    assert not pack(store).exists()


async def test_every_byte_behind_the_images_counts_too(
    store: Store, fetcher: FakeFetcher, expect_log: Callable[[str], None]
) -> None:
    expect_log(DROPPED)
    for offset in range(SIZE_BYTES, pack(store).stat().st_size, 7):
        damage(store, offset)
        (turn,) = await checked(store)
        assert turn.damage, offset
        await fetched(store, SERIES)


async def test_the_pack_of_another_series_is_none_of_this_one(
    store: Store, expect_log: Callable[[str], None]
) -> None:
    expect_log(DROPPED)
    await fetched(store, OTHER)
    pack(store, OTHER).replace(pack(store))
    (turn,) = await checked(store)
    assert turn.damage == "it is not the pack that the ledger tells of"


async def test_who_has_a_damaged_pack_open_reads_no_more_of_it(
    store: Store, expect_log: Callable[[str], None]
) -> None:
    expect_log(DROPPED)
    opened = store.open_local(SERIES, "1-1.dcm")
    assert opened is not None
    with closing(opened):
        damage(store)
        assert (await checked(store))[0].damage
        with pytest.raises(SeriesDamaged, match="damaged on disk"):
            opened.read(0, 5)
        assert store.usage().free_bytes < 1_000_000  # its room counts for as long as it is open
        assert await read(store, SERIES, "1-1.dcm") == IMAGES[0][1]
        await settled(store)
    assert (await checked(store))[0].damage is None


async def test_what_is_not_here_is_gone_and_not_damaged(store: Store) -> None:
    assert await checked(store, "9.9") == [Turn(is_gone=True)]
    pack(store).unlink()
    assert await checked(store) == [Turn(is_gone=True)]


async def test_a_pack_that_was_replaced_meanwhile_is_read_from_its_beginning(
    store: Store, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "TURN_S", -1.0)
    turn = await store.checker.check("1.2.3", Place())
    assert (turn.read_bytes, turn.next) == (0, Place(identity=turn.next.identity if turn.next else ""))
    monkeypatch.setattr(checking, "TURN_S", 1.0)
    await fetched(store, replace(SERIES, image_count=3))
    assert turn.next is not None
    stale = Place(1, 2, 3, turn.next.identity)
    assert await store.checker.check("1.2.3", stale) == Turn(SIZE_BYTES)


async def test_a_pack_that_takes_its_place_is_not_dropped_for_what_it_is_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store._shelf.entry("1.2.3")
    assert entry is not None
    newer = replace(SERIES, image_count=1)

    def replaced_meanwhile(_series_uid: str) -> Entry:
        layout = write_pack(tmp_path / "new", newer, ("1-1.dcm", b"other bytes"))
        (tmp_path / "new").replace(pack(store))
        return Entry(layout, entry.pack_bytes)

    monkeypatch.setattr(store._shelf, "entry", replaced_meanwhile)
    assert await store.checker.check("1.2.3", Place()) == Turn(is_gone=True)
    assert pack(store).exists()


@pytest.mark.parametrize("place", [Place(-1), Place(0, -5), Place(99), Place(1, 1, 7)])
async def test_a_place_from_elsewhere_damages_nothing(place: Place, store: Store) -> None:
    assert (await store.checker.check("1.2.3", place)).damage is None
    assert store.state(SERIES) == "local"


async def test_a_large_image_is_read_in_turns_with_rests_between(
    config: StoreConfig, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "STEP_BYTES", 100)
    monkeypatch.setattr(checking, "PIECE_BYTES", 50)
    real = checking._step
    rests: list[float] = []

    def slow(*arguments: object) -> tuple[Place, int]:
        trio.from_thread.run_sync(mock_clock.jump, 0.25)
        return real(*arguments)  # type: ignore[arg-type]

    async def rest(worked_s: float) -> None:
        rests.append(worked_s)
        mock_clock.jump(worked_s)

    monkeypatch.setattr(checking, "_step", slow)
    monkeypatch.setattr(checking, "_rest", rest)
    fetcher = FakeFetcher({"1.2.3": [("1-1.dcm", bytes(range(250)) * 4), ("1-2.dcm", b""), *IMAGES[1:]]})
    async with Store.running(config, fetcher) as store:
        await fetched(store, SERIES)
        turns = await checked(store)
    assert [turn.read_bytes for turn in turns] == [200, 200, 200, 200, 200, 6]  # two steps and two rests
    assert rests == [0.25] * 11
    assert turns[1].next is not None
    assert (turns[1].next.image, turns[1].next.offset) == (0, 400)


async def test_a_disk_that_cannot_be_read_is_damage_and_one_that_is_away_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log(DROPPED)
    failures = [errno.ENOMEM, errno.EIO]

    def failing(_descriptor: int, _offset: int, _size_bytes: int) -> bytes:
        raise OSError(failures[0], os.strerror(failures.pop(0)))

    monkeypatch.setattr(checking, "_read_from_disk", failing)
    with pytest.raises(TciafsError, match="Cannot allocate memory"):
        await checked(store)
    assert store.state(SERIES) == "local"
    assert await checked(store) == [Turn(damage="the disk cannot read it: Input/output error")]
    assert store.state(SERIES) == "evicted"


# -- what there is to check --


async def test_all_series_at_a_path_are_listed_page_by_page_in_order(
    store: Store, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "MOST_LISTED", 2)
    monkeypatch.setattr(checking, "MOST_LOOKED_AT", 3)
    for number in range(10):
        series = replace(make_series(f"1.5.{number}"), patient_id=f"P{number % 3}")
        fetcher.contents[series.series_uid] = IMAGES
        await fetched(store, series)
    everything = ["1.2.3", *(f"1.5.{number}" for number in range(10))]
    assert await listed(store) == everything
    assert await listed(store, "Lung") == everything
    assert await listed(store, "Lung", "P2") == ["1.5.2", "1.5.5", "1.5.8"]
    assert await listed(store, "Lung", "P2", "1.2", "1.5.5") == ["1.5.5"]
    assert await listed(store, "Brain") == []


async def test_what_was_evicted_is_not_listed(store: Store, fetcher: FakeFetcher) -> None:
    large = make_series("1.9", size_bytes=990_000)
    fetcher.contents["1.9"] = [("1-1.dcm", bytes(900_000))]
    await fetched(store, large)
    assert store.state(SERIES) == "evicted"
    assert await listed(store) == ["1.9"]


async def listed(store: Store, *whose: str) -> list[str]:
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        entries, after = await store.checker.listed(whose, after)
        assert len(entries) <= checking.MOST_LISTED
        found += [entry.layout.series_uid for entry in entries]
    return found


async def test_the_pack_itself_says_where_it_comes_from(
    store: Store, config: StoreConfig, fetcher: FakeFetcher
) -> None:
    assert await listed(store, *SERIES.path) == ["1.2.3"]
    entry = store._shelf.entry("1.2.3")
    assert entry is not None
    assert entry.layout == read_layout(pack(store))
