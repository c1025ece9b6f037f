"""Who gets a part of an image and who the series, in the core of a mount over an archive that gives parts."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pyfuse3
import pytest
import trio

from tciafs.errors import Refused, Unreachable
from tciafs.filesystem import part_or_whole
from tciafs.filesystem.budgets import Budgets
from tciafs.filesystem.identities import Level
from tciafs.filesystem.nodes import Node
from tciafs.filesystem.sources import Source
from tciafs.model import ListedImage, Series
from tciafs.store import ranged
from tciafs.store.parts import BLOCK_BYTES
from tests.fakes import make_series
from tests.filesystem.fakes import CALLER, Core, context, running_core

IMAGES = [(f"1-{n:02}.dcm", random.Random(n).randbytes(200_000)) for n in range(1, 13)]
CONTENTS = dict(IMAGES)
SIZE_BYTES = sum(len(data) for _name, data in IMAGES)
SERIES = make_series("1.2.3", len(IMAGES), SIZE_BYTES)


class FakeParts:
    """Names the images of the series and gives parts of them; `asked_bytes` is how much was asked for."""

    def __init__(self) -> None:
        self.asked_bytes = 0
        self.is_well = True
        self.fails_when_asked = False

    async def survey(self, series: Series) -> Sequence[ListedImage]:
        return [ListedImage(name, len(data)) for name, data in IMAGES]

    def gives(self, series: Series) -> bool:
        return self.is_well

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.is_well = self.is_well and not self.fails_when_asked
        if not self.is_well:
            raise Unreachable("away")
        self.asked_bytes += size_bytes
        return CONTENTS[image.name][first : first + size_bytes]


@pytest.fixture
def parts() -> FakeParts:
    return FakeParts()


@asynccontextmanager
async def running(
    folder: Path, parts: FakeParts, budgets: Budgets | None = None, limit_bytes: int = 10_000_000
) -> AsyncIterator[Core]:
    async with running_core(folder, SERIES, budgets=budgets, limit_bytes=limit_bytes, read_ahead=8) as core:
        core.store.surveys.surveyor = parts
        core.store.ranged.ranger = parts
        yield core


async def opened(core: Core, name: str, pid: int = CALLER) -> int:
    node = await core.node("Lung", "P1", *await _below(core), name)
    info = await core.operations.open(node.inode, 0, context(pid))
    return int(info.fh)


async def _below(core: Core) -> tuple[str, str]:
    patient = await core.node("Lung", "P1")
    (study,) = (await core.tree.folders.get(*_asked(core, patient))).names
    node = await core.node("Lung", "P1", study)
    (series,) = (await core.tree.folders.get(*_asked(core, node))).names
    return study, series


def _asked(core: Core, node: Node) -> tuple[Source, int, Level, tuple[str, ...]]:
    return core.tree.sources.of(node), node.inode, node.level, node.whose


async def read(core: Core, name: str, *spans: tuple[int, int], pid: int = CALLER) -> None:
    """Open an image, read these parts of it (none: all of it, a page of the kernel's after the other)."""
    handle = await opened(core, name, pid)
    for offset, length in spans or [(at, 131_072) for at in range(0, len(CONTENTS[name]), 131_072)]:
        data = await core.operations.read(handle, offset, length)
        assert data == CONTENTS[name][offset : offset + length]
    await core.operations.release(handle)


async def test_the_beginning_of_an_image_is_all_that_opening_it_brings(
    tmp_path: Path, parts: FakeParts
) -> None:
    async with running(tmp_path, parts) as core:
        for name in CONTENTS:
            await read(core, name, (0, 4096), (132, 10))
        assert parts.asked_bytes == len(IMAGES) * BLOCK_BYTES
        assert core.fetched == []
        assert core.store.state(SERIES) == "evicted"


async def test_one_image_comes_alone_and_the_second_brings_the_series(
    tmp_path: Path, parts: FakeParts
) -> None:
    async with running(tmp_path, parts) as core:
        await read(core, "1-03.dcm")
        assert (parts.asked_bytes, core.fetched) == (200_000, [])
        await read(core, "1-04.dcm")
        assert parts.asked_bytes == 400_000
        (transfer,) = [await core.fetcher.begun()]
        assert transfer.series == SERIES


async def test_a_share_of_the_series_brings_it(tmp_path: Path, parts: FakeParts) -> None:
    async with running(tmp_path, parts) as core:
        handles = [await opened(core, name) for name in CONTENTS]
        while (parts.asked_bytes + BLOCK_BYTES) * part_or_whole.SHARE < SIZE_BYTES:
            await core.operations.read(handles.pop(), 100_000, 4096)
            assert core.fetched == []
        await core.operations.read(handles.pop(), 100_000, 4096)
        await core.fetcher.begun()


async def test_of_a_large_image_only_a_long_run_counts(
    tmp_path: Path, parts: FakeParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_or_whole, "LARGE_BYTES", 150_000)
    monkeypatch.setattr(ranged, "LONG_RUN_BYTES", 10_000)
    async with running(tmp_path, parts) as core:
        for name in list(CONTENTS)[:6]:
            await read(core, name, (190_000, 100), (0, 4096), (140_000, 10))
        assert core.fetched == []
        await read(core, "1-12.dcm", (0, 40_000), (40_000, 40_000))
        await core.fetcher.begun()


async def test_what_is_open_is_read_from_the_series_once_that_is_here(
    tmp_path: Path, parts: FakeParts
) -> None:
    async with running(tmp_path, parts) as core:
        handle = await opened(core, "1-12.dcm")
        core.fetcher.contents[SERIES.series_uid] = IMAGES
        await core.fetch(SERIES)
        before = parts.asked_bytes
        data = await core.operations.read(handle, 150_000, 131_072)
        assert data == CONTENTS["1-12.dcm"][150_000:]
        assert parts.asked_bytes == before
        await core.operations.release(handle)
        assert core.store.usage().parts_bytes == 0


async def test_what_is_about_to_come_with_the_series_is_waited_for(tmp_path: Path, parts: FakeParts) -> None:
    async with running(tmp_path, parts) as core, trio.open_nursery() as nursery:
        handle = await opened(core, "1-02.dcm")
        core.store.fetch(SERIES)
        transfer = await core.fetcher.begun()
        before, answers = parts.asked_bytes, list[bytes]()

        async def read_on() -> None:
            answers.append(await core.operations.read(handle, 100_000, 131_072))

        nursery.start_soon(read_on)
        await trio.testing.wait_all_tasks_blocked()
        for name, data in IMAGES[:2]:
            await transfer.make_room(len(data))
            transfer.bring(name, data)
        with trio.fail_after(5):
            while not answers:
                await trio.lowlevel.checkpoint()
        assert answers == [CONTENTS["1-02.dcm"][100_000:]]
        assert parts.asked_bytes == before
        nursery.cancel_scope.cancel()


async def test_where_parts_are_no_more_to_be_had_the_series_comes(tmp_path: Path, parts: FakeParts) -> None:
    async with running(tmp_path, parts) as core:
        handle = await opened(core, "1-07.dcm")
        core.fetcher.contents[SERIES.series_uid] = IMAGES
        parts.is_well = False
        data = await core.operations.read(handle, 150_000, 131_072)
        assert data == CONTENTS["1-07.dcm"][150_000:]
        assert core.fetched == [SERIES.series_uid]
        await read(core, "1-08.dcm")
        await core.operations.release(handle)


async def test_an_archive_that_fails_while_it_is_opened_may_have_the_series_all_the_same(
    tmp_path: Path, parts: FakeParts
) -> None:
    parts.fails_when_asked = True
    async with running(tmp_path, parts) as core:
        core.fetcher.contents[SERIES.series_uid] = IMAGES
        await read(core, "1-08.dcm")
        assert core.fetched == [SERIES.series_uid]


class Admitted(Budgets):
    """A budget without a limit, and the bytes that were admitted so far."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None, None, folder / "kept")
        self.sizes: list[int | None] = []

    def admit(self, process: str, series: Series) -> None:
        super().admit(process, series)
        self.sizes.append(series.size_bytes)


async def test_a_series_that_comes_instead_of_a_part_is_paid_for(tmp_path: Path, parts: FakeParts) -> None:
    parts.fails_when_asked = True
    budgets = Admitted(tmp_path)
    async with running(tmp_path, parts, budgets) as core:
        core.fetcher.contents[SERIES.series_uid] = IMAGES
        await read(core, "1-08.dcm")
        assert core.fetched == [SERIES.series_uid]
        assert sum(size or 0 for size in budgets.sizes) == SIZE_BYTES


async def test_a_look_that_brings_the_series_instead_of_names_is_paid_for(
    tmp_path: Path, parts: FakeParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def survey(_series: Series) -> None:
        pass

    monkeypatch.setattr(parts, "survey", survey)
    async with running(tmp_path, parts) as core:
        core.fetcher.contents[SERIES.series_uid] = IMAGES
        admitted = list[Series]()
        for _ in range(2):
            await core.images.look(SERIES, admitted.append).wait_for(0)
        assert admitted == [SERIES]


async def test_a_process_pays_for_parts_and_is_refused_more(tmp_path: Path, parts: FakeParts) -> None:
    budgets = Budgets(None, 2 * BLOCK_BYTES, tmp_path / "kept")
    async with running(tmp_path, parts, budgets) as core:
        await read(core, "1-01.dcm", (0, 100), (100_000, 100), (180_000, 100))
        with pytest.raises(pyfuse3.FUSEError) as refusal:
            await read(core, "1-01.dcm", (0, 100), (70_000, 100))
        assert refusal.value.errno == Refused.errno
        await read(core, "1-01.dcm", (0, 100), (70_000, 100), pid=CALLER + 1)


async def test_a_series_that_has_no_room_is_read_on_in_parts(tmp_path: Path, parts: FakeParts) -> None:
    async with running(tmp_path, parts, limit_bytes=1_000_000) as core:
        for name in CONTENTS:
            await read(core, name)
            await core.store.keeper.evict([], "")
        assert core.fetched == []
