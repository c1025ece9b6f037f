"""The behaviour suite's fixtures: an archive, a file system of either kind, and series nobody touched yet."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.behaviour.core_filesystem import core
from tests.behaviour.filesystems import Circumstances, FileSystem
from tests.behaviour.mounted_filesystem import MountedFileSystem, through_mount
from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import Mount, mounted
from tests.sample.running import RunningSample, running_sample

FRESH_SERIES = 600
"""Enough for one run of the suite on both kinds."""

Fresh: TypeAlias = Callable[..., ExpectedSeries]
ExpectFailure: TypeAlias = Callable[[str], None]
Opener: TypeAlias = Callable[..., AbstractAsyncContextManager[FileSystem]]
Sharing: TypeAlias = Callable[..., AbstractAsyncContextManager[FileSystem]]


@pytest.fixture(scope="session")
def _archive() -> Iterator[RunningSample]:
    with running_sample("--many-series", str(FRESH_SERIES)) as sample:
        yield sample


@pytest.fixture
def archive(_archive: RunningSample) -> Iterator[RunningSample]:
    """The sample archive, with an empty record of requests."""
    _archive.forget_requests()
    yield _archive
    _archive.clear_faults()


@pytest.fixture(scope="session")
def _shared_mount(_archive: RunningSample) -> Iterator[Mount]:
    with mounted(_archive.url) as mount:
        yield mount


@pytest.fixture(params=["core", pytest.param("mount", marks=pytest.mark.mount)])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two file systems a test runs on."""
    return str(request.param)


@pytest.fixture
def _mount_or_none(kind: str, request: pytest.FixtureRequest) -> Mount | None:
    mount: Mount | None = request.getfixturevalue("_shared_mount") if kind == "mount" else None
    return mount


@pytest.fixture
async def files(
    archive: RunningSample, _mount_or_none: Mount | None, tmp_path: Path
) -> AsyncIterator[FileSystem]:
    """A file system as it is by default; the mounted one is shared, so tests take fresh series."""
    if _mount_or_none is not None:
        yield MountedFileSystem(_mount_or_none)
        return
    async with core(archive.url, tmp_path, Circumstances()) as files:
        yield files


@pytest.fixture(scope="session")
def _mount_under(_archive: RunningSample) -> Iterator[Callable[[Circumstances], Mount]]:
    """Give a mount that runs under some circumstances: one for all tests that ask for the same."""
    mounts: dict[Circumstances, Mount] = {}
    with ExitStack() as stack:

        def mount_under(how: Circumstances) -> Mount:
            if how not in mounts:
                mounts[how] = stack.enter_context(mounted(_archive.url, *how.options))
            return mounts[how]

        yield mount_under


@pytest.fixture
def sharing(kind: str, archive: RunningSample, request: pytest.FixtureRequest, tmp_path: Path) -> Sharing:
    """Open a file system under some circumstances; the mounted one is shared, so tests take fresh series."""
    mount_under = request.getfixturevalue("_mount_under") if kind == "mount" else None

    def open_files(**how: object) -> AbstractAsyncContextManager[FileSystem]:
        circumstances = Circumstances(**how)  # type: ignore[arg-type]
        if mount_under is None:
            return core(archive.url, tmp_path, circumstances)
        return nullcontext(MountedFileSystem(mount_under(circumstances)))

    return open_files


@pytest.fixture
def opening(kind: str, archive: RunningSample, tmp_path: Path) -> Opener:
    """Open a file system under circumstances of its own; again with the same `place`, and the cache stays."""

    def open_files(place: str = "one", **how: object) -> AbstractAsyncContextManager[FileSystem]:
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        if kind == "core":
            return core(archive.url, folder / "cache", Circumstances(**how))  # type: ignore[arg-type]
        return through_mount(archive.url, folder, Circumstances(**how))  # type: ignore[arg-type]

    return open_files


@pytest.fixture
def expect_failure(kind: str, expect_log: ExpectFailure) -> ExpectFailure:
    """Declare what is logged of a failure; a mount logs in its own process."""
    return expect_log if kind == "core" else lambda _pattern: None


class Untouched:
    """Series of several images that no test has touched, sorted by acquisitions on the way."""

    def __init__(self, archive: RunningSample) -> None:
        self._archive = archive
        self._left = iter(expected_series(archive, "MANYSERIES"))
        self._sorted: dict[int, list[ExpectedSeries]] = defaultdict(list)

    def take(self, acquisitions: int) -> ExpectedSeries:
        """Return one, and never again."""
        while not self._sorted[acquisitions]:
            series = next(self._left, None)
            assert series is not None, "no untouched series is left: raise FRESH_SERIES"
            groups = {name.partition("-")[0] for name in images_of(self._archive, series.uid)}
            self._sorted[len(groups)].append(series)
        return self._sorted[acquisitions].pop()


@pytest.fixture(scope="session")
def _untouched(_archive: RunningSample) -> Untouched:
    return Untouched(_archive)


@pytest.fixture
def fresh(_untouched: Untouched, archive: RunningSample) -> Fresh:
    """Give a series that no test has touched: several images, in one acquisition or two."""

    def take(acquisitions: int = 1) -> ExpectedSeries:
        series = _untouched.take(acquisitions)
        archive.forget_requests()
        return series

    return take
