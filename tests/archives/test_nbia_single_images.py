"""Images one by one: from the sample archive, and from servers that have no such thing or are odd."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.nbia.archive import Api, NbiaArchive, NbiaConfig
from tciafs.errors import SlowDown, TciafsError, Unreachable, UnreadableAnswer
from tciafs.model import Checksums, Series
from tests.archives.test_nbia import URL, Body, answer
from tests.fakes import make_series
from tests.sample.running import RunningSample

SERIES = make_series("1.2.3")


@asynccontextmanager
async def opened(url: str, api: Api = "v4", **how: object) -> AsyncIterator[NbiaArchive]:
    limits = HttpLimits(backoff_initial_s=0, backoff_max_s=0)
    archive = NbiaArchive(NbiaConfig(url, api, retries=0, limits=limits), **how)  # type: ignore[arg-type]
    try:
        yield archive
    finally:
        await archive.aclose()


@asynccontextmanager
async def scripted(**endpoints: httpx.Response) -> AsyncIterator[NbiaArchive]:
    def respond(request: httpx.Request) -> httpx.Response:
        return endpoints.get(request.url.path.rpartition("/")[2], httpx.Response(404))

    async with opened(URL, transport=httpx.MockTransport(respond)) as archive:
        yield archive


async def whole(archive: NbiaArchive, series: Series) -> tuple[set[bytes], list[str]]:
    """Return the images of a series as they come all together, and their MD5s."""
    images: set[bytes] = set()
    md5s: list[str] = []
    async with archive.images(series) as deliveries:
        async for delivery in deliveries:
            if isinstance(delivery, Checksums):
                md5s = [md5 for _, md5 in delivery.md5_by_name]
            else:
                images.add(b"".join([chunk async for chunk in delivery.chunks]))
    return images, md5s


@pytest.mark.parametrize("api", ["v4", "v1"])
async def test_the_images_of_a_series_are_the_same_one_by_one(api: Api, sample: RunningSample) -> None:
    async with opened(sample.url, api) as archive:
        series = await archive.series("Phantom-Head", "HEAD-001")
        some = min((one for one in series if (one.image_count or 0) > 1), key=lambda one: one.size_bytes or 0)
        images = archive.single_images
        uids = await images.image_uids(some)
        assert len(set(uids)) == len(uids) == some.image_count
        found = set()
        for uid in uids:
            async with images.image(some, uid) as member:
                assert (member.name, member.size_bytes) == (None, None)
                found.add(b"".join([chunk async for chunk in member.chunks]))
        assert found == (await whole(archive, some))[0]


async def test_the_archive_vouches_for_all_images_together_and_for_nothing_else(
    sample: RunningSample,
) -> None:
    async with opened(sample.url) as archive:
        (series, *_) = await archive.series("Phantom-Head", "HEAD-001")
        md5s = (await whole(archive, series))[1]
        agrees = await archive.single_images.check_of(series)
        assert agrees is not None
        assert agrees(md5s)
        assert agrees(md5s[::-1])
        assert not agrees(md5s[1:])
        assert not agrees([*md5s[1:], hashlib.md5(b"other", usedforsecurity=False).hexdigest()])
        assert await archive.single_images.check_of(SERIES) is None  # of which the server knows nothing


async def test_an_old_version_of_the_api_vouches_for_nothing(sample: RunningSample) -> None:
    async with opened(sample.url, "v1") as archive:
        sample.forget_requests()
        assert await archive.single_images.check_of(SERIES) is None
        assert sample.requests() == []


async def test_an_image_that_there_is_not_is_the_servers_failure(sample: RunningSample) -> None:
    async with opened(sample.url) as archive:
        assert await archive.single_images.image_uids(SERIES) == ()
        with pytest.raises(Unreachable, match="status 500"):
            async with archive.single_images.image(SERIES, "1.2.3.4"):
                pass


async def test_a_server_without_a_hash_of_series_vouches_for_nothing() -> None:
    async with scripted() as archive:
        assert await archive.single_images.check_of(SERIES) is None
    async with scripted(getMD5Hierarchy=answer()) as archive:
        assert await archive.single_images.check_of(SERIES) is None


@pytest.mark.parametrize("text", [b"null", b"x" * 32, b"a" * 31, b"a" * 5000, b"<html>"])
async def test_a_hash_that_is_none_is_not_believed(text: bytes) -> None:
    async with scripted(getMD5Hierarchy=answer(text)) as archive:
        with pytest.raises(UnreadableAnswer):
            await archive.single_images.check_of(SERIES)


async def test_a_hash_may_be_written_in_any_case() -> None:
    digest = hashlib.md5(b"", usedforsecurity=False).hexdigest().upper()
    async with scripted(getMD5Hierarchy=answer(f" {digest}\r\n".encode())) as archive:
        agrees = await archive.single_images.check_of(SERIES)
    assert agrees is not None
    assert agrees([])


@pytest.mark.parametrize(
    ("wish", "pause_s"), [("7", 7.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("x", None)]
)
async def test_a_pause_that_the_server_wants_is_told(wish: str, pause_s: float | None) -> None:
    busy = httpx.Response(429, headers={"Retry-After": wish}, stream=Body(b""))
    async with scripted(getSingleImage=busy) as archive:
        with pytest.raises(SlowDown) as raised:
            async with archive.single_images.image(SERIES, "1.9"):
                pass
    assert raised.value.retry_after_s == pause_s


async def test_uids_that_are_none_are_left_out(expect_log: object) -> None:
    expect_log("1 of 2 rows of images left out")  # type: ignore[operator]
    rows = b'[{"SOPInstanceUID":"1.9"},{"SOPInstanceUID":"../../etc"}]'
    async with scripted(getSOPInstanceUIDs=answer(rows)) as archive:
        assert await archive.single_images.image_uids(SERIES) == ("1.9",)


async def test_an_image_that_breaks_off_says_so() -> None:
    body = httpx.Response(200, stream=Body(b"half", failure=httpx.RemoteProtocolError("peer closed")))
    async with scripted(getSingleImage=body) as archive:
        with pytest.raises(TciafsError, match="broke off its answer to getSingleImage"):
            async with archive.single_images.image(SERIES, "1.9") as member:
                assert [chunk async for chunk in member.chunks]
