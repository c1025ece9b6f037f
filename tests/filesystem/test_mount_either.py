"""The IDC and NBIA mounted as one: the same from whichever, also when one of them dies in mid-walk."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounting import Mount, mounted, program, status_of, until
from tests.relay import Relay
from tests.s3 import RunningS3, needs_s3
from tests.sample.running import RunningSample

duckdb = pytest.importorskip("duckdb")
pytestmark = [pytest.mark.mount, needs_s3]

NBIA_ALONE = "Phantom-Brain-MR"
"""A collection that the index is made to lack."""

LACKING = "SEG"
"""The modality of the one series of Phantom-Head that it lacks too."""


@pytest.fixture(scope="module")
def some(written: Path) -> str:
    """The name of an index beside the whole one, which lacks a part."""
    some = written / "some"
    some.mkdir()
    for path in (written / "index").iterdir():
        (some / path.name).write_bytes(path.read_bytes())
    with duckdb.connect() as database:
        database.execute(
            f"copy (select * from '{written}/index/idc_index.parquet' "
            f"where collection_id != 'phantom_brain_mr' and Modality is distinct from '{LACKING}') "
            f"to '{some}/idc_index.parquet' (format parquet)"
        )
    return some.name


class Either:
    """Both archives behind relays, and mounts of them in one cache folder."""

    def __init__(self, written: Path, buckets: Relay, server: Relay, folder: Path) -> None:
        self.buckets = buckets
        self.server = server
        self._written = written
        self._folder = folder

    @contextmanager
    def mounted(self, *others: str, archive: str = "auto", index: str = "index") -> Iterator[Mount]:
        words = ("--archive", archive, "--idc-url", self.buckets.url, "--idc-index", self._written / index)
        with mounted(self.server.url, *words, "--retries", "2", *others, folder=self._folder) as mount:
            until(lambda: "NBIA alone" not in status_of(mount)["archive_remark"], "the Imaging Data Commons")
            yield mount


@pytest.fixture
def either(written: Path, s3: RunningS3, nbia: RunningSample, tmp_path: Path) -> Iterator[Either]:
    with Relay(s3.url) as buckets, Relay(nbia.url) as server:
        yield Either(written, buckets, server, tmp_path)


def walked(top: Path, *, after_files: int, then: Callable[[], object]) -> dict[str, str]:
    """Return the MD5 of every file below a folder by its path; after so many something happens."""
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(top, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".xml"):
                continue  # annotations are NBIA's
            path = Path(folder, name)
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            found[str(path.relative_to(top))] = digest
            if len(found) == after_files:
                then()
    return found


def _raise(error: OSError) -> None:
    raise error


def nothing() -> None:
    pass


def until_local(series: Path) -> None:
    """Return once a series that was read to its end is in its place, a moment later."""
    until(lambda: os.getxattr(series, "user.tciafs.state") == b"local", "the series in its place")


def names_below(top: Path) -> set[str]:
    """Return the paths of the folders down to the series."""
    return {
        str(Path(folder, name).relative_to(top))
        for folder, folders, _ in os.walk(top, onerror=_raise)
        for name in folders
    }


@pytest.fixture(scope="module")
def truth(written: Path, s3: RunningS3, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All files of the IDC, as it shows them alone."""
    words = ("--archive", "idc", "--idc-url", s3.url, "--idc-index", written / "index")
    with mounted("http://127.0.0.1:9", *words, folder=tmp_path_factory.mktemp("truth")) as mount:
        return walked(mount.path, after_files=0, then=nothing)


def test_nbia_dies_in_mid_walk_and_the_walk_ends_complete(either: Either, truth: dict[str, str]) -> None:
    with either.mounted() as mount:
        assert walked(mount.path, after_files=100, then=either.server.refuse) == truth
        assert "NBIA is away" in mount.log()


def test_s3_dies_in_mid_walk_and_the_walk_ends_complete(either: Either, truth: dict[str, str]) -> None:
    with either.mounted() as mount:
        assert walked(mount.path, after_files=100, then=either.buckets.refuse) == truth
        assert "the Imaging Data Commons is away" in mount.log()
        (series,) = (mount.path / "Phantom-Head" / "HEAD-001").glob("*/2.000000*")
        until_local(series)
        assert os.getxattr(series, "user.tciafs.route") in (b"idc", b"nbia", b"idc,nbia")


def test_images_are_called_the_same_from_whichever_they_come(either: Either, truth: dict[str, str]) -> None:
    either.buckets.refuse()
    with either.mounted() as mount:
        from_nbia = walked(mount.path / "Numbering_Traps", after_files=0, then=nothing)
        assert from_nbia == {
            path.removeprefix("Numbering_Traps/"): md5
            for path, md5 in truth.items()
            if path.startswith("Numbering_Traps/")
        }
        for series in (mount.path / "Numbering_Traps").glob("*/*/*"):
            until_local(series)
            assert os.getxattr(series, "user.tciafs.route") == b"nbia"
            assert b"md5" in os.getxattr(series, "user.tciafs.verified")


def test_a_series_that_came_by_one_way_is_here_for_both(either: Either) -> None:
    with either.mounted() as mount:
        (series,) = (mount.path / "Phantom-Head" / "HEAD-001").glob("*/2.000000*")
        either.buckets.refuse()
        assert program("prefetch", series).returncode == 0
        assert os.getxattr(series, "user.tciafs.route") == b"nbia"
        (came,) = [each for each in status_of(mount)["arrivals"] if each["images"] == 60]
        assert came["routes"] == ["nbia"]
    either.buckets.listen()
    either.server.refuse()
    for archive in ("auto", "idc"):
        with either.mounted(archive=archive) as mount:
            (series,) = (mount.path / "Phantom-Head" / "HEAD-001").glob("*/2.000000*")
            assert os.getxattr(series, "user.tciafs.state") == b"local"


def test_a_series_that_one_archive_released_on_another_day_does_not_come_again(
    either: Either, nbia: RunningSample
) -> None:
    uid = nbia.series_uid("Phantom-Brain-MR")
    nbia.revise(uid, DateReleased="12-31-2024")
    try:
        with either.mounted(archive="nbia") as mount:
            (series,) = (mount.path / "Phantom-Brain-MR").glob("*/*/*")
            assert program("prefetch", series).returncode == 0
            day = os.getxattr(series, "user.tcia.DateReleased")
            nbia.forget_requests()
        with either.mounted() as mount:
            (series,) = (mount.path / "Phantom-Brain-MR").glob("*/*/*")
            assert os.getxattr(series, "user.tcia.DateReleased") != day
            assert program("prefetch", series).returncode == 0
            assert os.getxattr(series, "user.tciafs.state") == b"local"
            assert os.getxattr(series, "user.tciafs.route") == b"nbia"
            assert os.getxattr(series, "user.tciafs.verified") == b"count,size,md5"
    finally:
        nbia.restore()
    assert nbia.requests("getImage") == []


def test_what_one_lacks_comes_from_the_other_and_stays_when_it_dies(
    either: Either, truth: dict[str, str], some: str
) -> None:
    with either.mounted(index=some) as mount:
        before = names_below(mount.path)
        inodes = {name: (mount.path / name).stat().st_ino for name in before}
        (alone,) = [path for path in mount.path.glob("Phantom-Head/*/*/*") if _modality(path) == LACKING]
        assert program("prefetch", alone).returncode == 0
        assert os.getxattr(alone, "user.tciafs.route") == b"nbia"
        either.server.refuse()
        assert program("refresh", mount.path / "Phantom-Head" / "HEAD-001").returncode == 0
        assert names_below(mount.path) == before
    assert {str(Path(path).parent) for path in truth if path.endswith(".dcm")} <= before
    with either.mounted(index=some) as mount:
        assert names_below(mount.path) == before
        assert {name: (mount.path / name).stat().st_ino for name in before} == inodes
        assert program("refresh", mount.path).returncode == 0
        assert NBIA_ALONE in os.listdir(mount.path)


def _modality(path: Path) -> str:
    return os.getxattr(path, "user.tcia.Modality").decode()


def test_a_dead_nbia_is_waited_for_once(either: Either, some: str) -> None:
    either.server.refuse()
    with either.mounted(index=some) as mount:
        assert NBIA_ALONE not in os.listdir(mount.path)
        assert len(names_below(mount.path)) > 150
        # Each process finds out for itself, in three attempts; each patient would be some 250.
        assert mount.log().count("a listing failed") <= 30
        assert "NBIA is away, and asked again in " in status_of(mount)["archive_remark"]


def test_without_an_index_it_is_nbia(nbia: RunningSample, tmp_path: Path) -> None:
    with mounted(nbia.url, "--archive", "auto", folder=tmp_path) as mount:
        assert status_of(mount)["archive"] == nbia.url
        listings = os.listdir(tmp_path / "cache" / "listings")
    with mounted(nbia.url, "--archive", "nbia", folder=tmp_path) as mount:
        assert os.listdir(tmp_path / "cache" / "listings") == listings


def test_the_status_names_both_and_the_doctor_looks_at_both(either: Either, written: Path) -> None:
    with either.mounted() as mount:
        assert status_of(mount)["archive"] == f"{either.buckets.url} and {either.server.url}"
    done = program(
        *("doctor", "--archive", "auto", "--url", either.server.url),
        *("--idc-url", either.buckets.url, "--idc-index", written / "index"),
    )
    assert done.returncode == 0, done.stdout
    assert "of the Imaging Data Commons" in done.stdout
    assert done.stdout.count("answers with status") == 2


def test_a_named_index_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    done = program(
        *(tmp_path / "mnt", "--archive", "auto", "--idc-index", tmp_path, "--agree-to-policy"),
        *("--cache-dir", tmp_path / "cache", "--log-file", tmp_path / "log"),
    )
    assert done.returncode == 3
    assert "holds no index of the Imaging Data Commons" in done.stderr
