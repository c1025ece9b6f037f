"""Images of the Imaging Data Commons read in part: a real mount, a real S3 server, bytes counted."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from tciafs.sample.__main__ import main as sample_archive
from tciafs.sample.as_idc import BUCKET
from tests.mounting import Mount, mounted, program, run, status_of, until
from tests.relay import Relay
from tests.s3 import RunningS3, needs_s3

pytest.importorskip("duckdb")
pytestmark = [pytest.mark.mount, needs_s3]

SLICES = 24
NO_NBIA = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Bench:
    """A bucket and an index of a series of SLICES images; `files` are their MD5s, `size_bytes` their sum."""

    folder: Path
    size_bytes: int
    md5s: list[str]
    uuid: str


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("idc")
    sample_archive(["--bench-slices", str(SLICES), "--write-idc", str(folder)])
    return folder


@pytest.fixture(scope="module")
def bench(written: Path) -> Bench:
    largest = max((written / BUCKET).iterdir(), key=size_of)
    return Bench(written, size_of(largest), sorted(md5_of(each) for each in largest.iterdir()), largest.name)


@pytest.fixture(scope="module")
def line(s3: RunningS3) -> Iterator[Relay]:
    with Relay(s3.url) as relay:
        yield relay


@pytest.fixture(scope="module")
def _mount(line: Relay, bench: Bench) -> Iterator[Mount]:
    with mounted_idc(line, bench) as mount:
        yield mount


@pytest.fixture
def mount(_mount: Mount) -> Mount:
    """A mount that others had before, with nothing of the series in its cache."""
    program("evict", series_in(_mount))
    cache = status_of(_mount)["cache"]
    assert (cache["series"], cache["parts_bytes"], _mount.incoming()) == (0, 0, [])
    return _mount


def size_of(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.iterdir())


def md5_of(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


@contextmanager
def mounted_idc(
    line: Relay, bench: Bench, *others: str | Path, folder: Path | None = None
) -> Iterator[Mount]:
    index = bench.folder / "index"
    options = ("--archive", "idc", "--idc-url", line.url, "--idc-index", index, "--retries", "0")
    with mounted(NO_NBIA, *options, *others, folder=folder) as mount:
        yield mount


def series_in(mount: Mount) -> Path:
    (series,) = (mount.path / "BENCH").glob("*/*/*")
    return series


def images_of(mount: Mount) -> list[Path]:
    """Return the images of the series by name, listed."""
    return sorted(series_in(mount).iterdir())


def attribute(path: Path, name: str) -> str | None:
    return os.getxattr(path, name).decode() if name in os.listxattr(path) else None


def test_a_look_costs_a_small_part_of_the_series(line: Relay, bench: Bench) -> None:
    before = line.answered_bytes
    with mounted_idc(line, bench) as mount:
        assert run("ls", "-l", series_in(mount)).stdout.count(".dcm") == SLICES
        assert 0 < line.answered_bytes - before < 0.03 * bench.size_bytes
        assert status_of(mount)["received_today_bytes"] >= SLICES * 4096


def test_a_header_costs_a_header(line: Relay, mount: Mount) -> None:
    if shutil.which("dcmdump") is None:
        pytest.skip("dcmtk is not installed")
    images = images_of(mount)
    before, downloads = line.answered_bytes, status_of(mount)["downloads_total"]
    assert "BENCH" in run("dcmdump", "-M", "+P", "PatientID", images[7]).stdout
    assert line.answered_bytes - before < 100_000
    assert attribute(images[7], "user.tciafs.state") == "evicted"
    assert 0 < int(attribute(images[7], "user.tciafs.in_part") or 0) < 100_000
    assert 0 < status_of(mount)["cache"]["parts_bytes"] < 110_000
    assert (status_of(mount)["downloads_total"], status_of(mount)["cache"]["series"]) == (downloads, 0)


def test_headers_of_all_images_cost_headers(line: Relay, mount: Mount, bench: Bench) -> None:
    before = line.answered_bytes
    for image in images_of(mount):
        with image.open("rb", buffering=0) as file:
            assert file.read(132)[128:] == b"DICM"
    assert 0 < line.answered_bytes - before < 0.25 * bench.size_bytes
    assert attribute(series_in(mount), "user.tciafs.state") == "evicted"


def test_an_importer_that_reads_all_headers_causes_the_traffic_of_headers(
    line: Relay, mount: Mount, bench: Bench
) -> None:
    images = images_of(mount)
    before, downloads = line.answered_bytes, status_of(mount)["downloads_total"]
    uids = {str(pydicom.dcmread(image, stop_before_pixels=True).SOPInstanceUID) for image in images}
    assert len(uids) == SLICES
    # A block of 32 kB each, whatever the program asks for less, and the head of its answer.
    assert 0 < line.answered_bytes - before < SLICES * 34_000 < 0.07 * bench.size_bytes
    assert attribute(series_in(mount), "user.tciafs.state") == "evicted"
    assert status_of(mount)["downloads_total"] == downloads


def test_a_program_that_reads_all_of_an_image_gets_no_byte_twice_and_none_beyond(
    line: Relay, mount: Mount
) -> None:
    if shutil.which("dcmdump") is None:
        pytest.skip("dcmtk is not installed")
    image = images_of(mount)[7]
    before = line.answered_bytes
    # Without -M dcmdump loads what it does not print, pixels and all.
    assert "BENCH" in run("dcmdump", "+P", "PatientID", image).stdout
    size_bytes = image.stat().st_size
    assert size_bytes < line.answered_bytes - before < size_bytes + 10_000


def test_one_image_is_fetched_alone(line: Relay, mount: Mount, bench: Bench) -> None:
    image = images_of(mount)[5]
    before = line.answered_bytes
    assert md5_of(image) in bench.md5s
    size_bytes = image.stat().st_size
    assert size_bytes < line.answered_bytes - before < 1.2 * size_bytes
    assert md5_of(image) in bench.md5s
    assert line.answered_bytes - before < 1.2 * size_bytes


def test_who_reads_on_gets_the_series_as_a_whole(
    line: Relay, mount: Mount, bench: Bench, tmp_path: Path
) -> None:
    before = line.answered_bytes
    assert run("cp", "-r", series_in(mount), tmp_path / "copy").returncode == 0
    assert sorted(map(md5_of, (tmp_path / "copy").iterdir())) == bench.md5s
    until(lambda: attribute(series_in(mount), "user.tciafs.state") == "local", "the series in its place")
    # Headers of 4 kB, and no image twice: the two that were read before the series was worth it.
    assert bench.size_bytes < line.answered_bytes - before < 1.06 * bench.size_bytes
    assert attribute(series_in(mount), "user.tciafs.verified") == "crc32,count,size,md5"
    assert attribute(series_in(mount), "user.tciafs.in_part") is None
    assert status_of(mount)["cache"]["parts_bytes"] == 0


def test_what_is_open_is_read_on_whatever_becomes_of_its_series(mount: Mount, bench: Bench) -> None:
    images = images_of(mount)
    with images[0].open("rb", buffering=0) as file:
        beginning = file.read(5000)
        assert program("prefetch", series_in(mount)).returncode == 0
        assert program("evict", series_in(mount)).returncode == 0
        whole = beginning + file.read()
        while more := file.read():
            whole += more
    assert hashlib.md5(whole, usedforsecurity=False).hexdigest() in bench.md5s


def test_what_was_read_in_part_is_dropped_on_demand_and_by_a_restart(
    line: Relay, bench: Bench, tmp_path: Path
) -> None:
    with mounted_idc(line, bench, folder=tmp_path) as mount:
        images = images_of(mount)
        digests = [md5_of(images[3])]
        assert mount.incoming() != []
        assert program("evict", series_in(mount)).returncode == 0
        assert mount.incoming() == []
        digests.append(md5_of(images[3]))
        mount.kill()
    with mounted_idc(line, bench, folder=tmp_path) as mount:
        assert mount.incoming() == []
        digests.append(md5_of(images_of(mount)[3]))
    assert digests == digests[:1] * 3
    assert digests[0] in bench.md5s


def test_a_server_that_goes_away_is_no_route_and_what_is_here_is_read(
    line: Relay, mount: Mount, bench: Bench
) -> None:
    images = images_of(mount)
    assert md5_of(images[0]) in bench.md5s
    line.refuse()
    assert md5_of(images[0]) in bench.md5s
    with pytest.raises(OSError, match="No route to host"):
        images[1].read_bytes()
    line.listen()
    assert program("retry", mount.path).returncode == 0
    assert md5_of(images[1]) in bench.md5s


def test_an_image_that_changed_is_an_error_and_never_mixed(line: Relay, s3: RunningS3, bench: Bench) -> None:
    with mounted_idc(line, bench) as mount:
        image = images_of(mount)[9]
        with image.open("rb", buffering=0) as file:
            file.read(4096)
            for each in (bench.folder / BUCKET / bench.uuid).iterdir():
                s3.put(BUCKET, f"{bench.uuid}/{each.name}", each.read_bytes()[:-1] + b"?")
            try:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                with pytest.raises(OSError, match="Input/output error"):
                    os.pread(file.fileno(), 4096, 300_000)
            finally:
                for each in (bench.folder / BUCKET / bench.uuid).iterdir():
                    s3.put(BUCKET, f"{bench.uuid}/{each.name}", each.read_bytes())
        assert "something else" in (attribute(image, "user.tciafs.error") or "")


def test_a_crawler_causes_no_traffic(line: Relay, bench: Bench, tmp_path: Path) -> None:
    shutil.copy(shutil.which("head") or "", tmp_path / "tumbler")
    with mounted_idc(line, bench, "--crawlers", "tumbler") as mount:
        image = images_of(mount)[2]
        before = line.answered_bytes
        assert "Operation not permitted" in run(tmp_path / "tumbler", "-c", "4", image).stderr
        assert line.answered_bytes == before


def test_paused_and_spent_days_bring_no_part(line: Relay, bench: Bench) -> None:
    with mounted_idc(line, bench, "--daily-budget", "300K") as mount:
        images = images_of(mount)
        assert program("pause", mount.path).returncode == 0
        with pytest.raises(OSError, match="Operation not permitted"):
            images[0].read_bytes()
        assert program("resume", mount.path).returncode == 0
        with pytest.raises(OSError, match="Operation not permitted"):
            [image.read_bytes() for image in images]
        assert status_of(mount)["received_today_bytes"] < 1_000_000


def test_strict_shows_nothing_before_all_of_it_agrees(line: Relay, bench: Bench) -> None:
    with mounted_idc(line, bench, "--verify", "strict") as mount:
        with images_of(mount)[0].open("rb", buffering=0) as file:
            assert file.read(132)[128:] == b"DICM"
        until(lambda: attribute(series_in(mount), "user.tciafs.verified"), "the series in its place")
