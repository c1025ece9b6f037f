"""What is here of a series in part, put before what comes of it: into the pack, by real files."""

import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import stamina
import trio

from tciafs.errors import SeriesDamaged
from tciafs.model import Checksums, Delivery, ListedImage, Member, Series
from tciafs.store.download import Grant
from tciafs.store.layout import Held
from tciafs.store.pack import read_layout
from tciafs.worker.fetching import fetch_series
from tciafs.worker.held import HeldBeginnings
from tciafs.worker.messages import Progress, Report
from tests.fakes import FakeArchive, make_series

IMAGES = {"1-1.dcm": b"first image, of some length", "1-2.dcm": b"second", "1-3.dcm": b"the third of them"}
CHECKSUMS = Checksums(
    tuple((name, hashlib.md5(data, usedforsecurity=False).hexdigest()) for name, data in IMAGES.items())
)
SIZE_BYTES = sum(map(len, IMAGES.values()))
SERIES = make_series("1.2.3", image_count=len(IMAGES), size_bytes=SIZE_BYTES)


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    logging.getLogger("stamina").setLevel(logging.ERROR)
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


class Behind:
    """Ranges of an archive of IMAGES; `sent_bytes` counts, `asked` is what was held.

    An image that is `ignored` comes whole whatever is held.
    """

    def __init__(self, ignored: str = "") -> None:
        self.asked: list[Mapping[str, int]] = []
        self.sent_bytes = 0
        self._ignored = ignored

    def gives(self, series: Series) -> bool:
        return True

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        raise AssertionError("parts are the daemon's")

    @asynccontextmanager
    async def images_behind(
        self, series: Series, held: Mapping[str, int]
    ) -> AsyncIterator[AsyncIterator[Delivery]]:
        self.asked.append(dict(held))
        async with aclosing(self._deliveries(held)) as deliveries:
            yield deliveries

    async def _deliveries(self, held: Mapping[str, int]) -> AsyncGenerator[Delivery, None]:
        yield CHECKSUMS
        for name, data in IMAGES.items():
            first = 0 if name == self._ignored else held.get(name, 0)
            yield Member(name, len(data), self._chunks(data[first:]), first=first)

    async def _chunks(self, data: bytes) -> AsyncGenerator[bytes, None]:
        await trio.lowlevel.checkpoint()
        self.sent_bytes += len(data)
        if data:
            yield data


class Fetched:
    """SERIES fetched behind what is held, from a file of parts with a gap before each piece."""

    def __init__(self, folder: Path, *, ignored: str = "") -> None:
        self.archive = FakeArchive()
        self.ranges = Behind(ignored)
        self.archive.ranges = self.ranges
        self.archive.bring(SERIES.series_uid, [CHECKSUMS, *IMAGES.items()])
        self.told: list[Report] = []
        self.pack = folder / "pack"
        self.parts = folder / "parts"
        self.parts.write_bytes(b"")
        self._pieces: dict[str, list[tuple[int, int]]] = {}

    def hold(self, name: str, *pieces: bytes) -> None:
        for piece in pieces:
            place = self.parts.stat().st_size + 3
            with self.parts.open("ab") as file:
                file.write(b"gap" + piece)
            self._pieces.setdefault(name, []).append((place, len(piece)))

    async def run(self) -> "Fetched":
        async def no_more_room(size_bytes: int) -> int:
            raise AssertionError("there is room")

        grant = Grant(10**6, no_more_room, held=Held(str(self.parts), self._pieces))
        tell = self.told.append
        await fetch_series(self.archive, SERIES, self.pack, tell, grant, retries=3, first_wait_s=60.0)
        return self

    @property
    def contents(self) -> dict[str, bytes]:
        data, layout = self.pack.read_bytes(), read_layout(self.pack)
        return {each.name: data[each.offset : each.offset + each.size_bytes] for each in layout.images}

    @property
    def received_bytes(self) -> int:
        return [report.received_bytes for report in self.told if isinstance(report, Progress)][-1]


async def test_what_is_here_does_not_come_again(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path)
    fetched.hold("1-1.dcm", b"first ", b"image")
    fetched.hold("1-2.dcm", b"second")
    await fetched.run()
    assert fetched.contents == IMAGES
    assert fetched.ranges.asked == [{"1-1.dcm": 11, "1-2.dcm": 6}]
    assert fetched.ranges.sent_bytes == fetched.received_bytes == SIZE_BYTES - 17
    assert "md5" in read_layout(fetched.pack).checks
    assert ("images", SERIES.series_uid) not in fetched.archive.asked


async def test_what_comes_whole_all_the_same_is_taken_whole(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, ignored="1-1.dcm")
    fetched.hold("1-1.dcm", b"first ")
    await fetched.run()
    assert fetched.contents == IMAGES
    assert fetched.received_bytes == SIZE_BYTES


async def test_wrong_bytes_are_found_and_nothing_is_held_at_the_next_try(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path)
    fetched.hold("1-1.dcm", b"worst ")
    with pytest.raises(SeriesDamaged):  # the image was told of, and may be open
        await fetched.run()
    assert len(fetched.ranges.asked) == 1


async def test_a_file_that_is_gone_or_cut_short_costs_nothing_but_bytes(tmp_path: Path) -> None:
    gone = Fetched(tmp_path)
    gone.hold("1-1.dcm", b"first ")
    gone.parts.unlink()
    assert (await gone.run()).contents == IMAGES
    assert gone.ranges.asked == []


async def test_a_file_that_was_cut_short_is_left_for_the_archive(tmp_path: Path) -> None:
    cut = Fetched(tmp_path)
    cut.hold("1-1.dcm", b"first ")
    cut.parts.write_bytes(b"gap")
    assert (await cut.run()).contents == IMAGES
    assert cut.archive.asked.count(("images", SERIES.series_uid)) == 1


async def test_what_was_left_out_and_is_not_held_is_damage() -> None:
    async with aclosing(Behind()._chunks(b"")) as nothing:
        member = Member("1-1.dcm", 10, nothing, first=4)
        with HeldBeginnings(None) as held, pytest.raises(SeriesDamaged, match="not here"):
            held.before(member, lambda _: None)
