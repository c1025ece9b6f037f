"""A series that is not in the cache, all of it and its first image, beside what people do without a mount."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.comparing import Comparison, Line
from tests.bench.costs import Cost, costs, of_commands, of_mount
from tests.bench.parts import Options, Part
from tests.bench.stage import cat, line_before, run, tciafs_mounted
from tests.sample.running import RunningSample, running_sample

__all__ = ["COLD", "FIRST"]

SLICES = 500
LOCAL_HEADER = b"PK\3\4"
MOST_BEFORE_SECOND = 1 << 20
LENGTHS = (50, 1000)
"""Slices of a short and of a long series, of which the first image is read."""


def _cold(options: Options) -> Iterator[Line]:
    """Read an uncached series through the mount; download and unpack the same ZIP by hand."""
    by_hand = "curl | bsdtar -x"
    named = Comparison("cold series, image by image", "mount", by_hand, "1.3 x faster")
    listed = Comparison("cold series, cat *", "mount", by_hand, "1.3 x faster")
    ours, theirs = list[Cost](), list[Cost]()
    with (
        running_sample("--bench-slices", str(SLICES)) as sample,
        line_before(sample.url, options.scratch / "line") as url,
    ):
        _unpacked(sample, url, options.scratch / "once")  # the line has it from now on
        for turn in range(options.rounds):
            place = options.scratch / str(turn)
            theirs.append(_unpacked(sample, url, place / "plain"))
            ours.append(_read(url, place / "names", by_listing=False))
            named.add(ours[-1].took_s, theirs[-1].took_s)
            listed.add(_read(url, place / "listing", by_listing=True).took_s, theirs[-1].took_s)
            run("rm", "-r", place)
    yield from (named.line(), listed.line(), costs("cold series", ours, theirs, by_hand))


def _read(url: str, folder: Path, *, by_listing: bool) -> Cost:
    """Read the series by the names that a list made earlier would have, or by those of a listing."""
    cost = Cost()
    with tciafs_mounted(url, folder) as mount:
        _warm_up(mount.path)
        series = _series_folder(mount.path)
        with of_mount(mount, cost):
            if by_listing:
                read = of_commands(("sh", "-c", 'cat "$1"/*', "sh", series))
            else:
                names = [series / f"1-{number:03d}.dcm" for number in range(1, SLICES + 1)]
                read = of_commands(("cat", *names))
            cost.took_s = read.took_s
            cost.cpu_s += read.cpu_s
            cost.peak_bytes += read.peak_bytes
    return cost


def _unpacked(sample: RunningSample, url: str, folder: Path) -> Cost:
    """Download and unpack the series by hand."""
    folder.mkdir(parents=True)
    download = ("curl", "-sN", _zip_url(sample, url))
    return of_commands(download, ("bsdtar", "-x", "-C", folder, "-f", "-"))


def _first(options: Options) -> Iterator[Line]:
    """Read the first image of an uncached series; have curl receive the bytes of the same one."""
    for slices in LENGTHS:
        compared = Comparison(
            f"first image of a cold series of {slices:,}",
            "mount",
            "curl, up to its end",
            "at most 1.2 x slower",
        )
        with (
            running_sample("--bench-slices", str(slices)) as sample,
            line_before(sample.url, options.scratch / f"line-{slices}") as url,
        ):
            name, end = f"1-{1:0{len(str(slices))}d}.dcm", _end_of_first(sample, url)
            for turn in range(options.rounds):
                with tciafs_mounted(url, options.scratch / f"{slices}-{turn}") as mount:
                    _warm_up(mount.path)
                    series = _series_folder(mount.path)
                    download = ("curl", "-sN", _zip_url(sample, url))
                    theirs = of_commands(download, ("head", "-c", str(end)))
                    compared.add(of_commands(("cat", series / name)).took_s, theirs.took_s)
        yield compared.line()


def _end_of_first(sample: RunningSample, url: str) -> int:
    """Return where the first image ends in the ZIP: the LICENSE is before it, the next header behind."""
    head = subprocess.run(
        ("sh", "-c", f"curl -sN '{_zip_url(sample, url)}' | head -c {MOST_BEFORE_SECOND}"),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    return head.index(LOCAL_HEADER, head.index(LOCAL_HEADER, 1) + 1)


def _zip_url(sample: RunningSample, url: str) -> str:
    """Return the very address that a mount asks for, so that both get the same bytes."""
    uid = sample.series_uid("BENCH")
    return f"{url}/v4/getImage?SeriesInstanceUID={uid}&NewFileNames=Yes&IncludeMD5=Yes"


def _warm_up(mountpoint: Path) -> None:
    """Read an image of another series: the worker process of a mount in use is running already."""
    cat(sorted((mountpoint / "Phantom-Mammography").glob("*/*/*/1-1.dcm"))[:1])


def _series_folder(mountpoint: Path) -> Path:
    (folder,) = (mountpoint / "BENCH").glob("*/*/*")
    return folder


COLD = Part("cold", "an uncached series, beside curl and bsdtar", ("curl", "bsdtar"), _cold)
FIRST = Part(
    "first", "the first image of an uncached series, beside curl and bsdtar", ("curl", "bsdtar"), _first
)
