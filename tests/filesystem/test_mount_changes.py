"""What an archive changes, as programs on a real mount see it: at once, and without losing what is open."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series
from tests.mounting import Mount, mounted, program, status_of, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

COLLECTION = "Phantom-Head"


@pytest.fixture(scope="module")
def _running() -> Iterator[RunningSample]:
    with running_sample("--many-patients", "30") as sample:
        yield sample


@pytest.fixture
def sample(_running: RunningSample) -> Iterator[RunningSample]:
    yield _running
    _running.restore()
    _running.clear_faults()


@pytest.fixture
def series(sample: RunningSample) -> ExpectedSeries:
    """A CT of 60 images, as it is before anything changes."""
    (found,) = (one for one in expected_series(sample, COLLECTION) if one.image_count == 60)
    return found


@pytest.fixture
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url) as mount:
        yield mount


def refresh(mount: Mount, path: str) -> None:
    done = program("refresh", mount.path / path)
    assert (done.returncode, done.stderr) == (0, "")


def study_of(series: ExpectedSeries) -> str:
    """Return the path of its study, to be refreshed where the series will not be found any more."""
    return series.path.rpartition("/")[0]


def is_gone(path: Path) -> bool:
    """Return whether a path is not there; stat takes what the kernel remembers, and lists nothing."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    return False


def test_a_withdrawn_series_is_gone_and_who_reads_it_reads_on(
    sample: RunningSample, series: ExpectedSeries, mount: Mount
) -> None:
    folder = mount.path / series.path
    image = sorted(folder.iterdir())[0]
    content = image.read_bytes()
    with image.open("rb", buffering=0) as open_image:
        assert open_image.read(100) == content[:100]
        sample.withdraw(series.uid)
        refresh(mount, study_of(series))
        until(lambda: is_gone(folder), "that the kernel has forgotten the folder")
        assert folder.name not in os.listdir(folder.parent)
        os.posix_fadvise(open_image.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        open_image.seek(0)
        assert open_image.readall() == content
        assert os.fstat(open_image.fileno()).st_size == len(content)
    assert is_gone(image)


def test_a_series_that_is_described_anew_has_its_new_name_only(
    sample: RunningSample, series: ExpectedSeries, mount: Mount
) -> None:
    folder = mount.path / series.path
    inode = folder.stat().st_ino
    renamed = folder.with_name("2.000000-brand new-" + series.uid[-5:])
    assert is_gone(renamed), "the kernel remembers this for half a minute"
    sample.revise(series.uid, SeriesDescription="brand new", SeriesNumber=2)
    refresh(mount, study_of(series))
    until(lambda: is_gone(folder), "that the kernel has forgotten the old name")
    until(lambda: not is_gone(renamed), "that the kernel has forgotten that there was no such name")
    assert renamed.stat().st_ino == inode


def test_a_series_of_another_version_has_a_new_layout(
    sample: RunningSample, series: ExpectedSeries, mount: Mount
) -> None:
    folder = mount.path / series.path
    before = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert len(before) == 60
    sample.revise(series.uid, ImageCount=7)
    refresh(mount, series.path)
    (folder,) = (each for each in folder.parent.iterdir() if each.name.endswith(folder.name[-5:]))
    assert sorted(os.listdir(folder)) == [f"1-{number}.dcm" for number in range(1, 8)]
    until(lambda: is_gone(folder / "1-60.dcm"), "that the kernel has forgotten an image that is no more")
    images = sorted(folder.iterdir())
    assert [len(path.read_bytes()) for path in images] == [path.stat().st_size for path in images]


def test_another_day_of_release_is_seen_without_listing(
    sample: RunningSample, series: ExpectedSeries, mount: Mount
) -> None:
    folder = mount.path / series.path
    before = folder.stat().st_mtime
    sample.revise(series.uid, DateReleased="01-02-2024")
    refresh(mount, series.path)
    until(lambda: folder.stat().st_mtime != before, "the new day")


def test_nothing_instead_of_a_listing_is_not_believed_and_told_in_the_status(
    sample: RunningSample, mount: Mount
) -> None:
    before = os.listdir(mount.path / COLLECTION)
    sample.fault("empty", "getPatient")
    refresh(mount, COLLECTION)
    assert os.listdir(mount.path / COLLECTION) == before
    sentence = f"the archive lists nothing under patients/{COLLECTION}, which had {len(before) - 1} records"
    (event,) = status_of(mount)["catalogue"]["events"]
    assert event["message"].startswith(sentence)
    assert sentence in program("status", mount.path).stdout


def test_a_walk_of_all_that_is_mounted_again_asks_nothing_with_the_archive_gone(
    sample: RunningSample, tmp_path: Path
) -> None:
    def walk(mount: Mount) -> list[str]:
        return [str(Path(place).relative_to(mount.path)) for place, *_ in os.walk(mount.path / "MANY")][:90]

    with mounted(sample.url, folder=tmp_path) as mount:
        found = walk(mount)
        assert len(found) == 90
    sample.forget_requests()
    sample.fault("status", "", times=1000, code=503)
    with mounted(sample.url, folder=tmp_path) as mount:
        assert walk(mount) == found
    assert sample.requests() == []


def test_a_walk_through_a_mount_is_five_requests(sample: RunningSample, mount: Mount) -> None:
    os.listdir(mount.path)
    sample.forget_requests()
    program_output = [names for _, names, _ in os.walk(mount.path / "MANY")]
    assert sum(map(len, program_output)) == 3 * 30
    asked = sorted(request.endpoint for request in sample.requests() if request.endpoint != "getImage")
    assert asked == ["getPatient", "getPatientStudy", "getPatientStudy", "getSeries", "getSeries"]
