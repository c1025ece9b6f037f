"""IDC as an Archive, over a bucket in memory: what is asked, what is checked, what is remembered."""

import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.idc.archive import LEFT_ALONE_S, IdcArchive
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.idc.images import IN_ONE_PIECE_BYTES
from tciafs.archives.idc.memory import IdcMemory
from tciafs.archives.idc.table import IndexedSeries, write_table
from tciafs.errors import SeriesDamaged, Unreachable, UnreadableAnswer
from tciafs.model import Checksums, ListedImage, Member, Series
from tests.archives.test_idc_table import indexed
from tests.dicom_files import small_dicom

QUICK = HttpLimits(backoff_initial_s=0.001, backoff_max_s=0.001)


Told = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


class Body(httpx.AsyncByteStream):
    """A body that comes in one piece."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class Bucket(httpx.AsyncBaseTransport):
    """Objects by key; `asked` is how often lists, parts and wholes were, `sent_bytes` what bodies had.

    `refused` counts how often it was asked while it was down. `refusal` is the status with which it answers
    everything (None: as it should).
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.sent_bytes = 0
        self.page_size = 1000
        self.is_down = False
        self.refused = 0
        self.refusal: int | None = None
        self.knows_ranges = True
        self.knows_conditions = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        if self.is_down:
            self.refused += 1
            raise httpx.ConnectError("down")
        if self.refusal is not None:
            return httpx.Response(self.refusal, stream=Body(b"no"))
        key = request.url.path.removeprefix("/idc-open-data").removeprefix("/")
        status, headers, content = self._object(key, request) if key else self._list(request.url.params)
        self.sent_bytes += len(content)
        return httpx.Response(status, headers=headers, stream=Body(content))

    def _object(self, key: str, request: httpx.Request) -> Told:
        content = self.objects.get(key)
        if content is None:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        self.asked["whole" if span is None or not span[2] else "part"] += 1
        etag = f'"{self._etag(key)}"'
        if self.knows_conditions and request.headers.get("If-Match", etag) != etag:
            return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        if span is None or not self.knows_ranges:
            return 200, {"ETag": etag}, content
        first = int(span[1])
        part = content[first:] if not span[2] else content[first : int(span[2]) + 1]
        headers = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}", "ETag": etag}
        return 206, headers, part

    def _list(self, query: httpx.QueryParams) -> Told:
        self.asked["list"] += 1
        keys = sorted(key for key in self.objects if key.startswith(query["prefix"]))
        keys = [key for key in keys if key > query.get("continuation-token", "")]
        page = keys[: min(self.page_size, int(query.get("max-keys", "1000")))]
        rows = "".join(
            f"<Contents><Key>{key}</Key><ETag>&quot;{self._etag(key)}&quot;</ETag>"
            f"<Size>{len(self.objects[key])}</Size></Contents>"
            for key in page
        )
        is_cut = len(page) < len(keys)
        following = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if is_cut else ""
        text = f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{following}{rows}"
        return 200, {}, f'<ListBucketResult xmlns="http://s3">{text}</ListBucketResult>'.encode()

    def _etag(self, key: str) -> str:
        return self.etags.get(key) or hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def filled(bucket: Bucket, uid: str, *images: bytes, study_uid: str = "1.2") -> IndexedSeries:
    """Put images into the bucket as a series, under names in no order, and return its row."""
    row = indexed(uid, image_count=len(images), size_bytes=sum(map(len, images)), study_uid=study_uid)
    for image in images:
        name = hashlib.sha1(image, usedforsecurity=False).hexdigest()
        bucket.objects[f"{row.uuid}/{name}.dcm"] = image
    return row


class Opened:
    """Archives over one bucket and one table, as one daemon after the other opens them."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self._bucket = bucket
        self._folder = folder

    def archive(self, *rows: IndexedSeries) -> IdcArchive:
        path = self._folder / "table.sqlite"
        if not path.exists():
            write_table(path, [("Lung", "P1", row) for row in rows], {})
        config = IdcConfig(str(path), "https://s3.test", retries=1, limits=QUICK)
        return IdcArchive(config, transport=self._bucket)


@pytest.fixture
def opened(bucket: Bucket, tmp_path: Path) -> Opened:
    return Opened(bucket, tmp_path)


async def _series(archive: IdcArchive) -> Series:
    (found,) = await archive.series("Lung", "P1")
    return found


async def _fetched(archive: IdcArchive) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the images by name, in order, and the checksums."""
    images, checksums = {}, dict[str, str]()
    async with archive.images(await _series(archive)) as deliveries:
        async for delivery in deliveries:
            match delivery:
                case Checksums(md5_by_name):
                    checksums.update(md5_by_name)
                case Member(name, _, chunks):
                    images[str(name)] = b"".join([chunk async for chunk in chunks])
    return images, checksums


async def test_a_series_comes_in_the_order_of_its_numbers(bucket: Bucket, opened: Opened) -> None:
    files = [small_dicom("1.2", sop=str(n), acquisition=1 + (n > 2), instance=n) for n in range(1, 5)]
    archive = opened.archive(filled(bucket, "1.2", *reversed(files)))
    images, checksums = await _fetched(archive)
    assert list(images) == ["1-1.dcm", "1-2.dcm", "2-1.dcm", "2-2.dcm"]
    assert list(images.values()) == files
    assert checksums == {
        name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in images.items()
    }
    await archive.aclose()


async def test_what_headers_say_is_asked_once_for_ever(bucket: Bucket, opened: Opened) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n, padding=20_000) for n in range(1, 4)]
    archive = opened.archive(filled(bucket, "1.2", *files))
    await _fetched(archive)
    assert bucket.asked == {"list": 1, "part": 3, "whole": 3}
    await archive.aclose()
    another = opened.archive()
    await _fetched(another)
    assert bucket.asked == {"list": 1, "part": 3, "whole": 6}
    await another.aclose()


async def test_headers_cost_kilobytes_of_large_images(bucket: Bucket, opened: Opened) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n, padding=300_000) for n in range(1, 11)]
    archive = opened.archive(filled(bucket, "1.2", *files))
    assert len(await archive.single_images.image_uids(await _series(archive))) == 10
    assert bucket.sent_bytes < 0.03 * sum(map(len, files))
    await archive.aclose()


async def test_a_header_with_much_in_it_is_asked_for_further(bucket: Bucket, opened: Opened) -> None:
    files = [small_dicom("1.2", sop="1", instance=7, study_id="S7", private_bytes=50_000, padding=400_000)]
    archive = opened.archive(filled(bucket, "1.2", *files))
    assert [each.study_id for each in await archive.studies("Lung", "P1")] == ["S7"]
    assert bucket.asked == {"list": 1, "part": 3}
    await archive.aclose()


async def test_a_study_id_is_asked_once_for_ever_also_that_there_is_none(
    bucket: Bucket, opened: Opened
) -> None:
    one = filled(bucket, "1.2", small_dicom("1.2", sop="1", study_id="4711"), study_uid="1")
    none = filled(bucket, "1.3", small_dicom("1.3", sop="1"), study_uid="2")
    archive = opened.archive(one, none)
    assert [each.study_id for each in await archive.studies("Lung", "P1")] == ["4711", None]
    await archive.aclose()
    asked = bucket.asked.copy()
    another = opened.archive()
    async with another.every_study("Lung") as batches:
        found = [each.study_id async for batch in batches for each in batch]
    assert found == ["4711", None]
    assert bucket.asked == asked
    await another.aclose()


@pytest.mark.expect_log("the Imaging Data Commons is away")
async def test_a_name_is_not_guessed_while_the_bucket_is_away(
    bucket: Bucket, opened: Opened, autojump_clock: trio.testing.MockClock
) -> None:
    archive = opened.archive(filled(bucket, "1.2", small_dicom("1.2", sop="1", study_id="4711")))
    bucket.is_down = True
    with pytest.raises(Unreachable):
        await archive.studies("Lung", "P1")
    bucket.is_down = False
    await trio.sleep(LEFT_ALONE_S)
    assert [each.study_id for each in await archive.studies("Lung", "P1")] == ["4711"]
    await archive.aclose()


async def test_above_the_studies_nothing_is_asked(bucket: Bucket, opened: Opened) -> None:
    archive = opened.archive(filled(bucket, "1.2", small_dicom("1.2", sop="1")))
    bucket.is_down = True
    assert [each.name for each in await archive.collections()] == ["Lung"]
    assert [each.patient_id for each in await archive.patients("Lung")] == ["P1"]
    assert [each.series_uid for each in await archive.series("Lung", "P1")] == ["1.2"]
    async with archive.every_series("Lung") as batches:
        assert [each.series_uid async for batch in batches for each in batch] == ["1.2"]
    assert [each.series_uid for each in await archive.named("1.2", "9")] == ["1.2"]
    await archive.aclose()


async def test_a_long_series_is_listed_page_by_page(bucket: Bucket, opened: Opened) -> None:
    bucket.page_size = 3
    files = [small_dicom("1.2", sop=str(n), instance=n) for n in range(1, 11)]
    archive = opened.archive(filled(bucket, "1.2", *files))
    images, _ = await _fetched(archive)
    assert list(images.values()) == files
    assert bucket.asked["list"] == 4
    await archive.aclose()


async def test_a_bucket_that_lacks_an_image_is_a_damaged_series(bucket: Bucket, opened: Opened) -> None:
    row = filled(bucket, "1.2", small_dicom("1.2", sop="1"), small_dicom("1.2", sop="2", instance=2))
    bucket.objects.popitem()
    archive = opened.archive(row)
    with pytest.raises(SeriesDamaged, match="1 of 2 images"):
        await _fetched(archive)
    await archive.aclose()


@pytest.mark.parametrize(
    "alien", [small_dicom("9.9", sop="7"), b"no DICOM" * 99], ids=["of another series", "no image"]
)
async def test_an_object_that_is_no_image_of_the_series_damages_it(
    bucket: Bucket, opened: Opened, alien: bytes
) -> None:
    archive = opened.archive(filled(bucket, "1.2", small_dicom("1.2", sop="1"), alien))
    with pytest.raises(SeriesDamaged, match="is no image of it"):
        await _fetched(archive)
    await archive.aclose()


async def test_two_images_of_one_uid_damage_a_series(bucket: Bucket, opened: Opened) -> None:
    twins = small_dicom("1.2", sop="1"), small_dicom("1.2", sop="1", instance=2)
    archive = opened.archive(filled(bucket, "1.2", *twins))
    with pytest.raises(SeriesDamaged, match="one SOP Instance UID"):
        await _fetched(archive)
    await archive.aclose()


async def test_an_etag_of_parts_is_no_checksum(bucket: Bucket, opened: Opened) -> None:
    row = filled(bucket, "1.2", small_dicom("1.2", sop="1"), small_dicom("1.2", sop="2", instance=2))
    bucket.etags[next(iter(bucket.objects))] = "0" * 32 + "-2"
    archive = opened.archive(row)
    images, checksums = await _fetched(archive)
    assert (len(images), checksums) == (2, {})
    assert await archive.single_images.check_of(await _series(archive)) is None
    await archive.aclose()


async def test_an_object_that_changed_its_size_is_not_taken(bucket: Bucket, opened: Opened) -> None:
    archive = opened.archive(filled(bucket, "1.2", small_dicom("1.2", sop="1", padding=10_000)))
    await archive.single_images.image_uids(await _series(archive))
    (key,) = bucket.objects
    bucket.objects[key] += b"more"
    with pytest.raises(SeriesDamaged, match="something else"):
        await _fetched(archive)
    await archive.aclose()


async def test_a_server_without_ranges_is_said_so(bucket: Bucket, opened: Opened) -> None:
    archive = opened.archive(filled(bucket, "1.2", small_dicom("1.2", sop="1")))
    bucket.knows_ranges = False
    with pytest.raises(UnreadableAnswer, match="another part"):
        await _fetched(archive)
    await archive.aclose()


async def test_one_image_is_fetched_alone_and_vouched_for(bucket: Bucket, opened: Opened) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n) for n in range(1, 4)]
    archive = opened.archive(filled(bucket, "1.2", *files))
    series = await _series(archive)
    async with archive.single_images.image(series, "2") as member:
        assert b"".join([chunk async for chunk in member.chunks]) == files[1]
    agrees = await archive.single_images.check_of(series)
    md5s = [hashlib.md5(each, usedforsecurity=False).hexdigest() for each in files]
    assert agrees is not None
    assert agrees(md5s[::-1])
    assert not agrees(md5s[:2])
    with pytest.raises(UnreadableAnswer, match="has no image 9"):
        async with archive.single_images.image(series, "9"):
            pass
    await archive.aclose()


async def test_images_fetched_one_by_one_are_looked_up_once(
    bucket: Bucket, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n) for n in range(1, 4)]
    first = opened.archive(filled(bucket, "1.2", *files))
    await first.single_images.image_uids(await _series(first))
    await first.aclose()
    archive = opened.archive()
    series = await _series(archive)
    looked_up: list[str] = []
    monkeypatch.setattr(IdcMemory, "images", _noted(looked_up, IdcMemory.images))
    for uid, file in zip("123", files, strict=True):
        async with archive.single_images.image(series, uid) as member:
            assert b"".join([chunk async for chunk in member.chunks]) == file
    assert len(looked_up) == 1
    await archive.aclose()


def _noted(looked_up: list[str], images: Callable[[IdcMemory, str], Any]) -> Callable[[IdcMemory, str], Any]:
    def noted(memory: IdcMemory, uuid: str) -> Any:
        looked_up.append(uuid)
        return images(memory, uuid)

    return noted


# Parts of images


async def _listed(archive: IdcArchive) -> tuple[Series, ListedImage]:
    series = await _series(archive)
    return series, (await archive.layouts.layout(series))[1]


async def test_a_part_is_of_the_image_that_was_listed(bucket: Bucket, opened: Opened) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n, padding=5000) for n in range(1, 4)]
    archive = opened.archive(filled(bucket, "1.2", *files))
    series, image = await _listed(archive)
    for first, size_bytes in [(0, 700), (1, 1), (700, 4000), (len(files[1]) - 3, 3)]:
        part = await archive.ranges.part(series, image, first, size_bytes)
        assert part == files[1][first : first + size_bytes]
    await archive.aclose()


@pytest.mark.parametrize("padding", [5000, IN_ONE_PIECE_BYTES])
async def test_what_is_held_does_not_come_with_the_series(
    bucket: Bucket, opened: Opened, padding: int
) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n, padding=padding) for n in range(1, 4)]
    archive = opened.archive(filled(bucket, "1.2", *files))
    series = await _series(archive)
    names = [image.name for image in await archive.layouts.layout(series)]
    held = {names[0]: len(files[0]), names[1]: 3000, names[2]: len(files[2]) + 1}
    bucket.sent_bytes = 0
    came = []
    async with archive.ranges.images_behind(series, held) as deliveries:
        async for each in deliveries:
            if isinstance(each, Member):
                came.append((each.name, each.first, b"".join([chunk async for chunk in each.chunks])))
    firsts = [len(files[0]), 3000, 0]
    assert came == [
        (name, first, file[first:]) for name, first, file in zip(names, firsts, files, strict=True)
    ]
    assert bucket.sent_bytes == sum(map(len, files)) - sum(firsts)
    await archive.aclose()


async def test_who_never_listed_the_series_finds_its_images_by_what_was_remembered(
    bucket: Bucket, opened: Opened
) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n) for n in range(1, 4)]
    first = opened.archive(filled(bucket, "1.2", *files))
    series, image = await _listed(first)
    await first.aclose()
    archive = opened.archive()
    before = bucket.asked["list"]
    assert await archive.ranges.part(series, image, 0, image.size_bytes) == files[1]
    assert bucket.asked["list"] == before
    await archive.aclose()


@pytest.mark.parametrize("knows_conditions", [True, False])
async def test_no_part_is_taken_of_an_object_that_changed(
    bucket: Bucket, opened: Opened, knows_conditions: bool
) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n, padding=5000) for n in range(1, 4)]
    row = filled(bucket, "1.2", *files)
    archive = opened.archive(row)
    series, image = await _listed(archive)
    bucket.knows_conditions = knows_conditions
    for key, content in bucket.objects.items():
        bucket.objects[key] = content[:-1] + b"?"
    with pytest.raises(SeriesDamaged, match="something else"):
        await archive.ranges.part(series, image, 4096, 700)
    await archive.aclose()


async def test_a_beginning_that_is_no_such_image_is_not_shown(bucket: Bucket, opened: Opened) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n) for n in range(1, 4)]
    archive = opened.archive(filled(bucket, "1.2", *files))
    series, image = await _listed(archive)
    for key, content in list(bucket.objects.items()):
        bucket.etags[key] = hashlib.md5(content, usedforsecurity=False).hexdigest()
        bucket.objects[key] = bytes(len(content))
    with pytest.raises(SeriesDamaged, match="no such DICOM image"):
        await archive.ranges.part(series, image, 0, image.size_bytes)
    await archive.aclose()


async def test_a_part_of_what_the_series_does_not_have_is_not_asked_for(
    bucket: Bucket, opened: Opened
) -> None:
    files = [small_dicom("1.2", sop=sop, instance=int(sop)) for sop in "12"]
    archive = opened.archive(filled(bucket, "1.2", *files))
    series, image = await _listed(archive)
    for absent in (ListedImage("9-9.dcm", 5), ListedImage(image.name, image.size_bytes + 1)):
        with pytest.raises(SeriesDamaged, match="no such image"):
            await archive.ranges.part(series, absent, 0, 1)
    await archive.aclose()


async def test_bytes_of_headers_are_told_of(bucket: Bucket, opened: Opened) -> None:
    files = [small_dicom("1.2", sop=str(n), instance=n, padding=50_000) for n in range(1, 4)]
    archive = opened.archive(filled(bucket, "1.2", *files))
    received: list[int] = []
    await archive.layouts.layout(await _series(archive), received.append)
    assert received == [4096, 4096, 4096]
    await archive.aclose()


async def test_a_series_that_left_the_index_is_said_so(bucket: Bucket, opened: Opened) -> None:
    archive = opened.archive(filled(bucket, "1.2", small_dicom("1.2", sop="1")))
    with pytest.raises(UnreadableAnswer, match="no series 9"):
        archive.images(Series("Lung", "P1", "1", "9"))
    with pytest.raises(UnreadableAnswer, match="no shared carts"):
        await archive.cart("ours")
    await archive.aclose()


async def test_a_listing_that_is_none_is_unreadable(bucket: Bucket, opened: Opened) -> None:
    class Page(httpx.AsyncBaseTransport):
        text = ""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=Body(self.text.encode()))

    page = Page()
    row = filled(bucket, "1.2", small_dicom("1.2", sop="1"))
    await opened.archive(row).aclose()
    archive = IdcArchive(opened.archive().config, transport=page)
    for text in (
        "<html>",
        "<Error><Code>SlowDown</Code></Error>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>much</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
    ):
        page.text = text
        with pytest.raises(UnreadableAnswer):
            await archive.studies("Lung", "P1")
    await archive.aclose()
