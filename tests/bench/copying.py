"""A folder of ten series copied over a line that is slow for each connection, beside tcia_utils."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.comparing import Comparison, Line
from tests.bench.costs import Cost, costs, of_commands, of_mount
from tests.bench.parts import TCIA_UTILS, Options, Part, peers_python
from tests.bench.stage import line_before, run, tciafs_mounted
from tests.sample.running import RunningSample, running_sample

__all__ = ["COPYING"]

SERIES = 10
SLICES = 150
PACE_BYTES_S = 20e6
AT_ONCE = 10

DOWNLOAD = """
import logging, sys, time
logging.disable(logging.CRITICAL)
from tcia_utils import nbia
url, folder, workers, *series = sys.argv[1:]
nbia.setApiUrl = lambda endpoint, api_url="": url + "/v4/"
begun = time.perf_counter()
nbia.downloadSeries(series, input_type="list", path=folder, max_workers=int(workers))
print(time.perf_counter() - begun)
"""
"""What people write; timed by itself, since to import pandas is not what is compared."""


def _copying(options: Options) -> Iterator[Line]:
    """Copy the collection out of the mount; download the same series with tcia_utils."""
    one, many = "tcia_utils, one at a time", f"tcia_utils, {AT_ONCE} at a time"
    what = f"{SERIES} cold series over {PACE_BYTES_S / 1e6:.0f} MB/s a connection"
    sequential = Comparison(f"cp -r of {what}", "mount", one, "2.5 x faster")
    parallel = Comparison(f"cp -r of {what}", "mount (3 at a time)", many)
    ours, theirs = list[Cost](), list[Cost]()
    wanted = ("--bench-slices", str(SLICES), "--bench-series", str(SERIES))
    with (
        running_sample(*wanted) as sample,
        line_before(sample.url, options.scratch / "line", "--pace", str(PACE_BYTES_S)) as url,
    ):
        _copied(url, options.scratch / "once")  # the line has what both ask for from now on
        _downloaded(sample, url, options.scratch / "once-too", AT_ONCE)
        for turn in range(options.rounds):
            place = options.scratch / str(turn)
            theirs.append(_downloaded(sample, url, place / "one", 1))
            ours.append(_copied(url, place / "ours"))
            sequential.add(ours[-1].took_s, theirs[-1].took_s)
            parallel.add(ours[-1].took_s, _downloaded(sample, url, place / "many", AT_ONCE).took_s)
            run("rm", "-r", place)
    yield from (sequential.line(), parallel.line(), costs(f"cp -r of {SERIES} series", ours, theirs, one))


def _copied(url: str, folder: Path) -> Cost:
    cost = Cost()
    with tciafs_mounted(url, folder) as mount, of_mount(mount, cost):
        copied = of_commands(("cp", "-r", mount.path / "BENCH", folder / "copy"))
        cost.took_s, cost.cpu_s, cost.peak_bytes = copied.took_s, copied.cpu_s, copied.peak_bytes
    return cost


def _downloaded(sample: RunningSample, url: str, folder: Path, at_once: int) -> Cost:
    uids = [str(row["SeriesInstanceUID"]) for row in sample.rows("v4/getSeries", Collection="BENCH")]
    folder.mkdir(parents=True)
    said = folder / "took"
    with said.open("wb") as file:
        command: Sequence[str | Path] = (
            peers_python(),
            "-c",
            DOWNLOAD,
            url,
            folder / "series",
            str(at_once),
            *uids,
        )
        cost = of_commands(command, stdout=file.fileno())
    cost.took_s = float(said.read_text().split()[-1])
    images = sum(1 for _ in (folder / "series").glob("*/*.dcm"))
    if images != SERIES * SLICES:
        sys.exit(f"tcia_utils brought {images} of {SERIES * SLICES} images")
    return cost


COPYING = Part("copying", "ten cold series copied, beside tcia_utils", (TCIA_UTILS,), _copying)
