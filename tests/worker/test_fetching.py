"""A series into a pack: checked on the way and at the end, over several tries."""

import errno
import hashlib
import io
import logging
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import stamina
import trio
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from tciafs.archives.http.errors import RequestRejected, translate
from tciafs.errors import (
    AccessDenied,
    DeadlinePassed,
    NoSpace,
    SeriesDamaged,
    SlowDown,
    TciafsError,
    Unreachable,
    UnreadableAnswer,
)
from tciafs.model import Checksums, Series
from tciafs.store.download import Grant
from tciafs.store.layout import Layout, PackedImage
from tciafs.store.pack import PackWriter, read_layout
from tciafs.worker import digests, fetching, retrying
from tciafs.worker.fetching import fetch_series
from tciafs.worker.messages import Arrived, Finished, Progress, Report, Verified, framed
from tests.fakes import Broken, Brought, FakeArchive, make_series, no_more_room

ONE, TWO = ("1-1.dcm", b"first image, of some length"), ("1-2.dcm", b"second")
SIZE_BYTES = len(ONE[1]) + len(TWO[1])
SERIES = make_series("1.2.3", image_count=2, size_bytes=SIZE_BYTES)
RETRIES = 3
ENOUGH = Grant(10**6, no_more_room)


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    logging.getLogger("stamina").setLevel(logging.ERROR)
    with stamina.set_testing(True, attempts=RETRIES + 1, cap=True):
        yield


def md5(*images: tuple[str, bytes]) -> Checksums:
    return Checksums(
        tuple((name, hashlib.md5(data, usedforsecurity=False).hexdigest()) for name, data in images)
    )


class Fetched:
    """A series brought by an archive in so many tries: what was told, and what is in the pack."""

    def __init__(
        self, folder: Path, *tries: list[Brought], series: Series = SERIES, grant: Grant = ENOUGH
    ) -> None:
        self.archive = FakeArchive()
        self.archive.bring(series.series_uid, *tries)
        self.series = series
        self.pack = folder / "pack"
        self.grant = grant
        self.told: list[Report] = []
        self.strict = False
        self.told_of_image: Callable[[], None] = lambda: None

    async def run(self, retries: int = RETRIES) -> "Fetched":
        await fetch_series(
            self.archive,
            self.series,
            self.pack,
            self._tell,
            self.grant,
            retries=retries,
            first_wait_s=60.0,
            strict=self.strict,
        )
        return self

    def _tell(self, report: Report) -> None:
        self.told.append(report)
        if isinstance(report, Arrived):
            self.told_of_image()

    @property
    def tries(self) -> int:
        return self.archive.asked.count(("images", self.series.series_uid))

    @property
    def arrived(self) -> list[str]:
        return [report.image.name for report in self.told if isinstance(report, Arrived)]

    @property
    def layout(self) -> Layout:
        return read_layout(self.pack)

    @property
    def contents(self) -> list[tuple[str, bytes]]:
        data = self.pack.read_bytes()
        return [(each.name, data[each.offset : each.offset + each.size_bytes]) for each in self.layout.images]


class Granting:
    """Grants what is asked for, or up to a bound."""

    def __init__(self, bound_bytes: int = 10**6) -> None:
        self.asked: list[int] = []
        self._bound_bytes = bound_bytes

    async def __call__(self, size_bytes: int) -> int:
        self.asked.append(size_bytes)
        if size_bytes > self._bound_bytes:
            raise NoSpace("the cache is full")
        return size_bytes


async def test_a_pack_asks_for_room_before_it_grows(tmp_path: Path) -> None:
    granting = Granting()
    fetched = await Fetched(tmp_path, [ONE, TWO], grant=Grant(0, granting)).run()
    assert fetched.contents == [ONE, TWO]
    assert granting.asked == sorted(granting.asked)
    assert granting.asked[-1] == fetched.pack.stat().st_size, "layout and trailer count too"


@pytest.mark.parametrize("bound_bytes", [len(ONE[1]), SIZE_BYTES, SIZE_BYTES + 1])
async def test_a_pack_never_gets_larger_than_granted(tmp_path: Path, bound_bytes: int) -> None:
    fetched = Fetched(tmp_path, [ONE, TWO], grant=Grant(0, Granting(bound_bytes)))
    with pytest.raises(NoSpace, match="the cache is full"):
        await fetched.run()
    assert fetched.pack.stat().st_size <= bound_bytes
    assert fetched.tries == 1, "another try would need as much"
    assert not any(isinstance(report, Verified) for report in fetched.told), "nobody was told it is here"


async def test_a_series_is_written_told_and_verified(tmp_path: Path) -> None:
    fetched = await Fetched(tmp_path, [ONE, TWO, md5(TWO, ONE)]).run()
    assert fetched.contents == [ONE, TWO]
    assert fetched.layout.checks == ("crc32", "count", "size", "md5")
    assert (fetched.layout.series_uid, fetched.layout.version) == ("1.2.3", SERIES.version)
    assert (fetched.arrived, fetched.tries) == (["1-1.dcm", "1-2.dcm"], 1)
    assert fetched.told[-2:] == [Verified(fetched.layout.checks), Finished()]


async def test_what_the_archive_does_not_say_is_not_checked(tmp_path: Path) -> None:
    fetched = await Fetched(tmp_path, [ONE], series=make_series("1.2.3", image_count=None)).run()
    assert fetched.layout.checks == ("crc32",)


async def test_progress_is_told_but_not_for_every_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 100.1, 100.2, 100.3, 200.0])
    monkeypatch.setattr(fetching, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    fetched = await Fetched(tmp_path, [ONE, TWO]).run()
    told = [report.received_bytes for report in fetched.told if isinstance(report, Progress)]
    assert told == [0, 7, 27, 33, 33]


# -- tries --


async def test_a_second_try_keeps_what_the_first_brought(tmp_path: Path) -> None:
    fetched = Fetched(
        tmp_path, [ONE, Broken("1-2.dcm", b"sec", Unreachable("cut"))], [TWO, ONE, md5(ONE, TWO)]
    )
    descriptors: list[int] = []
    fetched.told_of_image = lambda: descriptors.append(os.open(fetched.pack, os.O_RDONLY))
    await fetched.run()
    assert (fetched.contents, fetched.arrived, fetched.tries) == ([ONE, TWO], ["1-1.dcm", "1-2.dcm"], 2)
    for descriptor in descriptors:
        assert os.pread(descriptor, len(ONE[1]), fetched.layout.images[0].offset) == ONE[1]
        os.close(descriptor)


async def test_a_try_without_an_earlier_image_is_no_success(tmp_path: Path) -> None:
    other = ("1-3.dcm", b"second")
    fetched = Fetched(tmp_path, [ONE, Unreachable("cut")], [TWO, other])
    with pytest.raises(SeriesDamaged, match="lacked images of the first"):
        await fetched.run()


@pytest.mark.parametrize("data", [b"other bytes, of same length", b"shorter", b""])
async def test_a_try_with_other_bytes_is_no_success(tmp_path: Path, data: bytes) -> None:
    fetched = Fetched(tmp_path, [ONE, Unreachable("cut")], [("1-1.dcm", data), TWO])
    with pytest.raises(SeriesDamaged, match=r"different bytes as 1-1\.dcm"):
        await fetched.run()
    assert fetched.tries == RETRIES + 1


async def test_the_failure_is_that_of_the_last_try(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [Unreachable("first")], [DeadlinePassed("last")])
    with pytest.raises(DeadlinePassed, match="last"):
        await fetched.run(retries=1)
    assert fetched.tries == 2


async def test_no_retries_is_one_try(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [Unreachable("away")], [ONE, TWO])
    with pytest.raises(Unreachable):
        await fetched.run(retries=0)
    assert fetched.tries == 1


def refused() -> UnreadableAnswer:
    explained = UnreadableAnswer("the server refused")
    explained.__cause__ = RequestRejected("refused", 400, "")
    return explained


def untrusted() -> TciafsError:
    error = httpx.ConnectError("no handshake")
    error.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.__cause__.verify_message = "self-signed certificate"
    return translate(error, "archive.example", "getImage")


@pytest.mark.parametrize(
    "error", [AccessDenied("no"), refused(), untrusted(), SlowDown("in an hour", 3600.0), ValueError("ours")]
)
async def test_what_cannot_get_better_is_not_tried_again(tmp_path: Path, error: Exception) -> None:
    fetched = Fetched(tmp_path, [error], [ONE, TWO])
    with pytest.raises(type(error)):
        await fetched.run()
    assert fetched.tries == 1


def unreadable_because_cut() -> UnreadableAnswer:
    error = UnreadableAnswer("half a ZIP")
    error.__cause__ = Unreachable("cut")
    return error


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("away"),
        SlowDown("soon", 5.0),
        SlowDown("please"),
        SeriesDamaged("short"),
        unreadable_because_cut(),
    ],
)
async def test_what_may_get_better_is_tried_again(tmp_path: Path, error: Exception) -> None:
    assert (await Fetched(tmp_path, [error], [ONE, TWO]).run()).tries == 2


def test_a_pause_that_the_server_asks_for_is_kept() -> None:
    assert retrying.delay_before_retry(SlowDown("soon", 5.0)) == 5.0
    assert retrying.delay_before_retry(SlowDown("at once", 0.0)) is True
    assert retrying.delay_before_retry(SlowDown("soon", retrying.LONGEST_PAUSE_S + 1)) is False


# -- strict --


async def test_a_strict_series_is_told_of_once_all_of_it_agrees(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [ONE, Unreachable("cut")], [ONE, TWO, md5(ONE, TWO)])
    fetched.strict = True
    await fetched.run()
    news = [report for report in fetched.told if not isinstance(report, Progress)]
    one, two = fetched.layout.images
    assert news == [Arrived(one), Arrived(two), Verified(fetched.layout.checks), Finished()]
    assert fetched.contents == [ONE, TWO]


@pytest.mark.parametrize(
    "wrong",
    [
        [ONE],
        [ONE, TWO, md5(ONE, ("1-2.dcm", b"Second"))],
        [ONE, Broken("1-2.dcm", b"", UnreadableAnswer("CRC"))],
    ],
)
async def test_of_a_strict_series_that_is_damaged_nobody_hears(wrong: list[Brought], tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, wrong)
    fetched.strict = True
    with pytest.raises(SeriesDamaged):
        await fetched.run()
    assert not [report for report in fetched.told if not isinstance(report, Progress)]


@pytest.mark.parametrize("wrong", [("1-1.dcm", b"First image, of some length"), ("1-3.dcm", b"another name")])
async def test_what_nobody_was_told_of_may_be_other_bytes_in_the_next_try(
    wrong: tuple[str, bytes], tmp_path: Path
) -> None:
    fetched = Fetched(tmp_path, [wrong, Unreachable("cut")], [ONE, TWO], [ONE, TWO])
    fetched.strict = True
    await fetched.run()
    assert (fetched.contents, fetched.tries, fetched.arrived) == ([ONE, TWO], 3, ["1-1.dcm", "1-2.dcm"])


async def test_names_made_from_headers_are_told_once_in_a_strict_series_too(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, nameless(*NAMELESS), series=NAMELESS_SERIES)
    fetched.strict = True
    await fetched.run()
    assert fetched.arrived == NAMES


# -- series that fall short --


async def test_a_short_series_is_damaged_until_the_rest_comes(tmp_path: Path) -> None:
    fetched = await Fetched(tmp_path, [ONE], [ONE, TWO]).run()
    assert (fetched.contents, fetched.tries) == ([ONE, TWO], 2)


async def test_a_short_series_is_damaged(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [ONE])
    with pytest.raises(SeriesDamaged, match="came with 1 of 2 images"):
        await fetched.run()
    assert not any(isinstance(report, Verified | Finished) for report in fetched.told)
    with pytest.raises(SeriesDamaged):
        read_layout(fetched.pack)


async def test_a_series_of_another_size_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(SeriesDamaged, match=f"came with {SIZE_BYTES - 1} of {SIZE_BYTES} bytes"):
        await Fetched(tmp_path, [ONE, ("1-2.dcm", b"secon")]).run()


async def test_an_image_of_another_md5_is_damaged(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [ONE, TWO, md5(ONE, ("1-2.dcm", b"Second"))])
    with pytest.raises(SeriesDamaged, match=r"1-2\.dcm does not have the MD5"):
        await fetched.run()
    assert fetched.tries == RETRIES + 1


async def test_checksums_that_were_wrong_once_may_be_right_the_next_time(tmp_path: Path) -> None:
    wrong = md5(ONE, ("1-2.dcm", b"Second"))
    fetched = await Fetched(tmp_path, [ONE, TWO, wrong], [ONE, TWO, md5(ONE, TWO)]).run()
    assert (fetched.tries, fetched.contents) == (2, [ONE, TWO])


async def test_checksums_must_name_every_image(tmp_path: Path) -> None:
    with pytest.raises(SeriesDamaged, match=r"do not name 1-2\.dcm"):
        await Fetched(tmp_path, [ONE, TWO, md5(ONE)]).run()


async def test_checksums_are_looked_up_under_the_name_that_the_archive_gave(tmp_path: Path) -> None:
    given = [("series/1-1.dcm", ONE[1]), ("series/1-2.dcm", TWO[1])]
    fetched = await Fetched(tmp_path, [*given, md5(*given)]).run()
    assert (fetched.contents, "md5" in fetched.layout.checks) == ([ONE, TWO], True)


async def test_checking_many_images_takes_few_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    real = digests._md5s

    def counted(descriptor: int, images: Sequence[PackedImage]) -> list[str]:
        batches.append(len(images))
        return real(descriptor, images)

    monkeypatch.setattr(digests, "_md5s", counted)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    many = [(f"1-{number:04}.dcm", b"%d" % number) for number in range(1000)]
    series = make_series("1.2.3", image_count=1000)
    fetched = await Fetched(tmp_path, [*many, md5(*many)], series=series).run()
    assert fetched.layout.checks == ("crc32", "count", "md5")
    assert (sum(batches), len(batches)) == (1000, 2 * digests.BATCHES_A_PROCESSOR)


async def test_no_report_grows_with_the_series(tmp_path: Path) -> None:
    many = [(f"1-{number:04}.dcm", b"x") for number in range(1000)]
    fetched = await Fetched(tmp_path, list(many), series=make_series("1.2.3", image_count=1000)).run()
    assert len(fetched.arrived) == 1000
    assert max(len(framed(report)) for report in fetched.told) < 200


async def test_two_images_of_one_name_are_no_series(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAnswer, match=r"two images called '1-1\.dcm'"):
        await Fetched(tmp_path, [("a/1-1.dcm", b"one"), ("b/1-1.dcm", b"other")]).run()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a\0b", "a\\b", "", "x" * 300])
async def test_a_hostile_name_is_no_image(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableAnswer):
        await Fetched(tmp_path, [(name, b"data")]).run()
    assert [file.name for file in tmp_path.iterdir()] == ["pack"]


async def test_an_image_that_fails_the_check_of_its_transfer_is_damaged(tmp_path: Path) -> None:
    broken: list[Brought] = [ONE, Broken("1-2.dcm", b"secon", UnreadableAnswer("CRC-32 differs"))]
    with pytest.raises(SeriesDamaged, match=r"1-2\.dcm of series 1\.2\.3 came damaged: CRC-32 differs"):
        await Fetched(tmp_path, broken).run()
    nameless_one: list[Brought] = [Broken(None, b"sec", UnreadableAnswer("CRC-32 differs"))]
    (tmp_path / "pack").unlink()
    with pytest.raises(SeriesDamaged, match=r"an image of series 1\.2\.3 came damaged"):
        await Fetched(tmp_path, nameless_one).run()


# -- images without a name --


def dicom(acquisition: str | None, instance: str | None, uid: str = "1.9") -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.SOPInstanceUID = UID(uid)
    for keyword, value in (("AcquisitionNumber", acquisition), ("InstanceNumber", instance)):
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = bytes(100)
    dataset["PixelData"].VR = "OB"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


NAMELESS = [dicom("2", "1", "1.1"), dicom("1", "2", "1.2"), dicom("1", "1", "1.3"), dicom(None, None, "1.4")]
NAMES = ["3-1.dcm", "2-2.dcm", "2-1.dcm", "1-1.dcm"]
NAMELESS_SERIES = make_series("1.2.3", image_count=4)


def nameless(*images: bytes) -> list[Brought]:
    return [(None, data) for data in images]


async def test_names_are_made_from_headers_where_the_archive_gives_none(tmp_path: Path) -> None:
    fetched = await Fetched(tmp_path, nameless(*NAMELESS), series=NAMELESS_SERIES).run()
    assert fetched.contents == list(zip(NAMES, NAMELESS, strict=True))
    assert fetched.arrived == NAMES
    assert fetched.told[-2:] == [Verified(fetched.layout.checks), Finished()]


async def test_no_name_is_told_before_all_images_are_in(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, nameless(*NAMELESS[:3]), nameless(*NAMELESS), series=NAMELESS_SERIES)
    await fetched.run()
    assert (fetched.arrived, fetched.tries) == (NAMES, 2)
    assert fetched.contents == list(zip(NAMES, NAMELESS, strict=True))


async def test_a_broken_try_of_images_without_names_leaves_no_image_twice(tmp_path: Path) -> None:
    broken: list[Brought] = [(None, NAMELESS[0]), Broken(None, NAMELESS[1][:50], Unreachable("cut"))]
    fetched = await Fetched(tmp_path, broken, nameless(*NAMELESS), series=NAMELESS_SERIES).run()
    assert fetched.contents == list(zip(NAMES, NAMELESS, strict=True))
    assert fetched.layout.images[0].offset == 0


async def test_names_for_some_images_only_are_no_series(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAnswer, match="only some images"):
        await Fetched(tmp_path, [ONE, (None, TWO[1])]).run()


@pytest.mark.expect_log("WARNING tciafs.worker.headers: an image has no header that orders it")
async def test_headers_that_make_no_sense_still_give_every_image_a_name(tmp_path: Path) -> None:
    odd = dicom("1", "1", "1.5").replace(b"IS\x02\x001 ", b"IS\x02\x00x ")
    images = [b"no DICOM at all", NAMELESS[2], odd, b""]
    fetched = await Fetched(tmp_path, nameless(*images), series=NAMELESS_SERIES).run()
    assert sorted(data for _, data in fetched.contents) == sorted(images)
    assert len({name for name, _ in fetched.contents}) == 4


# -- the disk --


async def test_a_full_disk_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PackWriter, "write", fail)
    fetched = Fetched(tmp_path, [ONE, TWO])
    with pytest.raises(OSError, match="No space"):
        await fetched.run()
    assert fetched.tries == 1


async def test_a_pack_in_the_way_is_not_touched(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [ONE, TWO])
    fetched.pack.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        await fetched.run()
    assert fetched.pack.read_bytes() == b"somebody else's"


async def test_the_pack_is_closed_when_the_fetch_is_cancelled(tmp_path: Path) -> None:
    fetched = Fetched(tmp_path, [ONE, TWO])
    fetched.archive.open = trio.Event()
    with trio.move_on_after(0):
        await fetched.run()
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert str(fetched.pack) not in links
