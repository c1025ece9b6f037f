"""Bytes of a series of 500 CT slices: fetched through the mount, and read from it again."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.comparing import Comparison, Line, seconds
from tests.bench.parts import Options, Part
from tests.bench.stage import bindfs_mounted, cat, drop_pages, run, tciafs_mounted
from tests.sample.running import RunningSample, running_sample

__all__ = ["COLD", "WARM"]

SLICES = 500


def _cold(options: Options) -> Iterator[Line]:
    """Read an uncached series through the mount; download and unpack the same ZIP by hand."""
    whole = Comparison("cold series, image by image", "mount", "curl | bsdtar -x")
    listed = Comparison("cold series, cat *", "mount", "curl | bsdtar -x")
    first = Comparison("first image of a cold series", "mount", "the whole download")
    with running_sample("--bench-slices", str(SLICES)) as sample:
        for turn in range(options.rounds):
            place = options.scratch / str(turn)
            by_hand_s = seconds(_unpack, sample, place / "plain")
            first_s, rest_s = _by_name(sample, place / "names")
            whole.add(first_s + rest_s, by_hand_s)
            listed.add(_by_listing(sample, place / "listing"), by_hand_s)
            first.add(first_s, by_hand_s)
            run("rm", "-r", place)
    yield from (each.line() for each in (whole, listed, first))


def _warm(options: Options) -> Iterator[Line]:
    """Read a cached series through the mount, from a plain folder, and through bindfs."""
    with running_sample("--bench-slices", str(SLICES)) as sample:
        _unpack(sample, options.scratch / "plain")
        with (
            tciafs_mounted(sample.url, options.scratch / "warm") as mount,
            bindfs_mounted(options.scratch / "plain", options.scratch / "bindfs") as bound,
        ):
            images = sorted(_series_folder(mount.path).iterdir())
            plain = sorted((options.scratch / "plain").glob("*.dcm"))
            cat(images)
            for how in ("pages cached", "pages dropped"):
                for name, files in (
                    ("the plain folder", plain),
                    ("bindfs", [bound / file.name for file in plain]),
                ):
                    compared = Comparison(f"warm series, {how}", "mount", name)
                    for _turn in range(options.rounds):
                        _read_both(compared, images, files, drops=how == "pages dropped")
                    yield compared.line()


def _read_both(compared: Comparison, images: list[Path], files: list[Path], *, drops: bool) -> None:
    cat(files)
    if drops:
        drop_pages(images)
        # Of the plain folder the pages stay: it is the disk's speed else, and that is not the question.
        drop_pages(files if compared.theirs_name == "bindfs" else [])
    compared.add(seconds(cat, images), seconds(cat, files))


def _by_name(sample: RunningSample, folder: Path) -> tuple[float, float]:
    """Return how long the first image takes by its name, and how long all the others do."""
    with tciafs_mounted(sample.url, folder) as mount:
        _warm_up(mount.path)
        series = _series_folder(mount.path)
        # By the names that a list made earlier would have, without listing the series.
        images = [series / f"1-{number:03d}.dcm" for number in range(1, SLICES + 1)]
        return seconds(cat, images[:1]), seconds(cat, images[1:])


def _by_listing(sample: RunningSample, folder: Path) -> float:
    with tciafs_mounted(sample.url, folder) as mount:
        _warm_up(mount.path)
        series = _series_folder(mount.path)
        return seconds(lambda: cat(sorted(series.iterdir())))


def _unpack(sample: RunningSample, folder: Path) -> None:
    """Download and unpack the series by hand."""
    folder.mkdir(parents=True)
    url = f"{sample.url}/v4/getImage?SeriesInstanceUID={sample.series_uid('BENCH')}&NewFileNames=Yes"
    with subprocess.Popen(["curl", "-sN", url], stdout=subprocess.PIPE) as download:
        assert download.stdout is not None
        run("bsdtar", "-x", "-C", folder, "-f", "-", stdin=download.stdout.fileno())


def _warm_up(mountpoint: Path) -> None:
    """Read an image of another series: the worker process of a mount in use is running already."""
    cat(sorted((mountpoint / "Phantom-Mammography").glob("*/*/*/1-1.dcm"))[:1])


def _series_folder(mountpoint: Path) -> Path:
    (folder,) = (mountpoint / "BENCH").glob("*/*/*")
    return folder


COLD = Part("cold", "an uncached series, beside curl and bsdtar", ("curl", "bsdtar"), _cold)
WARM = Part("warm", "a cached series, beside a plain folder and bindfs", ("curl", "bsdtar", "bindfs"), _warm)
