"""Annotations beside the images of a series: kept all or not at all, and never at the cost of images."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import stamina
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.archives.http.errors import RequestRejected
from tciafs.errors import SeriesDamaged, SlowDown, Unreachable, UnreadableAnswer
from tciafs.model import Checksums, ImageKey, Member, Series
from tciafs.store.layout import Layout
from tciafs.store.pack import read_layout
from tciafs.worker.fetching import fetch_series
from tciafs.worker.messages import Arrived, Finished, Report, Verified
from tests.fakes import Annotation, Broken, Brought, FakeAnnotations, FakeArchive, make_series
from tests.worker.test_fetching import ENOUGH, ONE, SIZE_BYTES, TWO, md5

SERIES = replace(make_series("1.2.3", image_count=2, size_bytes=SIZE_BYTES), has_annotations=True)
MARKS, NOTES = Annotation("086.xml", b"<marks/>"), Annotation("069.xml", b"<notes of='somebody'/>")
ANNOTATION_BYTES = len(MARKS.data) + len(NOTES.data)
WHOLE: list[Brought] = [ONE, TWO, MARKS, NOTES, md5(ONE, TWO)]
RETRIES = 3


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    logging.getLogger("stamina").setLevel(logging.ERROR)
    with stamina.set_testing(True, attempts=RETRIES + 1, cap=True):
        yield


class Vouching:
    """Says of a series what its MD5s are, and gives no single image; see `model.SingleImages`."""

    deflates_whole_series = True

    def __init__(self, *images: tuple[str, bytes]) -> None:
        self.asked = 0
        self._md5s = sorted(digest for _, digest in md5(*images).md5_by_name)

    async def image_uids(self, series: Series) -> Sequence[str]:
        raise NotImplementedError

    def image(self, series: Series, sop_instance_uid: str) -> AbstractAsyncContextManager[Member]:
        raise NotImplementedError

    def names(self, images: Sequence[ImageKey]) -> Sequence[str] | None:
        return None

    async def check_of(self, series: Series) -> Callable[[Sequence[str]], bool] | None:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return lambda md5s: sorted(md5s) == self._md5s


class Fetched:
    """A series brought with annotations in so many tries; without them, it comes as `plain` says."""

    def __init__(
        self,
        folder: Path,
        *tries: Sequence[Brought],
        listed_bytes: int | Exception | None = None,
        plain: Sequence[Brought] = (ONE, TWO, md5(ONE, TWO)),
    ) -> None:
        self.archive = FakeArchive()
        self.archive.bring(SERIES.series_uid, plain)
        self.annotations = FakeAnnotations(*tries, listed_bytes=listed_bytes)
        self.archive.annotations = self.annotations
        self.pack = folder / "pack"
        self.told: list[Report] = []

    async def run(self, retries: int = RETRIES, *, strict: bool = False) -> "Fetched":
        await fetch_series(
            self.archive,
            SERIES,
            self.pack,
            self.told.append,
            ENOUGH,
            retries=retries,
            first_wait_s=60.0,
            strict=strict,
        )
        return self

    @property
    def plain_tries(self) -> int:
        return self.archive.asked.count(("images", SERIES.series_uid))

    @property
    def layout(self) -> Layout:
        return read_layout(self.pack)

    @property
    def images(self) -> list[tuple[str, bytes]]:
        data = self.pack.read_bytes()
        return [(each.name, data[each.offset : each.offset + each.size_bytes]) for each in self.layout.images]

    @property
    def kept(self) -> list[Annotation]:
        data = self.pack.read_bytes()
        return [
            Annotation(each.name, data[each.offset : each.offset + each.size_bytes])
            for each in self.layout.annotations
        ]

    def assert_images_only(self, reason: str, *checks: str) -> None:
        assert self.images == [ONE, TWO]
        assert self.kept == []
        assert reason in self.layout.lacks
        assert self.layout.checks == ("crc32", *checks)
        assert self.told[-2:] == [
            Verified(self.layout.checks, self.layout.routes, self.layout.lacks),
            Finished(),
        ]
        assert not any(isinstance(each, Arrived) and each.is_annotation for each in self.told)


async def test_annotations_come_with_the_images_in_one_download(tmp_path: Path) -> None:
    fetched = await Fetched(tmp_path, WHOLE, listed_bytes=ANNOTATION_BYTES).run()
    assert fetched.images == [ONE, TWO]
    assert fetched.kept == [MARKS, NOTES]
    assert fetched.layout.checks == ("crc32", "count", "size", "md5", "annotations")
    assert (fetched.layout.lacks, fetched.plain_tries) == ("", 0)


@pytest.mark.parametrize("strict", [False, True])
async def test_annotations_are_told_of_behind_all_images_and_before_the_verdict(
    tmp_path: Path, strict: bool
) -> None:
    mixed: list[Brought] = [MARKS, ONE, NOTES, TWO, md5(ONE, TWO)]
    fetched = await Fetched(tmp_path, mixed).run(strict=strict)
    arrived = [(each.image.name, each.is_annotation) for each in fetched.told if isinstance(each, Arrived)]
    assert arrived == [(ONE[0], False), (TWO[0], False), (MARKS.name, True), (NOTES.name, True)]
    assert isinstance(fetched.told[-2], Verified)
    assert fetched.images == [ONE, TWO]
    assert fetched.kept == [MARKS, NOTES]


@pytest.mark.parametrize("listed_bytes", [None, Unreachable("gone"), UnreadableAnswer("odd")])
async def test_without_a_sum_to_compare_they_are_kept_unchecked(
    tmp_path: Path, listed_bytes: int | Exception | None
) -> None:
    fetched = await Fetched(tmp_path, WHOLE, listed_bytes=listed_bytes).run()
    assert fetched.kept == [MARKS, NOTES]
    assert "annotations" not in fetched.layout.checks


@pytest.mark.parametrize(
    ("brought", "listed_bytes", "reason"),
    [
        ([MARKS], ANNOTATION_BYTES, f"8 of {ANNOTATION_BYTES} bytes"),
        ([], ANNOTATION_BYTES, "sent none"),
        ([], None, "sent none"),
        ([MARKS, Annotation("../../069.xml", b"x")], None, "unsafe name"),
        ([Annotation("a\0b", b"x"), MARKS], None, "unsafe name"),
        ([MARKS, MARKS], None, "two files"),
        ([MARKS, Annotation(ONE[0], b"x")], None, "two files"),
        ([MARKS, Checksums((("086.xml", "0" * 32),))], None, "086.xml does not have the MD5"),
    ],
)
async def test_what_is_wrong_with_annotations_costs_them_alone_and_no_second_download(
    tmp_path: Path, brought: list[Brought], listed_bytes: int | None, reason: str
) -> None:
    fetched = await Fetched(tmp_path, [ONE, TWO, *brought, md5(ONE, TWO)], listed_bytes=listed_bytes).run()
    fetched.assert_images_only(reason, "count", "size", "md5")
    assert (fetched.annotations.tries, fetched.plain_tries) == (1, 0)


async def test_an_annotation_whose_md5_is_told_is_held_against_it(tmp_path: Path) -> None:
    digest = hashlib.md5(MARKS.data, usedforsecurity=False).hexdigest()
    told = Checksums((*md5(ONE, TWO).md5_by_name, (MARKS.name, digest)))
    assert (await Fetched(tmp_path, [ONE, TWO, MARKS, told]).run()).kept == [MARKS]


async def test_a_zip_that_ends_at_a_lost_annotation_has_its_images_vouched_for(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [ONE, TWO, MARKS], listed_bytes=ANNOTATION_BYTES)
    fetched.archive.single_images = Vouching(ONE, TWO)
    (await fetched.run()).assert_images_only("8 of", "count", "size", "md5")
    assert fetched.plain_tries == 0, "the MD5 of the whole series cost no second download"


@pytest.mark.parametrize("error", [Unreachable("cut"), UnreadableAnswer("CRC"), SeriesDamaged("short")])
async def test_annotations_that_broke_off_are_tried_once_more(tmp_path: Path, error: Exception) -> None:
    broken: list[Brought] = [ONE, TWO, Annotation(MARKS.name, MARKS.data, error)]
    fetched = await Fetched(tmp_path, broken, WHOLE, listed_bytes=ANNOTATION_BYTES).run()
    assert fetched.kept == [MARKS, NOTES]
    assert fetched.plain_tries == 0
    names = [each.image.name for each in fetched.told if isinstance(each, Arrived)]
    assert names == [ONE[0], TWO[0], MARKS.name, NOTES.name], "each was told of once"


@pytest.mark.parametrize("error", [Unreachable("cut"), UnreadableAnswer("CRC"), SeriesDamaged("short")])
async def test_images_that_are_here_and_vouched_for_are_not_fetched_again(
    tmp_path: Path, error: Exception
) -> None:
    fetched = Fetched(tmp_path, [ONE, TWO, Annotation(MARKS.name, MARKS.data, error)])
    fetched.archive.single_images = Vouching(ONE, TWO)
    (await fetched.run()).assert_images_only(str(error), "count", "size", "md5")
    assert (fetched.annotations.tries, fetched.plain_tries) == (2, 0)


@pytest.mark.parametrize("retries", [0, 1, RETRIES])
@pytest.mark.parametrize(
    "error",
    [
        Unreachable("500"),
        UnreadableAnswer("a web page instead"),
        SeriesDamaged("an empty answer"),
        RequestRejected("400", 400, "no such parameter"),
        RequestRejected("404", 404, "not here"),
    ],
)
async def test_a_server_that_cannot_do_it_gives_the_images(
    tmp_path: Path, error: Exception, retries: int
) -> None:
    fetched = await Fetched(tmp_path, [error]).run(retries)
    fetched.assert_images_only(str(error), "count", "size", "md5")
    assert fetched.plain_tries == 1
    asked = 1 if retries == 0 or isinstance(error, RequestRejected) else 2
    assert fetched.annotations.tries == asked


@pytest.mark.parametrize("place", [1, 2])
async def test_a_line_that_is_away_for_a_while_costs_no_annotations(tmp_path: Path, place: int) -> None:
    away: list[Brought] = [*[ONE, TWO][: place - 1], Unreachable("the network is away")]
    fetched = Fetched(tmp_path, away, away, away, WHOLE, plain=away)
    await fetched.run()
    assert fetched.kept == [MARKS, NOTES]
    assert fetched.annotations.tries == 4


async def test_a_server_that_asks_for_a_pause_is_not_asked_in_another_way(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [SlowDown("429")])
    with pytest.raises(SlowDown):
        await fetched.run()
    assert fetched.plain_tries == 0


async def test_images_that_fall_short_either_way_are_the_error_they_were(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [ONE, MARKS], plain=[ONE])
    with pytest.raises(SeriesDamaged, match="1 of 2 images"):
        await fetched.run()
    assert not any(isinstance(each, Verified) for each in fetched.told)


async def test_images_with_a_wrong_md5_are_not_kept_though_they_come_without_annotations(
    tmp_path: Path,
) -> None:
    other = (ONE[0], ONE[1][::-1])
    fetched = await Fetched(tmp_path, [other, TWO, MARKS, md5(ONE, TWO)]).run(strict=True)
    assert fetched.images == [ONE, TWO]
    assert fetched.kept == []


async def test_a_half_of_an_image_leaves_nothing_of_annotations(tmp_path: Path) -> None:
    broken: list[Brought] = [MARKS, ONE, Broken(TWO[0], TWO[1][:2], Unreachable("cut"))]
    fetched = await Fetched(tmp_path, broken, WHOLE).run()
    assert fetched.images == [ONE, TWO]
    assert fetched.kept == [MARKS, NOTES]


names = st.text(max_size=40) | st.sampled_from(
    [
        "..",
        ".",
        "",
        "a/../b",
        "/etc/passwd",
        "x\\y",
        "1-1.dcm",
        "LICENSE",
        "é" * 200,
        "a/b/c.xml",
        "\x1b[31m.xml",
    ]
)


@given(st.lists(names, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_name_from_outside_hurts_the_images(
    tmp_path_factory: pytest.TempPathFactory, given_names: list[str]
) -> None:
    async def run() -> Fetched:
        brought = [Annotation(name, b"x") for name in given_names]
        return await Fetched(tmp_path_factory.mktemp("pack"), [ONE, TWO, *brought, md5(ONE, TWO)]).run()

    fetched = trio.run(run)
    assert fetched.images == [ONE, TWO]
    kept = [each.name for each in fetched.kept]
    assert bool(kept) != bool(fetched.layout.lacks), "all or none, and if none then why"
    assert len(kept) in (0, len(given_names))
    assert len({*kept, ONE[0], TWO[0]}) == len(kept) + 2
    for name in kept:
        assert name not in ("", ".", "..")
        assert not set(name) & {"/", "\0"}
        assert len(name.encode()) <= 255
