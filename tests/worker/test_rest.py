"""The rest of a series image by image: when that is done, what the images are called, and when it is not."""

import hashlib
import logging
import random
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.archives.nbia.names import retriever_names
from tciafs.errors import DeadlinePassed, NoSpace, SeriesDamaged, SlowDown, TciafsError, Unreachable
from tciafs.model import ImageKey, Member, Series
from tciafs.store.download import Grant
from tciafs.store.layout import PackedImage, PackedImages
from tciafs.worker import rest
from tciafs.worker.messages import Arrived, Progress
from tciafs.worker.rest import is_less_work
from tests.fakes import Brought, make_series
from tests.worker.test_fetching import Fetched, Granting, dicom

COUNT = 12
REQUEST_BYTES = 64
"""Few, as the images of these tests are small."""

PIXELS = random.Random(17).randbytes(600)
IMAGES = [dicom("1", str(number), f"1.9.{number}") + PIXELS for number in range(1, COUNT + 1)]
NAMES = [f"1-{number:02}.dcm" for number in range(1, COUNT + 1)]
UIDS = [f"1.9.{number}" for number in range(1, COUNT + 1)]
SERIES = make_series("1.2.3", image_count=COUNT, size_bytes=sum(map(len, IMAGES)))
WHOLE: list[Brought] = list(zip(NAMES, IMAGES, strict=True))
CUT = Unreachable("cut")


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(rest, "REQUEST_BYTES", REQUEST_BYTES)
    logging.getLogger("stamina").setLevel(logging.ERROR)
    with stamina.set_testing(True, attempts=5, cap=True):
        yield


@dataclass
class FakeSingleImages:
    """Gives images one by one; see `model.SingleImages`. `failures` come first, each in place of an image."""

    images: dict[str, bytes] = field(default_factory=lambda: dict(zip(UIDS, IMAGES, strict=True)))
    listed: Sequence[str] = tuple(reversed(UIDS))
    failures: list[Exception] = field(default_factory=list)
    vouches: bool = True
    naming: Callable[[Sequence[ImageKey]], Sequence[str] | None] = retriever_names
    deflates_whole_series: bool = True
    asked: list[str] = field(default_factory=list)

    async def image_uids(self, series: Series) -> Sequence[str]:
        assert series == SERIES
        return self.listed

    @asynccontextmanager
    async def image(self, series: Series, sop_instance_uid: str) -> AsyncIterator[Member]:
        self.asked.append(sop_instance_uid)
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, TciafsError):
            raise failure
        async with aclosing(_chunks(self.images[sop_instance_uid])) as chunks:
            yield Member(None, None, chunks)

    def names(self, images: Sequence[ImageKey]) -> Sequence[str] | None:
        return self.naming(images)

    async def check_of(self, series: Series) -> Callable[[Sequence[str]], bool] | None:
        right = sorted(hashlib.md5(data, usedforsecurity=False).hexdigest() for data in IMAGES)
        return (lambda md5s: sorted(md5s) == right) if self.vouches else None


async def _chunks(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 500):
        yield data[start : start + 500]


def fetched(folder: Path, *tries: list[Brought], **how: object) -> Fetched:
    found = Fetched(folder, *tries, series=SERIES)
    found.archive.single_images = FakeSingleImages(**how)  # type: ignore[arg-type]
    return found


def singles(of: Fetched) -> FakeSingleImages:
    assert isinstance(of.archive.single_images, FakeSingleImages)
    return of.archive.single_images


async def test_what_is_missing_comes_one_by_one_by_its_own_name(tmp_path: Path) -> None:
    cut = await fetched(tmp_path, [*WHOLE[:9], CUT]).run()
    assert sorted(singles(cut).asked) == sorted(UIDS[9:])
    assert (cut.tries, cut.contents, cut.arrived) == (1, WHOLE, NAMES)
    assert cut.layout.checks == ("count", "size", "md5")


async def test_all_tries_together_bring_each_image_once(tmp_path: Path) -> None:
    failures = [ValueError(), Unreachable("one"), DeadlinePassed("two")]
    cut = await fetched(tmp_path, [*WHOLE[:9], CUT], WHOLE, failures=failures).run()
    assert (cut.tries, cut.contents) == (2, WHOLE)  # the third try brought none, and so took the whole
    assert singles(cut).asked == [UIDS[11], UIDS[10], UIDS[10]]
    assert "crc32" in cut.layout.checks


async def test_a_server_that_wants_a_pause_is_not_asked_for_the_whole_instead(tmp_path: Path) -> None:
    cut = await fetched(tmp_path, [*WHOLE[:9], CUT], failures=[SlowDown("please", 1.0)]).run()
    assert (cut.tries, len(singles(cut).asked)) == (1, 4)
    cut = fetched(tmp_path, [*WHOLE[:9], CUT], failures=[SlowDown("in an hour", 3600.0)])
    cut.pack = tmp_path / "other"
    with pytest.raises(SlowDown):
        await cut.run()
    assert cut.tries == 1


async def test_a_short_series_of_which_single_images_are_lost_too_is_damaged(tmp_path: Path) -> None:
    short = fetched(tmp_path, WHOLE[:9], failures=[Unreachable("status 500")] * 99)
    with pytest.raises(SeriesDamaged, match="came with 9 of 12 images"):
        await short.run()
    assert (short.tries, len(singles(short).asked)) == (4, 1)


@pytest.mark.parametrize(
    "how",
    [
        {"naming": lambda _images: None},
        {"naming": lambda images: [f"1-{place:03}.dcm" for place in range(len(images))]},
        {"naming": lambda images: None if len(images) == COUNT else retriever_names(images)},
        {"naming": lambda images: ["1-1.dcm"] * COUNT if len(images) == COUNT else retriever_names(images)},
        {"vouches": False},
        {"listed": UIDS[:11]},
        {"listed": [*UIDS, "1.9.99"]},
        {"listed": ()},
        {"listed": [*UIDS[1:], "1.9.99"]},
        {"images": dict.fromkeys(UIDS, IMAGES[0])},
        {"images": {uid: data + b"more" for uid, data in zip(UIDS, IMAGES, strict=True)}},
        {"images": {uid: data[:-1] + b"x" for uid, data in zip(UIDS, IMAGES, strict=True)}},
    ],
)
async def test_what_cannot_be_known_for_certain_is_taken_as_a_whole(
    how: dict[str, object], tmp_path: Path
) -> None:
    cut = await fetched(tmp_path, [*WHOLE[:9], CUT], WHOLE, **how).run()
    assert (cut.tries, cut.contents, cut.arrived) == (2, WHOLE, NAMES)
    assert cut.layout.checks == ("crc32", "count", "size")


async def test_what_is_no_dicom_is_taken_as_a_whole(tmp_path: Path) -> None:
    cut = await fetched(
        tmp_path, [*WHOLE[:9], CUT], WHOLE, images=dict.fromkeys(UIDS, b"no DICOM at all")
    ).run()
    assert (cut.tries, cut.contents) == (2, WHOLE)


async def test_an_image_without_an_end_does_not_fill_the_disk(tmp_path: Path) -> None:
    endless = dict.fromkeys(UIDS, IMAGES[0] * 1000)
    cut = await fetched(tmp_path, [*WHOLE[:9], CUT], WHOLE, images=endless).run()
    assert (cut.tries, cut.contents) == (2, WHOLE)
    told = [report.received_bytes for report in cut.told if isinstance(report, Progress)]
    assert sum(told) < 3 * sum(map(len, IMAGES))


async def test_a_gap_in_the_middle_is_not_filled_one_by_one(tmp_path: Path) -> None:
    gap = await fetched(tmp_path, [*WHOLE[:5], *WHOLE[7:]], WHOLE).run()
    assert (gap.tries, singles(gap).asked) == (2, [])
    assert sorted(gap.contents) == WHOLE


async def test_an_image_is_announced_by_its_name_and_where_it_lies(tmp_path: Path) -> None:
    cut = await fetched(tmp_path, [*WHOLE[:9], CUT]).run()
    told = [report.image for report in cut.told if isinstance(report, Arrived)]
    assert told == list(cut.layout.images)


async def test_a_strict_series_goes_on_one_by_one_too(tmp_path: Path) -> None:
    cut = fetched(tmp_path, [*WHOLE[:9], CUT])
    cut.strict = True
    await cut.run()
    assert (cut.tries, cut.contents, cut.arrived) == (1, WHOLE, NAMES)


# -- the rule --


def packed(folder: Path, data: bytes, count: int) -> tuple[Path, PackedImages]:
    (folder / "pack").write_bytes(data * count)
    return folder / "pack", PackedImages(
        PackedImage(f"1-{place}", place * len(data), len(data), 0) for place in range(count)
    )


@pytest.mark.parametrize("deflates", [True, False])
def test_the_rest_comes_singly_if_that_is_less_than_the_whole_again(tmp_path: Path, deflates: bool) -> None:
    data = bytes(1000) + random.Random(1).randbytes(1000)  # deflated it is half as long
    archive = FakeSingleImages(deflates_whole_series=deflates)
    series = make_series("1.2.3", image_count=20, size_bytes=20 * len(data))
    share = len(zlib.compress(data, 6)) / len(data) if deflates else 1.0
    for count in range(1, 20):
        pack, images = packed(tmp_path, data, count)
        singly_bytes = (20 - count) * (len(data) + REQUEST_BYTES)
        expected = singly_bytes < share * 20 * len(data)
        assert is_less_work(series, images, pack, archive) is expected
    assert 0.5 < share < 0.55 or not deflates


def test_there_is_no_rest_where_it_is_not_known_what_is_missing_or_all_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, series = FakeSingleImages(), make_series("1.2.3", image_count=3, size_bytes=3 * len(PIXELS))
    pack, images = packed(tmp_path, PIXELS, 2)
    assert is_less_work(series, images, pack, archive)
    for unknown in (
        replace(series, image_count=None),
        replace(series, size_bytes=None),
        replace(series, image_count=2),
        replace(series, size_bytes=2 * len(PIXELS)),
        replace(series, size_bytes=0),
    ):
        assert not is_less_work(unknown, images, pack, archive)
    assert not is_less_work(series, PackedImages(), pack, archive)
    monkeypatch.setattr(rest, "MOST_HEADERS", 1)
    assert not is_less_work(series, images, pack, archive)


@given(st.data())
def test_names_are_compared_as_numbers(data: st.DataObject) -> None:
    one, two = (data.draw(st.integers(0, 999)) for _ in range(2))
    width = data.draw(st.integers(1, 5))
    padded = f"{one:0{width}}-{two:0{width}}.dcm"
    assert rest._unpadded(padded) == rest._unpadded(f"{one}-{two}.dcm")
    assert rest._unpadded(padded) != rest._unpadded(f"{one}-{two + 1}.dcm")


# -- images without names ---------------------------------------------------------------------------


async def test_images_without_names_are_called_and_vouched_for_as_the_archive_says(tmp_path: Path) -> None:
    given: list[Brought] = [(None, data) for data in IMAGES]
    came = await fetched(tmp_path, given).run()
    assert came.contents == WHOLE
    assert came.layout.checks == ("crc32", "count", "size", "md5")


async def test_images_without_names_that_the_archive_does_not_vouch_for_are_kept_without(
    tmp_path: Path,
) -> None:
    given: list[Brought] = [(None, data) for data in IMAGES]
    came = await fetched(tmp_path, given, vouches=False).run()
    assert came.contents == WHOLE
    assert came.layout.checks == ("crc32", "count", "size")


async def test_images_without_names_that_have_other_md5s_are_refused(tmp_path: Path) -> None:
    wrong = bytearray(IMAGES[0])
    wrong[-1] ^= 1
    given: list[Brought] = [(None, bytes(wrong)), *((None, data) for data in IMAGES[1:])]
    with pytest.raises(SeriesDamaged, match="MD5"):
        await fetched(tmp_path, given).run(retries=0)


# -- what is here as another version --------------------------------------------------------------


async def earlier(folder: Path) -> Path:
    """Return a pack of the series, as it came from somewhere else and under other names."""
    folder.mkdir()
    came = await Fetched(
        folder, [(f"9-{place}.dcm", data) for place, data in enumerate(IMAGES)], series=SERIES
    ).run()
    return came.pack


async def test_what_is_here_as_another_version_does_not_come_again(tmp_path: Path) -> None:
    here = fetched(tmp_path, WHOLE)
    here.grant = replace_grant(here.grant, await earlier(tmp_path / "earlier"))
    await here.run()
    assert (here.tries, here.contents, here.arrived) == (0, WHOLE, NAMES)
    assert here.layout.checks == ("count", "size", "md5")
    assert here.layout.version == SERIES.version


@pytest.mark.parametrize(
    "how", [{"vouches": False}, {"naming": lambda images: None}, {"failure": Unreachable("away")}, {}]
)
async def test_what_is_not_certain_to_be_the_same_comes_again(tmp_path: Path, how: dict[str, Any]) -> None:
    failure = how.pop("failure", None)
    here = fetched(tmp_path, WHOLE, **how)
    pack = await earlier(tmp_path / "earlier")
    if failure is not None:

        async def check_of(series: Series) -> None:
            raise failure

        here.archive.single_images.check_of = check_of  # type: ignore[union-attr, method-assign]
    elif not how:
        data = bytearray(pack.read_bytes())
        data[10] ^= 1
        pack.write_bytes(data)
    here.grant = replace_grant(here.grant, pack)
    await here.run()
    assert (here.tries, here.contents) == (1, WHOLE)


async def test_what_has_made_room_meanwhile_comes_again(tmp_path: Path) -> None:
    here = fetched(tmp_path, WHOLE)
    here.grant = replace_grant(here.grant, tmp_path / "gone")
    await here.run()
    assert (here.tries, here.contents) == (1, WHOLE)


async def test_what_is_taken_over_is_granted_first(tmp_path: Path) -> None:
    here = fetched(tmp_path, WHOLE)
    here.grant = Grant(0, Granting(sum(map(len, IMAGES))), await earlier(tmp_path / "earlier"))
    with pytest.raises(NoSpace, match="the cache is full"):
        await here.run()


def replace_grant(grant: Grant, pack: Path) -> Grant:
    return Grant(grant.size_bytes, grant.grow_to, pack)
