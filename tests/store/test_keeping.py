"""Pins keep what is at a place, now and later; what is wanted gone goes, but what is pinned or open stays."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tciafs.errors import Misuse, NoSpace
from tciafs.model import Series
from tciafs.store.keeping import Evicted
from tciafs.store.ledger import _path_text
from tciafs.store.store import Store, StoreConfig
from tests.fakes import FakeFetcher, make_series

SIZE_BYTES = 300_000


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(tmp_path / "cache", 1_000_000, patience_s=10.0, failure_memory_s=0.0)


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
async def store(config: StoreConfig, fetcher: FakeFetcher) -> AsyncIterator[Store]:
    async with Store.running(config, fetcher) as store:
        yield store


def series_of(collection: str, uid: str) -> Series:
    return msgspec.structs.replace(make_series(uid, 1, SIZE_BYTES), collection=collection)


async def fill(store: Store, fetcher: FakeFetcher, *series: Series) -> None:
    for each in series:
        fetcher.contents[each.series_uid] = [("1-1.dcm", bytes(SIZE_BYTES))]
        download = store.fetch(each)
        await download.over.wait()
        while store._nursery.child_tasks:
            await trio.lowlevel.checkpoint()


def states(store: Store, *series: Series) -> list[str]:
    return [store.state(each) for each in series]


LUNG = [series_of("Lung", f"1.{number}") for number in range(3)]
BRAIN = [series_of("Brain", f"2.{number}") for number in range(4)]


async def test_what_is_pinned_stays_and_others_make_room(store: Store, fetcher: FakeFetcher) -> None:
    await fill(store, fetcher, LUNG[0], BRAIN[0])
    await store.keeper.pin(["Lung"])
    await fill(store, fetcher, *BRAIN[1:])
    assert states(store, LUNG[0], *BRAIN) == ["local", "evicted", "evicted", "local", "local"]
    await store.keeper.unpin(["Lung"])
    await fill(store, fetcher, BRAIN[0])
    assert states(store, LUNG[0]) == ["evicted"]


async def test_what_comes_later_is_pinned_too_also_after_a_restart(
    config: StoreConfig, fetcher: FakeFetcher
) -> None:
    async with Store.running(config, fetcher) as store:
        await store.keeper.pin(["Lung", "P1", "1.2", "1.0"])
        await fill(store, fetcher, *LUNG[:2])
    async with Store.running(config, fetcher) as store:
        await fill(store, fetcher, *BRAIN[:3])
        assert states(store, *LUNG[:2]) == ["local", "evicted"]
        await store.keeper.pin(["Lung"])
        await fill(store, fetcher, LUNG[1])
        await fill(store, fetcher, *BRAIN)
        assert states(store, *LUNG[:2]) == ["local", "local"]


async def test_a_pin_on_a_folder_above_has_to_be_taken_away_there(store: Store, fetcher: FakeFetcher) -> None:
    await store.keeper.pin(["Lung"])
    await store.keeper.pin(["Lung", "P1", "1.2"])
    await fill(store, fetcher, LUNG[0])
    with pytest.raises(Misuse, match="it lies in a folder that is pinned"):
        await store.keeper.unpin(["Lung", "P1"])
    assert store._shelf.is_pinned("1.0")
    await store.keeper.unpin(["Lung"])
    assert not store._shelf.is_pinned("1.0"), "nor by the pin on the study, which lay below"
    await store.keeper.unpin(["Lung"])


@pytest.mark.expect_log("series 2.1: series 2.1 needs .* are pinned, open or coming in")
async def test_where_all_is_pinned_there_is_no_space(store: Store, fetcher: FakeFetcher) -> None:
    await store.keeper.pin([])
    await fill(store, fetcher, *LUNG)
    download = store.fetch(BRAIN[1])
    await download.over.wait()
    assert isinstance(download.failure, NoSpace)
    assert states(store, *LUNG) == ["local"] * 3


async def test_what_is_evicted_goes_but_for_what_is_pinned_or_open(
    store: Store, fetcher: FakeFetcher
) -> None:
    await fill(store, fetcher, *LUNG[:2], BRAIN[0])
    await store.keeper.pin(LUNG[0].path)
    opened = store.open_local(BRAIN[0], "1-1.dcm")
    assert opened is not None
    with closing(opened):
        before_bytes = store.usage().used_bytes
        done = await store.keeper.evict([], "")
        assert dataclasses.replace(done, size_bytes=0) == Evicted(1, 0, pinned=1, in_use=1, next=None)
        assert store.usage().used_bytes == before_bytes - done.size_bytes < 2 * SIZE_BYTES + 20_000
        assert states(store, *LUNG[:2], BRAIN[0]) == ["local", "evicted", "local"]
    assert await store.keeper.evict(["Brain"], "") == Evicted(1, done.size_bytes, 0, 0, None)
    assert await store.keeper.evict(["Brain"], "") == Evicted(0, 0, 0, 0, None)
    known = store.peek(BRAIN[0])
    assert known is not None
    assert known.layout.images.names == ["1-1.dcm"]


paths = st.lists(st.sampled_from(["a", "ab", 'a"', "a,", "\\", "", "\udcff"]), max_size=3)


@given(paths, paths)
def test_a_path_as_text_begins_with_those_around_it_and_with_no_other(
    one: list[str], other: list[str]
) -> None:
    assert _path_text(one).startswith(_path_text(other)) == (one[: len(other)] == other)
