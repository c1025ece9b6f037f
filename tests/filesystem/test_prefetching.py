"""Fetching for a command: what is listed, how many begin, and how it is told of each."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tciafs.control.values import PrefetchedSeries
from tciafs.errors import Misuse, NoSuchName, Unreachable
from tciafs.filesystem import prefetching as module
from tciafs.filesystem.prefetching import MOST_A_TURN, Prefetching
from tciafs.model import Series
from tests.filesystem.fakes import Core, running_core

IMAGES = [("1-1.dcm", b"first image"), ("1-2.dcm", b"second")]
SERIES = [
    Series("Lung", patient, study, f"{study}.{number}", "CT", number=number, image_count=2, size_bytes=17)
    for patient, study in (("P1", "1.1"), ("P1", "1.2"), ("P2", "2.1"))
    for number in (1, 2)
]
PATHS = [each.path for each in SERIES]
SINCE = 1.0
AT_ONCE = 2


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path, *SERIES) as core:
        yield core


@pytest.fixture
def prefetching(core: Core) -> Prefetching:
    return Prefetching(core.tree, core.store, AT_ONCE)


async def states(prefetching: Prefetching, *paths: tuple[str, ...]) -> list[str]:
    return [each.state for each in (await prefetching.turn(paths or PATHS, SINCE)).series]


@pytest.mark.parametrize(
    ("path", "found"),
    [("/", PATHS), ("/Lung", PATHS), ("/Lung/P1", PATHS[:4]), ("/Lung/P2", PATHS[4:])],
)
async def test_the_series_at_a_path_are_listed_in_the_order_of_their_folders(
    path: str, found: list[tuple[str, ...]], prefetching: Prefetching
) -> None:
    page = await prefetching.listed(path, ())
    assert ([each.path for each in page.series], page.more) == (found, False)


async def test_the_path_of_a_series_is_that_one(core: Core, prefetching: Prefetching) -> None:
    names: list[str] = []
    for whose in ((), ("Lung",), ("Lung", "P1"), ("Lung", "P1", "1.2")):
        node = core.tree.root
        for name in names:
            node = core.tree.remember(node, await core.tree.child(node, name))
        folder = await core.tree.folders.get(node.inode, node.level, node.whose)
        names.append(folder.names[{0: 0, 1: 0, 2: 1, 3: 1}[len(whose)]])
    page = await prefetching.listed("/" + "/".join(names), ())
    assert [each.path for each in page.series] == [PATHS[3]]


async def test_a_page_goes_on_where_the_one_before_ended(
    prefetching: Prefetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_SERIES", 4)
    first = await prefetching.listed("/Lung", ())
    second = await prefetching.listed("/Lung", first.series[-1].path)
    assert [each.path for each in (*first.series, *second.series)] == PATHS
    assert (first.more, second.more) == (True, False)
    with pytest.raises(Misuse):
        await prefetching.listed("/Lung/P2", PATHS[0])


async def test_a_path_that_is_not_there_is_said_so(prefetching: Prefetching) -> None:
    with pytest.raises(NoSuchName):
        await prefetching.listed("/Lung/P9", ())


async def test_no_more_begin_than_may_come_at_once(core: Core, prefetching: Prefetching) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(states, prefetching)
        await core.fetcher.begun(AT_ONCE)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(core.fetched) == [each.series_uid for each in SERIES[:AT_ONCE]]
        nursery.cancel_scope.cancel()


async def test_a_turn_ends_when_one_has_ended_and_the_next_one_begins_another(
    core: Core, prefetching: Prefetching
) -> None:
    core.fetcher.contents[SERIES[0].series_uid] = IMAGES
    assert await states(prefetching) == ["fetched", "coming", "waiting", "waiting", "waiting", "waiting"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(states, prefetching)
        await core.fetcher.begun(3)
        assert len(core.store.downloads()) == AT_ONCE
        nursery.cancel_scope.cancel()


async def test_all_are_here_in_the_end_and_then_nothing_is_fetched(
    core: Core, prefetching: Prefetching
) -> None:
    core.fetcher.contents.update({each.series_uid: IMAGES for each in SERIES})
    while set(await states(prefetching)) != {"here"}:
        pass
    assert sorted(core.fetched) == sorted(each.series_uid for each in SERIES)
    assert set(await states(prefetching)) == {"here"}
    assert len(core.fetched) == len(SERIES)


@pytest.mark.expect_log("series 1.1.1: gone")
async def test_one_that_failed_is_told_with_its_reason_also_when_asked_again(
    core: Core, prefetching: Prefetching
) -> None:
    async def fail() -> None:
        (await core.fetcher.begun()).end(Unreachable("gone"))

    failed = PrefetchedSeries(SERIES[0].series_uid, "failed", error="Unreachable", message="gone")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        assert (await prefetching.turn(PATHS[:1], SINCE)).series == (failed,)
    assert (await prefetching.turn(PATHS[:1], SINCE)).series == (failed,)


async def test_what_was_fetched_for_the_same_command_makes_no_room_for_more(tmp_path: Path) -> None:
    async with running_core(tmp_path, *SERIES, limit_bytes=12_300) as core:
        core.fetcher.contents.update({each.series_uid: IMAGES for each in SERIES})
        prefetching = Prefetching(core.tree, core.store, 1)
        since = time.time()
        while (turn := await prefetching.turn(PATHS[:2], since)).series[0].state != "here":
            pass
        while turn.series[1].state in ("waiting", "coming"):
            turn = await prefetching.turn(PATHS[:2], since)
        assert [each.state for each in turn.series] == ["here", "failed"]
        assert turn.series[1].error == "NoSpace"


async def test_one_that_gives_way_to_a_reader_is_begun_again(tmp_path: Path) -> None:
    async with running_core(tmp_path, *SERIES) as core:
        prefetching = Prefetching(core.tree, core.store, 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(states, prefetching, *PATHS[:3])
            await core.fetcher.begun(3)
            nursery.cancel_scope.cancel()
        core.fetcher.contents.update({each.series_uid: IMAGES for each in SERIES})
        await core.store.fetch(SERIES[5]).over.wait()
        left = {transfer.series.series_uid for transfer in core.fetcher.transfers if transfer.pack.exists()}
        (gave_way,) = (each for each in SERIES[:3] if each.series_uid not in left)
        turn = await prefetching.turn(PATHS[:3], SINCE)
        assert (gave_way.series_uid, "failed") not in {(each.series_uid, each.state) for each in turn.series}
        while core.store.state(gave_way) != "local":
            await trio.lowlevel.checkpoint()


async def test_one_that_the_archive_lists_no_more_is_gone(core: Core, prefetching: Prefetching) -> None:
    assert await states(prefetching, ("Lung", "P1", "1.1", "1.1.9")) == ["gone"]


async def test_a_turn_of_too_many_is_misuse(prefetching: Prefetching) -> None:
    with pytest.raises(Misuse):
        await prefetching.turn(PATHS[:1] * (MOST_A_TURN + 1), SINCE)
    with pytest.raises(Misuse):
        await prefetching.turn([("Lung", "P1")], SINCE)


async def test_offline_says_so(tmp_path: Path) -> None:
    async with running_core(tmp_path, *SERIES) as core:
        await core.tree.folders.get(1, core.tree.root.level, ())
        await Prefetching(core.tree, core.store, 1).listed("/", ())
    async with running_core(tmp_path, *SERIES, offline=True) as core:
        turn = await Prefetching(core.tree, core.store, 1).turn(PATHS[:1], SINCE)
        assert (turn.series[0].state, turn.series[0].error) == ("failed", "Offline")
