"""Whose turn it is, and who gives way; and what that means for downloads that nobody waits for."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tciafs.errors import NoSpace
from tciafs.store.disk import most_bytes_on_disk
from tciafs.store.download import Download
from tciafs.store.room import OVERHEAD_BYTES_PER_IMAGE, PACK_OVERHEAD_BYTES
from tciafs.store.store import Store, StoreConfig
from tciafs.store.turns import Turn, Turns
from tests.fakes import FakeFetcher, make_series

# -- turns alone --


class Worker:
    """Takes a turn and keeps it until it is told to end, or gives way."""

    def __init__(self, turns: Turns, *, wanted: bool, received: int | None = 0) -> None:
        self.turns = turns
        self.turn = Turn(wanted=wanted, received_bytes=lambda: received, give_way=self.give_way)
        self.at_work = False
        self.finish = trio.Event()

    def give_way(self) -> None:
        self.turn.scope.cancel()

    async def run(self) -> None:
        self.turns.join(self.turn)
        with self.turn.scope:
            async with self.turns.taken(self.turn):
                self.at_work = True
                await self.finish.wait()
        self.at_work = False


async def at_work(nursery: trio.Nursery, *workers: Worker) -> list[bool]:
    """Start those that have not been, and return who has a place."""
    for worker in workers:
        nursery.start_soon(worker.run)
        await wait_all_tasks_blocked()
    return [worker.at_work for worker in workers]


async def test_as_many_work_as_there_are_places_and_the_others_in_their_order(nursery: trio.Nursery) -> None:
    turns = Turns(2)
    workers = [Worker(turns, wanted=True) for _ in range(4)]
    assert await at_work(nursery, *workers) == [True, True, False, False]
    workers[1].finish.set()
    await wait_all_tasks_blocked()
    assert [worker.at_work for worker in workers] == [True, False, True, False]


async def test_what_somebody_waits_for_comes_before_what_nobody_does(nursery: trio.Nursery) -> None:
    turns = Turns(1)
    first = Worker(turns, wanted=True)
    ahead, wanted = Worker(turns, wanted=False), Worker(turns, wanted=True)
    await at_work(nursery, first, ahead, wanted)
    first.finish.set()
    await wait_all_tasks_blocked()
    assert (ahead.at_work, wanted.at_work) == (False, True)


async def test_what_nobody_waits_for_gives_way_and_the_one_that_loses_least(nursery: trio.Nursery) -> None:
    turns = Turns(3)
    much, little, ending = (Worker(turns, wanted=False, received=n) for n in (500, 5, None))
    wanted = Worker(turns, wanted=True)
    await at_work(nursery, much, little, ending, wanted)
    assert [each.at_work for each in (much, little, ending, wanted)] == [True, False, True, True]


async def test_no_more_give_way_than_are_wanted(nursery: trio.Nursery) -> None:
    turns = Turns(2)
    one, other = (Worker(turns, wanted=False, received=n) for n in (1, 2))
    wanted = Worker(turns, wanted=True)
    await at_work(nursery, one, other, wanted)
    assert (one.at_work, other.at_work, wanted.at_work) == (False, True, True)
    more = Worker(turns, wanted=True)
    await at_work(nursery, more)
    assert (other.at_work, more.at_work) == (False, True)


async def test_what_is_wanted_never_gives_way(nursery: trio.Nursery) -> None:
    turns = Turns(1)
    first, second = (Worker(turns, wanted=True) for _ in range(2))
    assert await at_work(nursery, first, second) == [True, False]


async def test_what_somebody_comes_to_wait_for_moves_to_the_front(nursery: trio.Nursery) -> None:
    turns = Turns(1)
    busy, early, late = (Worker(turns, wanted=False, received=n) for n in (9, 0, 0))
    await at_work(nursery, busy, early, late)
    turns.want(late.turn)
    await wait_all_tasks_blocked()
    assert (busy.at_work, early.at_work, late.at_work) == (False, False, True)


async def test_who_goes_away_while_it_waits_leaves_the_order_to_the_others(nursery: trio.Nursery) -> None:
    turns = Turns(1)
    first, gone, last = (Worker(turns, wanted=True) for _ in range(3))
    await at_work(nursery, first, gone, last)
    gone.turn.scope.cancel()
    first.finish.set()
    await wait_all_tasks_blocked()
    assert last.at_work


# -- downloads --

IMAGES = [("1-1.dcm", b"first image"), ("1-2.dcm", b"second")]
SERIES = [make_series(f"1.{number}") for number in range(5)]
IN_AN_HOUR = 3600.0


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
async def store(tmp_path: Path, fetcher: FakeFetcher) -> AsyncIterator[Store]:
    async with Store.running(StoreConfig(tmp_path, limit_bytes=1_000_000, parallel=1), fetcher) as store:
        yield store


def ahead(store: Store, number: int) -> Download:
    download = store.fetch_ahead(SERIES[number], time.time())
    assert download is not None
    return download


async def complete(fetcher: FakeFetcher, count: int) -> None:
    transfer = await fetcher.begun(count)
    for image in IMAGES:
        transfer.bring(*image)
    transfer.finish()


async def test_a_reader_gets_the_place_of_what_was_fetched_ahead(store: Store, fetcher: FakeFetcher) -> None:
    early = ahead(store, 0)
    (await fetcher.begun()).bring(*IMAGES[0])
    wanted = store.fetch(SERIES[1])
    await early.over.wait()
    await complete(fetcher, 2)
    await wanted.over.wait()
    assert (early.gave_way, store.state(SERIES[0]), store.state(SERIES[1])) == (True, "remote", "local")
    assert not store.failures.find(SERIES[0])
    assert not fetcher.transfers[0].pack.exists()


async def test_who_wants_what_has_just_given_way_gets_a_download_of_its_own(
    store: Store, fetcher: FakeFetcher
) -> None:
    early = ahead(store, 0)
    (await fetcher.begun()).bring(*IMAGES[0])
    other = store.fetch(SERIES[1])
    assert early.gave_way
    again = store.fetch(SERIES[0])
    assert again is not early
    await complete(fetcher, 2)
    await complete(fetcher, 3)
    await other.over.wait()
    opened = await store.open(SERIES[0], "1-2.dcm")
    assert opened is not None
    assert opened.read(0, 100) == b"second"
    opened.close()


async def test_who_reads_what_is_fetched_ahead_keeps_it_its_place(store: Store, fetcher: FakeFetcher) -> None:
    early = ahead(store, 0)
    await fetcher.begun()
    assert store.fetch(SERIES[0]) is early
    store.fetch(SERIES[1])
    await complete(fetcher, 1)
    await complete(fetcher, 2)
    await early.over.wait()
    assert not early.gave_way


async def test_what_is_here_or_failed_is_not_fetched_ahead(store: Store, fetcher: FakeFetcher) -> None:
    fetcher.contents["1.0"] = IMAGES
    await store.fetch(SERIES[0]).over.wait()
    assert store.fetch_ahead(SERIES[0], time.time()) is None
    arriving = store.fetch(SERIES[1])
    assert store.fetch_ahead(SERIES[1], time.time()) is arriving


async def test_nothing_is_fetched_ahead_offline(tmp_path: Path, fetcher: FakeFetcher) -> None:
    async with Store.running(StoreConfig(tmp_path, 1_000_000, offline=True), fetcher) as store:
        assert store.fetch_ahead(SERIES[0], time.time()) is None


def room_for_one(folder: Path) -> int:
    """Return a limit below what two series take on disk."""
    expected_bytes = 2 * OVERHEAD_BYTES_PER_IMAGE + PACK_OVERHEAD_BYTES
    return most_bytes_on_disk(expected_bytes, folder) + 1


@pytest.mark.parametrize("recently", [True, False], ids=["used recently", "not used since"])
async def test_for_what_is_fetched_ahead_only_what_was_not_used_makes_room(
    recently: bool, tmp_path: Path, fetcher: FakeFetcher
) -> None:
    fetcher.contents.update({series.series_uid: IMAGES for series in SERIES})
    async with Store.running(StoreConfig(tmp_path, room_for_one(tmp_path)), fetcher) as store:
        await store.fetch(SERIES[0]).over.wait()
        download = store.fetch_ahead(SERIES[1], time.time() - IN_AN_HOUR * (1 if recently else -1))
        assert download is not None
        await download.over.wait()
        assert isinstance(download.failure, NoSpace) is recently
        assert store.state(SERIES[0]) == ("local" if recently else "evicted")
        assert store.failures.find(SERIES[1]) is None


async def test_what_counts_as_used_is_spared(tmp_path: Path, fetcher: FakeFetcher) -> None:
    fetcher.contents.update({series.series_uid: IMAGES for series in SERIES})
    async with Store.running(StoreConfig(tmp_path, room_for_one(tmp_path)), fetcher) as store:
        await store.fetch(SERIES[0]).over.wait()
        now = time.time()
        store.note_used(SERIES[0])
        download = store.fetch_ahead(SERIES[1], now)
        assert download is not None
        await download.over.wait()
        assert isinstance(download.failure, NoSpace)
