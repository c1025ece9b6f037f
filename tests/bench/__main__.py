"""`python -m tests.bench`: the speed of a mount beside what people use without one.

A series of 500 CT slices of 512x512 and a collection of 26,000 patients come from the sample archive on
loopback. Nothing here is asserted: figures go to the reader, with ratios above 1 where tciafs is faster.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.comparing import Comparison, seconds
from tests.bench.stage import bindfs_mounted, cat, drop_pages, run, tciafs_mounted
from tests.sample.running import RunningSample, running_sample

SLICES = 500
PATIENTS = 26_000
ROUNDS = 5
PROGRAMS = ("curl", "bsdtar", "bindfs")


def cold(sample: RunningSample, scratch: Path) -> list[Comparison]:
    """Read an uncached series through the mount; download and unpack the same ZIP by hand."""
    series_uid = sample.series_uid("BENCH")
    url = f"{sample.url}/v4/getImage?SeriesInstanceUID={series_uid}&NewFileNames=Yes"
    whole = Comparison("cold series, image by image", "mount", "curl | bsdtar -x")
    listed = Comparison("cold series, cat *", "mount", "curl | bsdtar -x")
    first = Comparison("first image of a cold series", "mount", "whole download")
    for turn in range(ROUNDS):
        plain = scratch / "plain"
        shutil.rmtree(plain, ignore_errors=True)
        plain.mkdir()
        by_hand_s = seconds(_unpack, url, plain)
        with tciafs_mounted(sample.url, scratch / f"names{turn}") as mountpoint:
            _warm_up(mountpoint)
            images = _expected_images(mountpoint)
            first_s = seconds(cat, images[:1])
            rest_s = seconds(cat, images[1:])
        with tciafs_mounted(sample.url, scratch / f"glob{turn}") as mountpoint:
            _warm_up(mountpoint)
            folder = _series_folder(mountpoint)
            listed_s = seconds(_cat_folder, folder)
        whole.add(first_s + rest_s, by_hand_s)
        listed.add(listed_s, by_hand_s)
        first.add(first_s, by_hand_s)
        shutil.rmtree(scratch / f"names{turn}")
        shutil.rmtree(scratch / f"glob{turn}")
    return [whole, listed, first]


def warm(sample: RunningSample, scratch: Path) -> list[Comparison]:
    """Read a cached series through the mount, from a plain folder, and through bindfs."""
    plain = sorted((scratch / "plain").glob("*.dcm"))
    comparisons = {
        (name, how): Comparison(f"warm series, {how}", "mount", name)
        for how in ("pages cached", "pages dropped")
        for name in ("plain folder", "bindfs")
    }
    with (
        tciafs_mounted(sample.url, scratch / "warm") as mountpoint,
        bindfs_mounted(scratch / "plain", scratch / "bindfs") as bound,
    ):
        images = sorted(_series_folder(mountpoint).iterdir())
        places = {"plain folder": plain, "bindfs": [bound / file.name for file in plain]}
        cat(images)
        for _turn in range(ROUNDS):
            for how in ("pages cached", "pages dropped"):
                for name, files in places.items():
                    cat(files)
                    if how == "pages dropped":
                        drop_pages(images)
                        drop_pages(files if name == "bindfs" else [])
                    ours_s = seconds(cat, images)
                    theirs_s = seconds(cat, files)
                    comparisons[name, how].add(ours_s, theirs_s)
    return list(comparisons.values())


def listing(sample: RunningSample, scratch: Path) -> list[Comparison]:
    """List 26,000 patients through the mount and in a plain folder of the same names."""
    again = Comparison(f"ls -lU of {PATIENTS:,} entries", "mount", "plain folder")
    with tciafs_mounted(sample.url, scratch / "many") as mountpoint:
        names = [entry.name for entry in (mountpoint / "MANY").iterdir()]
        plain = scratch / "names"
        for name in names:
            (plain / name).mkdir(parents=True)
        for _turn in range(ROUNDS):
            ours_s = seconds(run, "ls", "-lU", mountpoint / "MANY")
            theirs_s = seconds(run, "ls", "-lU", plain)
            again.add(ours_s, theirs_s)
    return [again]


def _unpack(url: str, folder: Path) -> None:
    with subprocess.Popen(["curl", "-sN", url], stdout=subprocess.PIPE) as download:
        assert download.stdout is not None
        run("bsdtar", "-x", "-C", folder, "-f", "-", stdin=download.stdout.fileno())


def _warm_up(mountpoint: Path) -> None:
    """Read an image of another series: the worker process of a mount in use is running already."""
    cat(sorted((mountpoint / "Phantom-Mammography").glob("*/*/*/1-1.dcm"))[:1])


def _cat_folder(folder: Path) -> None:
    cat(sorted(folder.iterdir()))


def _series_folder(mountpoint: Path) -> Path:
    (folder,) = (mountpoint / "BENCH").glob("*/*/*")
    return folder


def _expected_images(mountpoint: Path) -> list[Path]:
    """Return the images by the names that a list made earlier would have, without listing the series."""
    folder = _series_folder(mountpoint)
    return [folder / f"1-{number:03d}.dcm" for number in range(1, SLICES + 1)]


def main() -> None:
    """Run all comparisons and print them."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        sys.exit(f"missing for the comparison: {', '.join(missing)}; make bench installs them")
    table = Table(
        "what", "tciafs", "beside", "times faster", title=f"median of {ROUNDS} rounds (least to most)"
    )
    with (
        tempfile.TemporaryDirectory(prefix="tciafs-bench-") as folder,
        running_sample("--bench-slices", str(SLICES), "--many-patients", str(PATIENTS)) as sample,
    ):
        for part in (cold, warm, listing):
            for comparison in part(sample, Path(folder)):
                table.add_row(*comparison.row())
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
