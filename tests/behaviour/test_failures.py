"""From cause to errno: the table "Errors" of docs/semantics.md, and the sentence that goes with it."""

import errno
from typing import Any

import pytest
import trio

from tests.behaviour.conftest import ExpectFailure, Fresh, Opener, Sharing
from tests.behaviour.filesystems import FileSystem
from tests.behaviour.retriever import middle_of_an_image
from tests.behaviour.test_listing import downloads, until_local
from tests.sample.running import RunningSample

IN_AN_IMAGE = -1
NOT_GRANTED = "The user has not been granted the access to image with given SeriesInstanceUID"

CAUSES: dict[str, tuple[dict[str, Any], int]] = {
    "a series that is not permitted": ({"kind": "status", "code": 400, "body": NOT_GRANTED}, errno.EACCES),
    "a login that is missing": ({"kind": "status", "code": 401}, errno.EACCES),
    "a server that fails": ({"kind": "status", "code": 500}, errno.EHOSTUNREACH),
    "a gateway without a server": ({"kind": "status", "code": 502}, errno.EHOSTUNREACH),
    "a connection that is cut": ({"kind": "cut", "after_bytes": 1500}, errno.EHOSTUNREACH),
    "a server that says slow down": ({"kind": "status", "code": 429, "retry_after": "1"}, errno.EBUSY),
    "a web page": ({"kind": "html"}, errno.EPROTO),
    "a series cut short": ({"kind": "short", "images": 1}, errno.EIO),
    "bytes that fail their check": ({"kind": "corrupt", "after_bytes": IN_AN_IMAGE}, errno.EIO),
    "a checksum that disagrees": ({"kind": "wrong_md5"}, errno.EIO),
    "no answer at all": ({"kind": "empty"}, errno.EIO),
}


@pytest.mark.parametrize("cause", list(CAUSES))
async def test_a_series_fails_with_the_errno_of_its_cause(
    cause: str, sharing: Sharing, archive: RunningSample, fresh: Fresh, expect_failure: ExpectFailure
) -> None:
    series = fresh()
    fault, number = CAUSES[cause]
    if fault.get("after_bytes") == IN_AN_IMAGE:
        fault = fault | {"after_bytes": middle_of_an_image(archive, series.uid)}
    archive.fault(path="getImage", series=series.uid, times=99, **fault)
    expect_failure(rf"WARNING tciafs\.store.*{series.uid}")
    async with sharing() as files:
        with pytest.raises(OSError, match=r".") as failed:
            await files.listdir(series.path)
        assert errno.errorcode[failed.value.errno or 0] == errno.errorcode[number]
        sentence = await files.getxattr(series.path, "user.tciafs.error")
        assert sentence.endswith(".")
        assert await files.getxattr(series.path, "user.tciafs.state") == "failed"


async def test_a_server_that_falls_silent_is_a_timeout(
    opening: Opener, archive: RunningSample, fresh: Fresh, expect_failure: ExpectFailure
) -> None:
    series = fresh()
    archive.fault("hang", series=series.uid, times=99)
    expect_failure(rf"WARNING tciafs\.store.*{series.uid}")
    async with opening(stall_timeout_s=1) as files:
        with trio.fail_after(30), pytest.raises(TimeoutError):
            await files.read(f"{series.path}/1-1.dcm")


async def test_a_series_larger_than_the_cache_is_no_space(
    opening: Opener, fresh: Fresh, expect_failure: ExpectFailure
) -> None:
    series = fresh()
    expect_failure(rf"WARNING tciafs\.store.*{series.uid}")
    async with opening(cache_bytes=series.size_bytes // 2) as files:
        with pytest.raises(OSError, match=r"No space left on device"):
            await files.listdir(series.path)


async def test_what_is_not_cached_is_unreachable_offline(
    opening: Opener, archive: RunningSample, fresh: Fresh
) -> None:
    series, unknown = fresh(), fresh()
    async with opening() as files:
        names = await files.listdir(series.path)
        await until_local(files, series)
        await files.stat(unknown.path)
    archive.forget_requests()
    async with opening(offline=True) as files:
        assert await files.listdir(series.path) == names
        with pytest.raises(OSError, match=r"No route to host"):
            await files.listdir(unknown.path)
        with pytest.raises(OSError, match=r"No route to host"):
            await files.listdir("Phantom-Echo-NC")
    assert archive.requests() == []


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        ({"kind": "status", "code": 500}, errno.EHOSTUNREACH),
        ({"kind": "status", "code": 401}, errno.EACCES),
        ({"kind": "html"}, errno.EPROTO),
        ({"kind": "truncate_json"}, errno.EPROTO),
    ],
)
async def test_a_listing_fails_with_the_errno_of_its_cause(
    fault: dict[str, Any], number: int, opening: Opener, archive: RunningSample
) -> None:
    async with opening() as files:
        assert await files.listdir("")
        archive.fault(path="getPatient", times=99, **fault)
        with pytest.raises(OSError, match=r".") as failed:
            await files.listdir("Phantom-Echo-NC")
        assert errno.errorcode[failed.value.errno or 0] == errno.errorcode[number]


async def test_a_name_that_does_not_exist_is_told_without_a_download(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    for path in ("no such collection", "Phantom-Head/no-one", f"{series.path}/.git", f"{series.path}/x.txt"):
        with pytest.raises(FileNotFoundError):
            await files.stat(path)
    assert downloads(archive) == 0


async def test_an_image_that_does_not_exist_is_told_once_the_series_is_known(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    with pytest.raises(FileNotFoundError):
        await files.stat(f"{series.path}/9-99.dcm")
    assert downloads(archive, series) == 1


async def test_a_failed_series_can_be_read_once_its_failure_is_forgotten(
    kind: str, opening: Opener, archive: RunningSample, fresh: Fresh, expect_failure: ExpectFailure
) -> None:
    if kind == "mount":
        pytest.skip("how long a failure is remembered is no option; see test_mount_errors for the mount")
    series = fresh()
    archive.fault("status", series=series.uid, times=1, code=500)
    expect_failure(rf"WARNING tciafs\.store.*{series.uid}")
    async with opening(failure_memory_s=0.0) as files:
        with pytest.raises(OSError, match=r"No route to host"):
            await files.listdir(series.path)
        assert len(await files.listdir(series.path)) == series.image_count
