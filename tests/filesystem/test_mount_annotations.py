"""Annotation files on a real mount: what the retriever leaves, what faults cost, what is asked for."""

import errno
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, files_of, images_of, unzip_series
from tests.filesystem.seen import BRIEF
from tests.mounting import Mount, mounted, program, run, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

COLLECTION = "Phantom-Lung-Marked"
DOWNLOADS = ("getImage", "getDCMImage", "getSeriesMetaData", "getSingleImage", "getMD5Hierarchy")


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample() as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    _archive.clear_faults()
    _archive.forget_requests()
    yield _archive
    _archive.clear_faults()


@pytest.fixture
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url, *BRIEF, "--retries", "1", "--read-ahead", "0") as mount:
        yield mount


@pytest.fixture(scope="module")
def marked(_archive: RunningSample) -> ExpectedSeries:
    """The series of twelve images and two annotations."""
    (found,) = (each for each in expected_series(_archive, COLLECTION) if each.image_count > 1)
    return found


@pytest.fixture(scope="module")
def lone(_archive: RunningSample) -> ExpectedSeries:
    """The series of one image and one annotation."""
    (found,) = (
        each
        for each in expected_series(_archive, COLLECTION)
        if each.image_count == 1 and each.row["AnnotationsFlag"]
    )
    return found


def downloads(sample: RunningSample) -> dict[str, int]:
    tally = sample.tally()
    return {endpoint: tally[endpoint] for endpoint in DOWNLOADS if tally[endpoint]}


def attribute(folder: Path, name: str) -> str:
    return os.getxattr(folder, f"user.{name}").decode()


def settle(folder: Path) -> None:
    """Return once a series that was read is verified and in its place."""
    until(lambda: attribute(folder, "tciafs.state") == "local", "the end of a download")


def files_in(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.mark.parametrize("api", ["v4", "v1"])
def test_a_copy_is_what_the_retriever_leaves(sample: RunningSample, tmp_path: Path, api: str) -> None:
    series = expected_series(sample, COLLECTION)
    for each in series:
        unzip_series(sample, each, tmp_path / "retriever")
    with mounted(sample.url, "--api", api) as mount:
        assert run("cp", "-r", mount.path / COLLECTION, tmp_path / "copy").returncode == 0
    (tmp_path / "copy/LICENSE").unlink()
    compared = run("diff", "-r", tmp_path / "retriever" / COLLECTION, tmp_path / "copy")
    assert (compared.returncode, compared.stdout) == (0, "")
    assert len(list((tmp_path / "copy").rglob("*.xml"))) == 3


def test_one_download_brings_images_and_annotations_verified(
    sample: RunningSample, mount: Mount, marked: ExpectedSeries
) -> None:
    folder = mount.path / marked.path
    assert files_in(folder) == files_of(sample, marked.uid)
    settle(folder)
    sample.forget_requests()
    assert attribute(folder, "tciafs.verified") == "crc32,count,size,md5,annotations"
    assert attribute(folder, "tcia.AnnotationsFlag") == "yes"
    assert files_in(folder) == files_of(sample, marked.uid)
    assert downloads(sample) == {"getDCMImage": 1}, "that of the witness"


def test_requests_of_a_download(sample: RunningSample, mount: Mount, marked: ExpectedSeries) -> None:
    os.listdir(mount.path / marked.path)
    assert downloads(sample) == {"getDCMImage": 1, "getSeriesMetaData": 1}


def test_other_series_are_asked_for_as_ever(sample: RunningSample, mount: Mount) -> None:
    (plain,) = (each for each in expected_series(sample, COLLECTION) if not each.row["AnnotationsFlag"])
    assert files_in(mount.path / plain.path) == images_of(sample, plain.uid)
    assert downloads(sample) == {"getImage": 2}, "the mount and the witness"


def test_an_annotation_is_opened_by_its_name_alone(
    sample: RunningSample, mount: Mount, marked: ExpectedSeries, lone: ExpectedSeries
) -> None:
    assert (mount.path / marked.path / "069.xml").read_bytes() == files_of(sample, marked.uid)["069.xml"]
    assert (mount.path / lone.path / "158.xml").read_bytes() == files_of(sample, lone.uid)["158.xml"]
    with pytest.raises(FileNotFoundError):
        (mount.path / marked.path / "070.xml").stat()


def test_sizes_inodes_and_order_stay_from_before_to_after(
    mount: Mount, marked: ExpectedSeries, lone: ExpectedSeries
) -> None:
    folder = mount.path / lone.path
    before = (folder / "1-1.dcm").stat()
    assert before.st_size == lone.size_bytes
    assert attribute(folder, "tciafs.state") == "remote", "the size of a lone image costs nothing"
    assert set(os.listdir(folder)) == {"1-1.dcm", "158.xml"}
    after = (folder / "1-1.dcm").stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    with os.scandir(mount.path / marked.path) as entries:
        listed = [(each.name, each.inode()) for each in entries]
    images = [name for name, _ in listed if name.endswith(".dcm")]
    assert [name for name, _ in listed] == [*images, "086.xml", "069.xml"]
    assert images == sorted(images)
    assert [inode for _, inode in listed] == [
        (mount.path / marked.path / name).stat().st_ino for name, _ in listed
    ]


def test_a_walk_shows_images_alone_and_downloads_nothing(
    sample: RunningSample, marked: ExpectedSeries
) -> None:
    with mounted(sample.url, "--listing", "names") as mount:
        names = os.listdir(mount.path / marked.path)
        assert sorted(names) == sorted(images_of(sample, marked.uid))
        assert "getDCMImage" not in sample.tally()
        assert (mount.path / marked.path / "069.xml").stat().st_size > 0
        assert len(os.listdir(mount.path / marked.path)) == len(names) + 2


FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a lost file": ("short_annotations", {}, "bytes"),
    "all lost": ("short_annotations", {"images": 2}, "sent none"),
    "half a file": ("cut_annotation", {}, "bytes"),
    "a name that leads out": ("annotation_name", {"name": "../../../etc/passwd.xml"}, "unsafe name"),
    "a name of an image": ("annotation_name", {"name": "1-01.xml/1-01.dcm"}, "two files"),
    "a name too long": ("annotation_name", {"name": "x" * 256 + ".xml"}, "name"),
    "a web page": ("html", {}, "web page"),
    "an empty answer": ("empty", {}, "empty answer"),
    "a refusal": ("status", {"code": 400, "body": "Invalid query parameter"}, "400"),
    "not there": ("status", {"code": 404}, "404"),
    "broken": ("status", {"code": 500}, "500"),
    "a cut connection": ("cut", {"after_bytes": 2000}, "broke off"),
}


@pytest.fixture(scope="module")
def faulty(_archive: RunningSample) -> Iterator[Mount]:
    """A mount for all faults, which has the series fetched anew for each."""
    with mounted(_archive.url, *BRIEF, "--retries", "1", "--read-ahead", "0") as mount:
        yield mount


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_annotations_costs_no_image(
    sample: RunningSample, faulty: Mount, marked: ExpectedSeries, fault: str
) -> None:
    kind, details, reason = FAULTS[fault]
    sample.fault(kind, "getDCMImage", times=9, **details)
    mount, folder = faulty, faulty.path / marked.path
    if attribute(folder, "tciafs.state") == "local":
        assert program("evict", folder).returncode == 0
    (folder / "1-01.dcm").read_bytes()
    settle(folder)
    assert files_in(folder) == images_of(sample, marked.uid)
    assert attribute(folder, "tciafs.verified") == "crc32,count,size,md5"
    assert reason in attribute(folder, "tciafs.lacks")
    assert f"series {marked.uid} is without annotations" in mount.log()
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.EIO))):
        (folder / "069.xml").stat()
    with pytest.raises(FileNotFoundError):
        (folder / "desktop.ini").stat()


def test_evicting_has_them_asked_for_again(
    sample: RunningSample, mount: Mount, marked: ExpectedSeries
) -> None:
    sample.fault("short_annotations", "getDCMImage")
    folder = mount.path / marked.path
    assert files_in(folder) == images_of(sample, marked.uid)
    settle(folder)
    assert program("evict", folder).returncode == 0
    assert (folder / "069.xml").read_bytes() == files_of(sample, marked.uid)["069.xml"]
    settle(folder)
    assert set(os.listdir(folder)) == set(files_of(sample, marked.uid))
    with pytest.raises(OSError, match="No data"):
        attribute(folder, "tciafs.lacks")


def test_exports_have_what_the_retriever_leaves(sample: RunningSample, mount: Mount, tmp_path: Path) -> None:
    series = expected_series(sample, COLLECTION)
    expected = {
        f"{each.path}/{name}": data for each in series for name, data in files_of(sample, each.uid).items()
    }
    to = tmp_path / "out"
    for said in (f"{to}: 3 series\n", f"{to}: 3 series (3 were there already)\n"):
        done = program("export", "--to", to, mount.path / COLLECTION)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == said
    found = {str(each.relative_to(to)): each.read_bytes() for each in to.rglob("*") if each.is_file()}
    rows = found.pop("metadata.csv").decode().splitlines()
    assert found.pop(f"{COLLECTION}/LICENSE")
    assert found == expected
    (row,) = (each for each in rows if f",{12}," in each)
    assert ",12," in row, "annotations are no images, in the table too"
    done = program("export", "--to", tmp_path, "--archive", "tar", mount.path / COLLECTION)
    assert (done.returncode, done.stderr) == (0, "")
    (tar,) = tmp_path.rglob("*.tar")
    with tarfile.open(tar) as archive:
        names = {each.name for each in archive if each.name.endswith((".dcm", ".xml"))}
    assert names == set(expected)


def test_an_export_without_annotations_keeps_the_images_and_says_what_lacks(
    sample: RunningSample, mount: Mount, marked: ExpectedSeries, tmp_path: Path
) -> None:
    sample.fault("short_annotations", "getDCMImage", series=marked.uid, times=9)
    done = program("export", "--to", tmp_path, mount.path / marked.path)
    assert done.returncode == 1
    assert "without annotations" in (tmp_path / "downloadErrRpt.csv").read_text()
    assert {each.name for each in (tmp_path / marked.path).iterdir()} == set(images_of(sample, marked.uid))
    assert marked.uid not in (tmp_path / "metadata.csv").read_text()


def test_tables_and_sums_count_images_alone(mount: Mount, marked: ExpectedSeries) -> None:
    os.listdir(mount.path / marked.path)
    table = (mount.path / ".tciafs" / COLLECTION / "series.csv").read_text()
    (row,) = (each for each in table.splitlines() if marked.uid in each)
    assert ",12," in row
    counts = (
        attribute(mount.path / marked.path, "tcia.ImageCount"),
        attribute(mount.path / marked.path, "tcia.FileSize"),
    )
    assert counts == ("12", str(marked.size_bytes))


def test_a_damaged_annotation_in_the_cache_is_found(mount: Mount, marked: ExpectedSeries) -> None:
    os.listdir(mount.path / marked.path)
    settle(mount.path / marked.path)
    (pack,) = mount.cache.rglob("*.pack")
    data = bytearray(pack.read_bytes())
    place = data.index(b"<noduleID>")
    data[place] ^= 0xFF
    with pack.open("r+b") as file:
        file.write(data)
    done = program("verify", mount.path)
    assert done.returncode != 0
    assert ".xml" in done.stdout + done.stderr


def test_a_new_mount_reads_annotations_from_its_cache_alone(
    sample: RunningSample, marked: ExpectedSeries, tmp_path: Path
) -> None:
    with mounted(sample.url, folder=tmp_path) as mount:
        expected = files_in(mount.path / marked.path)
    with mounted(sample.url, "--offline", folder=tmp_path) as mount:
        assert files_in(mount.path / marked.path) == expected
