"""Fetching ahead of who reads series in order: what is a trail, how far it leads, and what never is one."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from trio.testing import wait_all_tasks_blocked

from tciafs.errors import Refused, Unreachable
from tciafs.filesystem.identities import ROOT_INODE, Level, inode_of
from tciafs.filesystem.nodes import Node
from tciafs.filesystem.tree import Tree
from tciafs.model import Series
from tests.filesystem.fakes import CALLER, Core, context, running_core

IMAGES = [("1-1.dcm", b"first image"), ("1-2.dcm", b"second")]
AHEAD = 3


def numbered(number: int, *, patient: str = "P1", study: str = "1.2") -> Series:
    uid = f"{study}.{number:05}"
    return Series("Lung", patient, study, uid, "CT", number=100 + number, image_count=2, size_bytes=17)


TEN = [numbered(number) for number in range(10)]


def running(folder: Path, series: Sequence[Series] = TEN, **how: Any) -> AbstractAsyncContextManager[Core]:
    contents = {each.series_uid: IMAGES for each in series}
    return running_core(folder, *series, contents=contents, **{"read_ahead": AHEAD} | how)


async def nodes_of(tree: Tree) -> dict[str, Node]:
    """Return the nodes of all series by their UID, each looked up once."""
    level = [tree.node(ROOT_INODE)]
    for _ in range(4):
        below = []
        for node in level:
            folder = await tree.folders.get(tree.sources.main, node.inode, node.level, node.whose)
            below += [tree.remember(node, await tree.child(node, name)) for name in folder.names]
        level = below
    return {node.key: node for node in level}


async def read(core: Core, *series: Series, pid: int = CALLER) -> None:
    """Read the first image of series, one after the other, as a program does that opens them."""
    nodes = await nodes_of(core.tree)
    for each in series:
        folder = nodes[each.series_uid]
        image = core.tree.remember(folder, await core.tree.child(folder, "1-1.dcm"))
        if download := core.store.peek_download(each):
            await download.over.wait()
        opened = await core.operations.open(image.inode, 0, context(pid))
        await core.operations.release(opened.fh)
        await wait_all_tasks_blocked()


def uids(*series: Series) -> list[str]:
    return [each.series_uid for each in series]


async def test_two_in_order_bring_the_next_ones_and_no_more(tmp_path: Path) -> None:
    async with running(tmp_path) as core:
        await read(core, TEN[0])
        assert sorted(core.fetched) == uids(TEN[0])
        await read(core, TEN[1])
        assert sorted(core.fetched) == uids(*TEN[: 2 + AHEAD])


async def test_who_goes_on_has_the_same_distance_before_him(tmp_path: Path) -> None:
    async with running(tmp_path) as core:
        await read(core, *TEN[:4])
        assert sorted(core.fetched) == uids(*TEN[: 4 + AHEAD])


async def test_the_end_of_all_is_the_end(tmp_path: Path) -> None:
    async with running(tmp_path) as core:
        await read(core, *TEN[7:])
        assert sorted(core.fetched) == uids(*TEN[7:])


async def test_two_that_are_no_neighbours_are_no_trail(tmp_path: Path) -> None:
    async with running(tmp_path) as core:
        nodes = await nodes_of(core.tree)
        by_inode = sorted(nodes.values(), key=lambda node: node.inode)
        chosen = next(
            [one, other]
            for one in TEN
            for other in TEN
            if TEN.index(other) not in (TEN.index(one), TEN.index(one) + 1)
            and by_inode.index(nodes[other.series_uid]) != by_inode.index(nodes[one.series_uid]) + 1
        )
        await read(core, *chosen)
        assert sorted(core.fetched) == sorted(uids(*chosen))


async def test_the_order_of_the_inode_numbers_is_one_too_since_cp_goes_in_it(tmp_path: Path) -> None:
    async with running(tmp_path) as core:
        nodes = await nodes_of(core.tree)
        order = [node.key for node in sorted(nodes.values(), key=lambda node: node.inode)]
        by_uid = {each.series_uid: each for each in TEN}
        # Three, since two that are neighbours in both orders may be going in either.
        await read(core, *(by_uid[uid] for uid in order[:3]))
        assert set(order[:6]) <= set(core.fetched)


async def test_while_both_orders_are_possible_both_are_followed_by_turns(tmp_path: Path) -> None:
    series = [numbered(number) for number in range(40)]
    async with running(tmp_path, series, read_ahead=2) as core:
        nodes = await nodes_of(core.tree)
        by_inode = sorted(range(len(series)), key=lambda at: nodes[series[at].series_uid].inode)
        first, behind = next(
            (at, by_inode[place + 2])
            for place, at in enumerate(by_inode[:-2])
            if by_inode[place + 1] == at + 1 and by_inode[place + 2] not in (at + 2, at + 3)
        )
        await read(core, series[first], series[first + 1])
        assert set(await fetched(core, series)) == set(uids(*series[first : first + 3], series[behind]))


def two_ways_at_first() -> tuple[list[Series], list[Series]]:
    """Return series by name, and four of them in the order of their inodes: the second is next by name too,
    and the third nearly so."""
    for study in range(1000):
        series = [numbered(number, study=f"1.{study}") for number in range(40)]
        inodes = [inode_of(Level.SERIES, each.path) for each in series]
        by_inode = sorted(range(len(series)), key=inodes.__getitem__)
        for one, two, three, four in zip(by_inode, by_inode[1:], by_inode[2:], by_inode[3:], strict=False):
            if two == one + 1 and three in (one + 3, one + 4):
                return series, [series[at] for at in (one, two, three, four)]
    raise AssertionError("there is no such study")


async def test_the_order_in_which_nothing_was_passed_over_is_the_one(tmp_path: Path) -> None:
    series, way = two_ways_at_first()
    async with running(tmp_path, series, read_ahead=1) as core:
        await read(core, *way[:3])
        assert way[3].series_uid in await fetched(core, series)


async def test_behind_a_study_comes_the_next_one_and_behind_a_patient_the_next_patient(
    tmp_path: Path,
) -> None:
    series = [
        numbered(0, study="1.1"),
        numbered(1, study="1.1"),
        numbered(2, study="1.3"),
        numbered(3, patient="P2", study="2.1"),
        numbered(4, patient="P3", study="3.1"),
    ]
    async with running(tmp_path, series) as core:
        await read(core, *series[:2])
        assert sorted(core.fetched) == uids(*series)


async def test_another_modality_may_be_passed_over_by_who_is_on_his_way(tmp_path: Path) -> None:
    async with running(tmp_path, read_ahead=1) as core:
        await read(core, TEN[0], TEN[1], TEN[3], TEN[5])
        assert sorted(core.fetched) == uids(TEN[0], TEN[1], TEN[2], TEN[3], TEN[4], TEN[5], TEN[6])


async def test_two_readers_are_told_apart_whatever_their_processes(tmp_path: Path) -> None:
    series = [numbered(n) for n in range(40)]
    async with running(tmp_path, series, read_ahead=1) as core:
        for step in range(2):
            await read(core, series[step], pid=CALLER + step)
            await read(core, series[20 + step], pid=CALLER + 10 + step)
        assert set(core.fetched) == set(uids(*series[:3], *series[20:23]))


async def test_before_the_former_is_complete_nobody_is_on_his_way(tmp_path: Path) -> None:
    async with running(tmp_path) as core:
        nodes = await nodes_of(core.tree)
        del core.fetcher.contents[TEN[0].series_uid]
        core.store.fetch(TEN[0])
        (await core.fetcher.begun()).bring(*IMAGES[0])
        for each in TEN[:2]:
            core.ahead.note(nodes[each.series_uid], CALLER, opens=True)
        await wait_all_tasks_blocked()
        assert sorted(core.fetched) == uids(TEN[0])


async def test_who_only_lists_folders_reads_nothing_so_that_nothing_is_fetched_ahead(tmp_path: Path) -> None:
    async with running(tmp_path) as core:
        nodes = await nodes_of(core.tree)
        for each in TEN[:3]:
            await core.operations.opendir(nodes[each.series_uid].inode, context())
            if download := core.store.peek_download(each):
                await download.over.wait()
            await wait_all_tasks_blocked()
        assert sorted(core.fetched) == uids(*TEN[:3])


async def list_folder(core: Core, series: Series) -> None:
    """Begin to list a series, without waiting for it."""
    nodes = await nodes_of(core.tree)
    await core.operations.opendir(nodes[series.series_uid].inode, context())
    await wait_all_tasks_blocked()


async def fetched(core: Core, series: Sequence[Series] = TEN) -> list[str]:
    """Return which series have come in, when all are there that were asked for."""
    for each in series:
        if download := core.store.peek_download(each):
            await download.over.wait()
    return sorted(core.fetched)


async def test_who_read_the_one_before_is_ahead_as_soon_as_he_lists_the_next(tmp_path: Path) -> None:
    async with running(tmp_path) as core:
        await read(core, TEN[0])
        await list_folder(core, TEN[1])
        assert await fetched(core) == uids(*TEN[: 2 + AHEAD])


async def test_who_lists_on_without_reading_is_not_followed(tmp_path: Path) -> None:
    async with running(tmp_path) as core:
        await read(core, TEN[0])
        for each in TEN[1:4]:
            await list_folder(core, each)
        assert await fetched(core) == uids(*TEN[: 2 + AHEAD])


async def test_who_goes_on_is_ahead_by_more_with_each_step(tmp_path: Path) -> None:
    series = [numbered(number) for number in range(20)]
    async with running(tmp_path, series, read_ahead=8) as core:
        for number, ahead in enumerate([0, 3, 6, 8, 8]):
            await read(core, series[number])
            assert await fetched(core, series) == uids(*series[: (number + 1 + ahead) if number else 1])


async def test_nothing_is_fetched_ahead_of_a_crawler(tmp_path: Path) -> None:
    async with running(tmp_path, crawlers=["prog*"]) as core:
        await read(core, *TEN[:3])
        assert sorted(core.fetched) == uids(*TEN[:3])


async def test_zero_switches_it_off(tmp_path: Path) -> None:
    async with running(tmp_path, read_ahead=0) as core:
        await read(core, *TEN[:3])
        assert sorted(core.fetched) == uids(*TEN[:3])


async def test_what_is_fetched_ahead_counts_for_the_reader(tmp_path: Path) -> None:
    class Budget:
        def __init__(self) -> None:
            self.left = 2

        def admit(self, process: str, series: Series) -> None:
            if not self.left:
                raise Refused("no more")
            self.left -= 1

    async with running(tmp_path, budgets=Budget()) as core:
        await read(core, *TEN[:2])
        assert sorted(core.fetched) == uids(*TEN[:4])


async def test_together_they_are_no_more_than_a_share_of_the_cache(tmp_path: Path) -> None:
    series = [
        Series("Lung", "P1", "1.2", f"1.2.{n}", "CT", number=n, image_count=2, size_bytes=200_000)
        for n in range(5)
    ]
    async with running(tmp_path, series, limit_bytes=1_000_000) as core:
        await read(core, *series[:2])
        assert sorted(core.fetched) == uids(*series[:4])


async def test_a_listing_that_cannot_be_had_ends_the_looking_ahead_and_nothing_else(tmp_path: Path) -> None:
    series = [numbered(0), numbered(1), numbered(2, patient="P2", study="2.1"), numbered(3)]
    async with running(tmp_path, series) as core:
        nodes = await nodes_of(core.tree)
        core.tree.folders.clear()

        async def fail(*_: object) -> None:
            raise Unreachable("gone")

        get, core.tree.folders.get = core.tree.folders.get, fail  # type: ignore[method-assign,assignment]
        core.ahead.note(nodes[series[0].series_uid], CALLER, opens=True)
        await wait_all_tasks_blocked()
        core.ahead.note(nodes[series[1].series_uid], CALLER, opens=True)
        await wait_all_tasks_blocked()
        core.tree.folders.get = get  # type: ignore[method-assign]
        await read(core, *series[:2])
        assert sorted(core.fetched) == sorted(uids(*series))
