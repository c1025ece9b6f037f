"""What goes wrong, as a program on the mount gets to know it; see "Errors" in docs/semantics.md."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of, middle_of_an_image
from tests.mounting import PROGRAM, Mount, mounted, run, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample() as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    _archive.forget_requests()
    yield _archive
    _archive.clear_faults()


@pytest.fixture(scope="module")
def mount(_archive: RunningSample) -> Iterator[Mount]:
    """A mount for what leaves no trace in it."""
    with mounted(_archive.url) as mount:
        yield mount


@pytest.fixture
def series(sample: RunningSample) -> Iterator[ExpectedSeries]:
    """The CT of 60 images, whose download a test may hold."""
    (found,) = (one for one in expected_series(sample, "Phantom-Head") if one.image_count == 60)
    yield found
    sample.pace(found.uid, None)


def _altered(change: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.filesystem.altered_mount", change)


# -- mistakes of the program itself ---------------------------------------------------------------

CALLS: dict[str, Callable[[Path, Path], object]] = {
    "lookup": lambda mnt, _image: (mnt / "Phantom-Head").stat(),
    "getattr": lambda mnt, _image: mnt.stat(),
    "opendir": lambda mnt, _image: os.listdir(mnt),
    "readdir": lambda mnt, _image: os.listdir(mnt),
    "open": lambda _mnt, image: image.open("rb").close(),
    "read": lambda _mnt, image: image.read_bytes(),
    "statfs": lambda mnt, _image: os.statvfs(mnt),
    "getxattr": lambda _mnt, image: os.getxattr(image.parent, "user.tciafs.state"),
    "look": lambda _mnt, image: os.listdir(image.parent),
}


@pytest.mark.parametrize("change", [*CALLS, "lookup:group", "open:group"])
def test_a_mistake_of_ours_is_an_eio_and_a_log_entry_and_the_mount_lives_on(
    change: str, sample: RunningSample, series: ExpectedSeries
) -> None:
    request = change.partition(":")[0]
    with mounted(sample.url, command=_altered(change), may_log_errors=True) as mount:
        image = mount.path / series.path / "1-60.dcm"
        with pytest.raises(OSError, match=os.strerror(errno.EIO)) as failed:
            CALLS[request](mount.path, image)
        assert failed.value.errno == errno.EIO
        CALLS[request](mount.path, image)
        assert image.read_bytes() == images_of(sample, series.uid)["1-60.dcm"]
        complaints = [line for line in mount.log().splitlines() if " ERROR " in line]
        handler = "opendir" if request == "look" else request
        place = "/" + (series.path if request in ("open", "read", "getxattr", "look") else "")
        assert complaints
        assert all(f"{handler} {place}" in complaint for complaint in complaints)
        assert "planted" in mount.log()


# -- writes and names that do not exist -----------------------------------------------------------

WRITES: dict[str, Callable[[Path], object]] = {
    "open for writing": lambda top: os.open(top / "LICENSE", os.O_WRONLY),
    "open for reading and writing": lambda top: os.open(top / "LICENSE", os.O_RDWR),
    "open for appending": lambda top: os.open(top / "LICENSE", os.O_WRONLY | os.O_APPEND),
    "open with truncation": lambda top: os.open(top / "LICENSE", os.O_RDONLY | os.O_TRUNC),
    "create": lambda top: os.open(top / "new", os.O_CREAT | os.O_WRONLY),
    "mkdir": lambda top: os.mkdir(top / "new"),
    "rmdir": lambda top: os.rmdir(top / "HEAD-001"),
    "unlink": lambda top: os.unlink(top / "LICENSE"),
    "rename": lambda top: os.rename(top / "LICENSE", top / "new"),
    "chmod": lambda top: os.chmod(top / "LICENSE", 0o600),
    "chown": lambda top: os.chown(top / "LICENSE", 1, 1),
    "utime": lambda top: os.utime(top / "LICENSE"),
    "truncate": lambda top: os.truncate(top / "LICENSE", 0),
    "symlink": lambda top: os.symlink("LICENSE", top / "new"),
    "link": lambda top: os.link(top / "LICENSE", top / "new"),
    "setxattr": lambda top: os.setxattr(top / "LICENSE", "user.new", b"value"),
    "removexattr": lambda top: os.removexattr(top / "LICENSE", "user.tcia.Collection"),
    "mknod": lambda top: os.mknod(top / "new"),
}


@pytest.mark.parametrize("write", list(WRITES))
def test_nothing_can_be_written(write: str, mount: Mount) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)) as refused:
        WRITES[write](mount.path / "Phantom-Head")
    assert refused.value.errno == errno.EROFS


def test_nothing_can_be_written_where_the_mount_was_made_writable(sample: RunningSample) -> None:
    with mounted(sample.url) as mount:
        remounted = run("mount", "-i", "-o", "remount,rw", mount.path)
        assert remounted.returncode == 0, remounted.stderr
        told = {}
        for what, write in WRITES.items():
            with pytest.raises(OSError, match=r".") as refused:
                write(mount.path / "Phantom-Head")
            told[what] = errno.errorcode[refused.value.errno or 0]
    assert told == dict.fromkeys(WRITES, "EROFS")


def test_a_name_that_does_not_exist_is_told_at_once_and_remembered(
    sample: RunningSample, mount: Mount, series: ExpectedSeries
) -> None:
    above = ["", "Phantom-Head", "Phantom-Head/HEAD-001", str(Path(series.path).parent)]
    for folder in above:
        os.listdir(mount.path / folder)
    sample.forget_requests()
    for folder in [*above, series.path]:
        for name in (".git", "desktop.ini", "no such name"):
            with pytest.raises(FileNotFoundError):
                (mount.path / folder / name).stat()
    assert sample.requests() == []


# -- the archive's failures -----------------------------------------------------------------------

DAMAGES = {"short": errno.EIO, "corrupt": errno.EIO, "cut": errno.EHOSTUNREACH}
"""What an archive does to a series, and the errno that users are promised for it."""


def _damage(sample: RunningSample, series: ExpectedSeries, kind: str) -> None:
    """Let every download of a series from now on go wrong in one way."""
    place = middle_of_an_image(sample, series.uid)
    sample.forget_requests()
    sample.fault(kind, series=series.uid, times=99, images=7, after_bytes=place)


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_damaged_series_never_looks_complete_and_is_readable_once_the_archive_mended_it(
    kind: str, sample: RunningSample, series: ExpectedSeries
) -> None:
    expected = images_of(sample, series.uid)
    number = DAMAGES[kind]
    _damage(sample, series, kind)
    with mounted(sample.url, "--retries", "0", command=_altered("forgets")) as mount:
        folder = mount.path / series.path
        listed = run("ls", "-U", folder)
        assert listed.returncode != 0
        assert os.strerror(number) in listed.stderr
        sample.clear_faults()
        assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == expected


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_damaged_series_says_what_happened_to_it(
    kind: str, sample: RunningSample, series: ExpectedSeries
) -> None:
    number = DAMAGES[kind]
    _damage(sample, series, kind)
    with mounted(sample.url, "--retries", "0") as mount:
        folder = mount.path / series.path
        with pytest.raises(OSError, match=os.strerror(number)):
            os.listdir(folder)
        for name in ("1-01.dcm", "1-60.dcm"):
            with pytest.raises(OSError, match=os.strerror(number)):
                (folder / name).read_bytes()
        assert os.getxattr(folder, "user.tciafs.state") == b"failed"
        sentence = os.getxattr(folder, "user.tciafs.error").decode()
        assert sentence
        assert sentence.partition(". ")[0] in mount.log()
        assert series.uid in mount.log()
        until(lambda: mount.incoming() == [], "the removal of the damaged pack")
    assert len(sample.requests("getImage")) == 1


@pytest.mark.parametrize(
    ("endpoint", "folder"), [("getPatient", "Phantom-Echo-NC"), ("getPatientStudy", "Phantom-Echo-NC/ECHO-1")]
)
def test_a_listing_that_keeps_failing_is_an_unreachable_host(
    endpoint: str, folder: str, sample: RunningSample
) -> None:
    with mounted(sample.url, "--retries", "0") as mount:
        os.listdir(mount.path / Path(folder).parent)
        sample.fault("status", endpoint, times=99, code=500)
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)) as failed:
            os.listdir(mount.path / folder)
        assert failed.value.errno == errno.EHOSTUNREACH


def test_a_series_that_is_not_permitted_is_a_permission_denied(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    sentence = f"The user has not been granted the access to image with given SeriesInstanceUID,{series.uid}."
    sample.fault("status", series=series.uid, times=99, code=400, body=sentence)
    with mounted(sample.url) as mount:
        with pytest.raises(PermissionError):
            (mount.path / series.path / "1-01.dcm").stat()
        with pytest.raises(PermissionError):
            os.listdir(mount.path / series.path)
        assert len(sample.requests("getImage")) == 1


def test_a_failure_told_to_one_reader_is_told_to_the_next_without_asking_again(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    sample.fault("html", series=series.uid, times=99)
    with mounted(sample.url, "--retries", "0") as mount:
        readers = [
            subprocess.Popen(["cat", mount.path / series.path / "1-01.dcm"], stderr=subprocess.PIPE)
            for _ in range(10)
        ]
        told = {reader.communicate(timeout=30)[1].decode().rpartition(": ")[2] for reader in readers}
    assert told == {os.strerror(errno.EPROTO) + "\n"}
    assert len(sample.requests("getImage")) == 1


@pytest.mark.parametrize("kind", ["short", "wrong_md5"])
def test_nothing_of_a_strict_series_is_shown_before_all_of_it_agrees(
    kind: str, sample: RunningSample, series: ExpectedSeries
) -> None:
    _damage(sample, series, kind)
    with mounted(sample.url, "--retries", "0", "--verify", "strict") as mount:
        folder = mount.path / series.path
        listed = run("ls", "-U", folder)
        assert (listed.returncode, listed.stdout) == (2, "")
        assert os.strerror(errno.EIO) in listed.stderr
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (folder / "1-01.dcm").read_bytes()
        sample.clear_faults()
        assert run(*PROGRAM, "refresh", folder).returncode == 0
        assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == images_of(
            sample, series.uid
        )


def test_a_strict_series_is_not_opened_while_it_arrives(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    zip_bytes = len(sample.get("v4/getImage", SeriesInstanceUID=series.uid, NewFileNames="Yes").content)
    sample.forget_requests()
    sample.pace(series.uid, 59)
    with mounted(sample.url, "--verify", "strict") as mount:
        image = mount.path / series.path / "1-01.dcm"
        reader = subprocess.Popen(["cat", image], stdout=subprocess.PIPE)
        until(lambda: _sent_bytes(sample) > zip_bytes * 0.9, "most of the series")
        status = json.loads(run(*PROGRAM, "status", "--json", mount.path).stdout)
        assert status["downloads"][0]["images"] == 0
        assert reader.poll() is None
        sample.pace(series.uid, None)
        assert reader.communicate(timeout=30)[0] == images_of(sample, series.uid)["1-01.dcm"]


# -- the rest of a series that broke off --------------------------------------------------------------


def _broken_at(sample: RunningSample, series: ExpectedSeries, share: float) -> tuple[int, int]:
    """Let the next download of a series break off; return how long its ZIP is, and where it breaks off."""
    query = {"SeriesInstanceUID": series.uid, "NewFileNames": "Yes", "IncludeMD5": "Yes"}
    zip_bytes = len(sample.get("v4/getImage", **query).content)
    after_bytes = int(zip_bytes * share)
    sample.fault("cut", series=series.uid, after_bytes=after_bytes)
    sample.forget_requests()
    return zip_bytes, after_bytes


def _sent_bytes(sample: RunningSample) -> int:
    return sum(request.sent_bytes for request in sample.requests())


def test_a_series_that_broke_off_late_costs_what_was_missing_and_not_the_whole_again(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    expected = images_of(sample, series.uid)
    zip_bytes, after_bytes = _broken_at(sample, series, 0.95)
    with mounted(sample.url) as mount:
        folder = mount.path / series.path
        assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == expected
        until(lambda: os.getxattr(folder, "user.tciafs.state") == b"local", "the series in its place")
        assert os.getxattr(folder, "user.tciafs.verified") == b"count,size,md5"
        listed = os.listdir(folder)
        assert listed == sorted(listed)
    tally = sample.tally()
    assert (tally["getImage"], tally["getSOPInstanceUIDs"], tally["getMD5Hierarchy"]) == (1, 1, 1)
    assert 0 < tally["getSingleImage"] < 10
    again = [request.sent_bytes for request in sample.requests() if request.endpoint == "getSingleImage"]
    assert sum(again) == sum(map(len, list(expected.values())[-len(again) :]))
    assert _sent_bytes(sample) - after_bytes < zip_bytes / 2


def test_a_series_that_broke_off_early_is_fetched_as_a_whole(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    expected = images_of(sample, series.uid)
    _broken_at(sample, series, 0.2)
    with mounted(sample.url) as mount:
        folder = mount.path / series.path
        assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == expected
    assert (sample.tally()["getImage"], sample.tally()["getSingleImage"]) == (2, 0)


def test_where_single_images_fail_the_whole_is_fetched(sample: RunningSample, series: ExpectedSeries) -> None:
    expected = images_of(sample, series.uid)
    _broken_at(sample, series, 0.95)
    sample.fault("status", "getSingleImage", times=99, code=500)
    with mounted(sample.url) as mount:
        folder = mount.path / series.path
        assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == expected
    assert (sample.tally()["getImage"], sample.tally()["getSingleImage"]) == (2, 1)
