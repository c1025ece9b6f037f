"""A cold walk over 20,000 folders, beside rclone mounting the same tree over HTTP."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.behaviour.retriever import expected_series
from tests.bench.comparing import Comparison, Line, seconds
from tests.bench.parts import Options, Part
from tests.bench.stage import rclone_mounted, rclone_serving, run, tciafs_mounted
from tests.sample.running import RunningSample, running_sample

__all__ = ["RCLONE"]

PATIENTS = 10_000
"""Each with one study: 20,000 folders in three levels, and the collection's own."""

WALK_TIMEOUT_S = 1800.0


def _rclone(options: Options) -> Iterator[Line]:
    """Walk both, freshly mounted; the two servers run on, as servers do."""
    plain = options.scratch / "plain"
    with running_sample("--many-patients", str(PATIENTS)) as sample:
        _make_plain(sample, plain)
        with rclone_serving(plain) as (url, _process):
            found = (0, 0)
            compared = Comparison(
                f"cold find over {2 * PATIENTS:,} folders", "mount", "rclone mount", "at least 3 x faster"
            )
            for turn in range(options.rounds):
                with tciafs_mounted(sample.url, options.scratch / f"ours{turn}") as mount:
                    ours_s = seconds(_find, mount.path, ours := options.scratch / "ours")
                with rclone_mounted(url, options.scratch / "rclone") as mountpoint:
                    theirs_s = seconds(_find, mountpoint, theirs := options.scratch / "theirs")
                compared.add(ours_s, theirs_s)
                found = (_lines(ours), _lines(theirs))
    yield compared.line()
    yield Line("folders found by it", f"mount: {found[0]:,}", f"rclone mount: {found[1]:,}")


def _find(mountpoint: Path, output: Path) -> None:
    """Find the collection, its patients and their studies, without looking into these."""
    with output.open("wb") as file:
        words = ("find", mountpoint / "MANY", "-maxdepth", "2", "-type", "d")
        run(*words, stdout=file, timeout_s=WALK_TIMEOUT_S)


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def _make_plain(sample: RunningSample, folder: Path) -> None:
    """Make the same tree of plain folders, down to the series."""
    paths = "\0".join(str(folder / series.path) for series in expected_series(sample, "MANY"))
    subprocess.run(["xargs", "-0", "mkdir", "-p"], input=paths.encode(), check=True, timeout=WALK_TIMEOUT_S)


RCLONE = Part("rclone", "a cold walk, beside rclone mount", ("rclone",), _rclone)
