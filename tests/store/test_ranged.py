"""Images in part: what is asked for, once for all who want it; what is counted, dropped and never mixed."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tciafs.errors import DeadlinePassed, NoSpace, Refused, SeriesDamaged, Unreachable, UnreadableAnswer
from tciafs.model import ListedImage, Series
from tciafs.store.layout import Layout, PackedImage, PackedImages
from tciafs.store.parts import BLOCK_BYTES, PartImage, Parts
from tciafs.store.ranged import LONG_RUN_BYTES
from tciafs.store.store import Store, StoreConfig
from tests.fakes import FakeFetcher, make_series

CONTENTS = {
    f"1-{number}.dcm": random.Random(number).randbytes(size_bytes)
    for number, size_bytes in enumerate([100_000, 1, BLOCK_BYTES, 0, 3_000_000], 1)
}
SIZE_BYTES = sum(map(len, CONTENTS.values()))
SERIES = make_series("1.2.3", len(CONTENTS), SIZE_BYTES)
PATIENCE_S = 5.0


def layout_of(series: Series) -> Layout:
    images, end = PackedImages(), 0
    for name, data in CONTENTS.items():
        images.append(PackedImage(name, end, len(data), 0))
        end += len(data)
    return Layout(series.series_uid, series.version, images, (), series.path)


class FakeRanger:
    """Gives parts of CONTENTS once `open` is set, or fails; `asked` are names, first bytes and sizes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.failure: Exception | None = None
        self.lacks_bytes = 0
        self.is_well = True
        self.open = trio.Event()
        self.open.set()

    def gives(self, series: Series) -> bool:
        return self.is_well

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        self.asked.append((image.name, first, size_bytes))
        await self.open.wait()
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        return CONTENTS[image.name][first : first + size_bytes - self.lacks_bytes]


@pytest.fixture
async def ranger() -> FakeRanger:
    return FakeRanger()


@asynccontextmanager
async def opened(folder: Path, ranger: FakeRanger, limit_bytes: int = 10_000_000) -> AsyncIterator[Store]:
    config = StoreConfig(folder, limit_bytes, patience_s=PATIENCE_S)
    async with Store.running(config, FakeFetcher({SERIES.series_uid: list(CONTENTS.items())})) as store:
        store.ranged.ranger = ranger
        yield store


async def part_of(store: Store, name: str = "1-1.dcm", series: Series = SERIES) -> PartImage:
    layout = layout_of(series)
    image = layout.images.find(name)
    assert image is not None
    return await store.ranged.open(series, layout, image)


async def read(store: Store, part: PartImage, offset: int, length: int) -> bytes:
    await store.ranged.bring(part, offset, length)
    assert not part.lacks(offset, length)
    at_hand = part.read_at_hand(offset, length)
    data = part.read(offset, length)
    assert at_hand in (None, data)
    return data


async def test_only_the_blocks_that_are_read_are_asked_for(tmp_path: Path, ranger: FakeRanger) -> None:
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store)
        assert await read(store, part, 40_000, 10) == CONTENTS["1-1.dcm"][40_000:40_010]
        assert await read(store, part, 33_000, 20_000) == CONTENTS["1-1.dcm"][33_000:53_000]
        assert ranger.asked == [("1-1.dcm", BLOCK_BYTES, BLOCK_BYTES)]
        assert await read(store, part, 90_000, 50_000) == CONTENTS["1-1.dcm"][90_000:]
        assert ranger.asked[1:] == [("1-1.dcm", 65_536, 100_000 - 65_536)]
        assert store.ranged.bytes_of(SERIES) == BLOCK_BYTES + 100_000 - 65_536
        assert (store.usage().parts_bytes > 60_000, store.usage().series_count) == (True, 0)
        part.close()


async def test_who_reads_on_and_on_gets_more_at_once_and_who_jumps_does_not(
    tmp_path: Path, ranger: FakeRanger
) -> None:
    name = "1-5.dcm"
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store, name)
        for offset in range(0, 2_000_000, BLOCK_BYTES):
            await store.ranged.bring(part, offset, BLOCK_BYTES)
        sizes = [size_bytes for _name, _first, size_bytes in ranger.asked]
        assert sizes[: LONG_RUN_BYTES // BLOCK_BYTES] == [BLOCK_BYTES] * (LONG_RUN_BYTES // BLOCK_BYTES)
        assert len(sizes) < 12
        ranger.asked.clear()
        other = await part_of(store, "1-1.dcm")
        await store.ranged.bring(other, 99_999, 1)
        await store.ranged.bring(other, 0, 1)
        assert [each[1:] for each in ranger.asked] == [(98_304, 1696), (0, BLOCK_BYTES)]
        part.close()
        other.close()


async def test_many_who_want_a_block_ask_once(tmp_path: Path, ranger: FakeRanger) -> None:
    ranger.open = trio.Event()
    async with opened(tmp_path, ranger) as store, trio.open_nursery() as nursery:
        parts = [await part_of(store) for _ in range(5)]
        for part in parts:
            nursery.start_soon(store.ranged.bring, part, 0, 40_000)
        await trio.testing.wait_all_tasks_blocked()
        ranger.open.set()
        nursery.start_soon(store.ranged.bring, parts[0], 30_000, 10_000)
    assert ranger.asked == [("1-1.dcm", 0, 2 * BLOCK_BYTES)]


async def test_where_one_is_interrupted_another_goes_on(tmp_path: Path, ranger: FakeRanger) -> None:
    ranger.open = trio.Event()
    async with opened(tmp_path, ranger) as store, trio.open_nursery() as nursery:
        part, first = await part_of(store), trio.CancelScope()
        nursery.start_soon(_cancelled_within, first, store, part)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(store.ranged.bring, part, 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        ranger.open.set()
    assert not part.lacks(0, 1)
    assert len(ranger.asked) == 2


async def _cancelled_within(scope: trio.CancelScope, store: Store, part: PartImage) -> None:
    with scope:
        await store.ranged.bring(part, 0, 1)


@pytest.mark.parametrize("failure", [Unreachable("away"), SeriesDamaged("changed")])
async def test_a_failure_is_shared_for_a_while_and_forgotten_once_there_are_bytes(
    tmp_path: Path, ranger: FakeRanger, failure: Exception
) -> None:
    ranger.failure = failure
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store)
        for _ in range(2):
            with pytest.raises(type(failure)):
                await store.ranged.bring(part, 0, 1)
        assert len(ranger.asked) == 1
        assert store.failures.find(SERIES) is not None
        store.failures.forget(lambda _: True)
        ranger.failure = None
        assert await read(store, part, 0, 10) == CONTENTS["1-1.dcm"][:10]
        assert store.failures.find(SERIES) is None
        part.close()


async def test_where_parts_are_no_more_to_be_had_the_series_may_be(
    tmp_path: Path, ranger: FakeRanger
) -> None:
    ranger.failure, ranger.is_well = Unreachable("away"), False
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store)
        with pytest.raises(Unreachable):
            await store.ranged.bring(part, 0, 1)
        assert not store.ranged.are_to_be_had(SERIES)
        assert store.failures.find(SERIES) is None
        part.close()


async def test_a_refusal_says_nothing_of_the_series(tmp_path: Path, ranger: FakeRanger) -> None:
    ranger.failure = Refused("spent")
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store)
        with pytest.raises(Refused, match="spent"):
            await store.ranged.bring(part, 0, 1)
        assert store.failures.find(SERIES) is None
        ranger.failure = None
        store.pausing.begin()
        with pytest.raises(Refused, match="paused"):
            await store.ranged.bring(part, 0, 1)
        store.pausing.end()
        await store.ranged.bring(part, 0, 1)
        part.close()


async def test_fewer_bytes_than_were_asked_for_are_not_shown(tmp_path: Path, ranger: FakeRanger) -> None:
    ranger.lacks_bytes = 1
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store)
        with pytest.raises(UnreadableAnswer, match="32767 bytes came"):
            await store.ranged.bring(part, 0, 1)
        assert part.lacks(0, 1)
        with pytest.raises(SeriesDamaged, match="not in the cache"):
            part.read(0, 1)
        part.close()


async def test_a_wait_has_a_bound(
    tmp_path: Path, ranger: FakeRanger, autojump_clock: trio.testing.MockClock
) -> None:
    ranger.open = trio.Event()
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store)
        with pytest.raises(DeadlinePassed, match=r"1-1\.dcm of series 1\.2\.3 came for 5 s"):
            await store.ranged.bring(part, 0, 1)
        part.close()


# Room


async def test_what_is_open_makes_no_room(tmp_path: Path, ranger: FakeRanger) -> None:
    async with opened(tmp_path, ranger, limit_bytes=190_000) as store:
        one, other = await part_of(store), await part_of(store, series=make_series("1.2.4", 5, SIZE_BYTES))
        await store.ranged.bring(one, 0, 100_000)
        await store.ranged.bring(other, 0, 60_000)
        with pytest.raises(NoSpace):
            await store.ranged.bring(other, 60_000, 40_000)
        one.close()
        assert await read(store, other, 60_000, 40_000) == CONTENTS["1-1.dcm"][60_000:]
        assert store.ranged.bytes_of(SERIES) == 0
        other.close()


async def test_the_oldest_parts_go_first_and_no_wrong_byte_is_read_after_that(
    tmp_path: Path, ranger: FakeRanger
) -> None:
    async with opened(tmp_path, ranger, limit_bytes=230_000) as store:
        for uid in ("1.2.3", "1.2.4", "1.2.5"):
            series = make_series(uid, 5, SIZE_BYTES)
            part = await part_of(store, series=series)
            assert await read(store, part, 0, 100_000) == CONTENTS["1-1.dcm"]
            part.close()
        held = [store.ranged.bytes_of(make_series(uid, 5, SIZE_BYTES)) for uid in ("1.2.3", "1.2.4", "1.2.5")]
        assert held == [0, 100_000, 100_000]
        assert len(list((tmp_path / "incoming").glob("*/*"))) == 2
        part = await part_of(store)
        assert await read(store, part, 0, 100_000) == CONTENTS["1-1.dcm"]
        part.close()


async def test_another_version_begins_anew(tmp_path: Path, ranger: FakeRanger) -> None:
    async with opened(tmp_path, ranger) as store:
        old = await part_of(store)
        await store.ranged.bring(old, 0, 1)
        new = await part_of(store, series=msgspec.structs.replace(SERIES, released=None, image_count=6))
        assert new.lacks(0, 1)
        assert old.read(0, 5) == CONTENTS["1-1.dcm"][:5]
        assert new.source is not old.source
        new.close()
        old.close()
        assert store.ranged.bytes_of(SERIES) == 0


async def test_a_series_that_came_whole_needs_no_parts(tmp_path: Path, ranger: FakeRanger) -> None:
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store)
        await store.ranged.bring(part, 0, 1)
        download = store.fetch(SERIES)
        await download.over.wait()
        assert download.failure is None
        assert store.ranged.bytes_of(SERIES) == 0
        assert part.read(0, 5) == CONTENTS["1-1.dcm"][:5]
        assert store.usage().parts_bytes > 0
        part.close()
        assert store.usage().parts_bytes == 0


async def test_what_is_here_whole_or_long_is_held_for_the_series(tmp_path: Path, ranger: FakeRanger) -> None:
    async with opened(tmp_path, ranger) as store:
        assert store._parts.held(SERIES) is None
        wants = {"1-1.dcm": 100_000, "1-2.dcm": 1, "1-3.dcm": 1, "1-5.dcm": 1_100_000}
        parts = {name: await part_of(store, name) for name in wants}
        for name, size_bytes in wants.items():
            for offset in range(0, size_bytes, BLOCK_BYTES):
                await store.ranged.bring(parts[name], offset, min(BLOCK_BYTES, size_bytes - offset))
        await store.ranged.bring(parts["1-5.dcm"], 2_900_000, 10)
        held = store._parts.held(SERIES)
        assert held is not None
        file = Path(held.path).read_bytes()
        beginnings = {
            name: b"".join(file[place : place + size] for place, size in pieces)
            for name, pieces in held.pieces.items()
        }
        assert all(CONTENTS[name].startswith(beginning) for name, beginning in beginnings.items())
        assert {name: len(each) for name, each in beginnings.items() if name != "1-5.dcm"} == {
            "1-1.dcm": 100_000,
            "1-2.dcm": 1,
            "1-3.dcm": BLOCK_BYTES,
        }
        assert 1_100_000 <= len(beginnings["1-5.dcm"]) < 2_900_000
        for part in parts.values():
            part.close()


async def test_a_short_beginning_is_not_worth_two_requests(tmp_path: Path, ranger: FakeRanger) -> None:
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store, "1-5.dcm")
        await store.ranged.bring(part, 0, 10)
        held = store._parts.held(SERIES)
        assert held is not None
        assert held.pieces == {}
        part.close()


async def test_they_are_private_and_gone_with_the_run(tmp_path: Path, ranger: FakeRanger) -> None:
    async with opened(tmp_path, ranger) as store:
        part = await part_of(store)
        await store.ranged.bring(part, 0, 1)
        (file,) = (tmp_path / "incoming").glob("*/*")
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.stat().st_size == BLOCK_BYTES
    assert list((tmp_path / "incoming").glob("*/*")) == []
    part.close()


# The file


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 92), st.integers(1, 5)), max_size=30), st.data())
async def test_a_part_is_what_was_written_wherever_its_blocks_lie(
    runs: Sequence[tuple[int, int]], drawn: st.DataObject
) -> None:
    content, layout = CONTENTS["1-5.dcm"], layout_of(SERIES)
    image = layout.images.find("1-5.dcm")
    assert image is not None
    with TemporaryDirectory() as folder, closing(Parts(Path(folder), lambda _: Path(folder, "a"))) as parts:
        part = parts.open(SERIES, layout, image)
        for first, count in runs:
            blocks = range(first, min(first + count, -(-len(content) // BLOCK_BYTES)))
            if blocks and len(part.parts.missing(image, blocks)) == len(blocks):
                some = content[blocks.start * BLOCK_BYTES : blocks.stop * BLOCK_BYTES]
                place = parts.grow(part.parts, len(some))
                part.parts.write(place, some)
                part.parts.note(image, blocks, place)
        for _ in range(5):
            offset, length = drawn.draw(st.integers(0, len(content) + 9)), drawn.draw(st.integers(0, 300_000))
            if part.lacks(offset, length):
                with pytest.raises(SeriesDamaged):
                    part.read(offset, length)
                continue
            assert part.read(offset, length) == content[offset : offset + length]
            assert part.read_at_hand(offset, length) in (None, content[offset : offset + length])
        part.close()
