"""Reading through a mount as viewers do: mapped, at random places, and from a disk that is waited for."""

import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import expected_series, images_of
from tests.mounting import Mount, mounted, until
from tests.sample.running import RunningSample

pytestmark = pytest.mark.mount

PAGE_BYTES = 4096


@pytest.fixture(scope="module")
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url) as mount:
        yield mount


@pytest.fixture(scope="module")
def multi_frame(sample: RunningSample, mount: Mount) -> tuple[Path, bytes]:
    """The largest image there is, an ultrasound of many frames, and its bytes; it is in the cache."""
    series = max(
        (one for one in expected_series(sample, "Phantom-Echo-NC") if one.image_count == 1),
        key=lambda one: one.size_bytes,
    )
    ((name, content),) = images_of(sample, series.uid).items()
    path = mount.path / series.path / name
    assert path.read_bytes() == content
    until(lambda: not mount.incoming(), "the series in its place")
    return path, content


def _drop_pages(folder: Path, *files: Path) -> None:
    """Have the kernel forget the pages of files, and those of all packs, so that the disk is asked."""
    for file in (*files, *folder.glob("series/*/*.pack")):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def test_a_viewer_may_map_an_image(multi_frame: tuple[Path, bytes]) -> None:
    path, content = multi_frame
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert len(mapped) == len(content)
        for offset in random.Random(2).sample(range(len(content)), 50):
            assert mapped[offset] == content[offset]
        assert mapped[:] == content


def test_an_image_may_be_mapped_while_its_series_comes_in(sample: RunningSample, mount: Mount) -> None:
    (series,) = (one for one in expected_series(sample, "Phantom-Head") if one.image_count == 60)
    content = images_of(sample, series.uid)["1-01.dcm"]
    sample.pace(series.uid, 2)
    with (mount.path / series.path / "1-01.dcm").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert mapped[1000:2000] == content[1000:2000]
    sample.pace(series.uid, None)
    assert len(list((mount.path / series.path).iterdir())) == 60
    assert mapped[:] == content
    mapped.close()


def test_single_frames_are_read_from_the_disk_wherever_they_lie(
    mount: Mount, multi_frame: tuple[Path, bytes]
) -> None:
    path, content = multi_frame
    places = random.Random(3)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for _ in range(40):
            _drop_pages(mount.cache, path)
            offset = places.randrange(len(content))
            length = places.choice((1, PAGE_BYTES, 100_000))
            assert os.pread(descriptor, length, offset) == content[offset : offset + length]
    finally:
        os.close(descriptor)


def test_a_second_opening_reads_nothing_again(mount: Mount, multi_frame: tuple[Path, bytes]) -> None:
    path, content = multi_frame
    assert path.read_bytes() == content
    before = _reads_of(mount.pid)
    assert path.read_bytes() == content
    assert _reads_of(mount.pid) - before < len(content)


def _reads_of(pid: int) -> int:
    """Return how many bytes a process has read so far, from whatever; see proc(5), io."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["rchar"])
