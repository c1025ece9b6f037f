"""A series that is not in the cache, from the Imaging Data Commons: beside NBIA, and beside rclone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.comparing import Comparison, Line, in_seconds, seconds
from tests.bench.costs import Cost, costs, of_commands, of_mount
from tests.bench.parts import SEAWEEDFS, Options, Part
from tests.bench.stage import line_before, run, tciafs_mounted
from tests.relay import Relay
from tests.s3 import RunningS3, running_s3
from tests.sample.running import running_sample

__all__ = ["IDC"]

SLICES = 500
COLLECTION, BUCKET = "BENCH", "idc-open-data"
NO_NBIA = "http://127.0.0.1:9"
READ_HEADERS = """
import pathlib, sys, pydicom
for image in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    pydicom.dcmread(image, stop_before_pixels=True)
"""
BY_HAND = "rclone copy --transfers 16"


def _idc(options: Options) -> Iterator[Line]:
    """Read an uncached series through a mount of either archive; copy its objects by hand."""
    written = options.scratch / "idc"
    sample = ("-m", "tciafs.sample", "--bench-slices", str(SLICES), "--write-idc", written)
    run(sys.executable, *sample)
    by_hand = Comparison("cold series from IDC, cat *", "mount", BY_HAND, "1 x")
    by_nbia = Comparison("the same, by archive", "IDC", "NBIA", "not slower")
    listed, ours, theirs = list[float](), list[Cost](), list[Cost]()
    with (
        running_s3(written) as s3,
        running_sample("--bench-slices", str(SLICES)) as nbia,
        line_before(nbia.url, options.scratch / "line") as url,
    ):
        through_idc = ("--archive", "idc", "--idc-url", s3.url, "--idc-index", str(written / "index"))
        _read(url, options.scratch / "once", "--archive", "nbia")  # the line has it from now on
        for turn in range(options.rounds):
            place = options.scratch / str(turn)
            theirs.append(_copied(s3, written, place / "plain"))
            ours.append(_read(url, place / "idc", *through_idc))
            by_hand.add(ours[-1].took_s, theirs[-1].took_s)
            by_nbia.add(ours[-1].took_s, _read(url, place / "nbia", "--archive", "nbia").took_s)
            listed.append(_listed(url, place / "listed", *through_idc))
            run("rm", "-r", place)
    yield from (by_hand.line(), by_nbia.line(), costs("cold series from IDC", ours, theirs, BY_HAND))
    yield Line(f"ls -l of a cold series of {SLICES} from IDC", f"mount: {in_seconds(listed)}")
    yield from _counted(written, options.scratch / "counted")


def _read(url: str, folder: Path, *more_options: str) -> Cost:
    cost = Cost()
    with tciafs_mounted(url, folder, *more_options) as mount:
        series = _series_folder(mount.path)
        with of_mount(mount, cost):
            read = of_commands(("sh", "-c", 'cat "$1"/*', "sh", series))
            cost.took_s = read.took_s
            cost.cpu_s += read.cpu_s
            cost.peak_bytes += read.peak_bytes
    return cost


def _listed(url: str, folder: Path, *more_options: str) -> float:
    with tciafs_mounted(url, folder, *more_options) as mount:
        series = _series_folder(mount.path)
        return seconds(run, "ls", "-l", series, stdout=subprocess.DEVNULL)


def _counted(written: Path, folder: Path) -> Iterator[Line]:
    """Count what a look and some readers of headers cost, as a relay before the server sees it."""
    readers = {
        f"ls -l of {SLICES} images": ("sh", "-c", 'ls -l "$1"', "sh"),
        "dcmdump -M +P PatientID of one image": _of_one("dcmdump -M +P PatientID"),
        "dcmdump +P PatientID of one image, which loads its pixels": _of_one("dcmdump +P PatientID"),
        f"pydicom, the headers of all {SLICES} images": (sys.executable, "-c", READ_HEADERS),
    }
    series_bytes = sum(each.stat().st_size for each in _objects(written).iterdir())
    with running_s3(written) as s3, Relay(s3.url) as line:
        options = ("--archive", "idc", "--idc-url", line.url, "--idc-index", str(written / "index"))
        with tciafs_mounted(NO_NBIA, folder, *options) as mount:
            series = _series_folder(mount.path)
            for what, command in readers.items():
                before = line.answered_bytes
                run(*command, series)
                came_bytes = line.answered_bytes - before
                share = f"{came_bytes / series_bytes:.2%} of the series"
                yield Line(f"bytes of {what}", f"mount: {came_bytes:,}", share)


def _of_one(command: str) -> tuple[str, ...]:
    """Return a command that does something with an image of a folder, each with another one."""
    return "sh", "-c", f'{command} "$1"/*-{100 + len(command)}.dcm', "sh"


def _series_folder(top: Path) -> Path:
    (series,) = (top / COLLECTION).glob("*/*/*")
    return series


def _objects(written: Path) -> Path:
    """Return the objects of the longest series."""
    return max((written / BUCKET).iterdir(), key=lambda each: len(list(each.iterdir())))


def _copied(s3: RunningS3, written: Path, folder: Path) -> Cost:
    """Copy the objects of that series by hand."""
    source = f":s3,provider=Other,endpoint='{s3.url}':{BUCKET}/{_objects(written).name}"
    # Certificates that somebody has set for S3 are not for a server on loopback, and trip rclone up.
    rclone = ("env", "-u", "AWS_CA_BUNDLE", "rclone", "--config", "", "copy", "--transfers", "16")
    return of_commands((*rclone, source, folder))


IDC = Part(
    "idc",
    f"a series of {SLICES} images from the Imaging Data Commons, on a real S3 server",
    ("rclone", "dcmdump", SEAWEEDFS),
    _idc,
)
