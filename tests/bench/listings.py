"""`ls` of a folder of 26,000 patients, the first time and the second, beside a plain folder."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.comparing import Comparison, Line, in_seconds, seconds
from tests.bench.parts import Options, Part, index_is_installed
from tests.bench.stage import run, tciafs_mounted
from tests.sample.running import RunningSample, running_sample

__all__ = ["LISTING"]

PATIENTS = 26_410
COMMANDS: Sequence[tuple[str, ...]] = (("ls",), ("ls", "-l"))
CLOCK_S = 0.001
"""What is left of a first listing when the server's own time is subtracted is not believed below this."""


def _listing(options: Options) -> Iterator[Line]:
    """List the patients through the mount, each time beside a plain folder of the same names."""
    wanted, collection = ["--many-patients", str(PATIENTS)], "MANY"
    if index_is_installed():
        wanted, collection = ["--idc-index"], "NLST"
    with running_sample(*wanted) as sample:
        plain = options.scratch / "plain"
        entries = _make_plain(sample, collection, plain)
        for command in COMMANDS:
            yield from _one_command(options, sample, command, collection, plain, entries)


def _one_command(
    options: Options,
    sample: RunningSample,
    command: tuple[str, ...],
    collection: str,
    plain: Path,
    entries: int,
) -> Iterator[Line]:
    what = f"{' '.join(command)} of {collection}, {entries:,} entries"
    beside = f"plain {_kind_of_disk(plain)}"
    first = Comparison(f"{what}, first, less the server's time", "mount", beside, "at most 4 x slower")
    second = Comparison(f"{what}, second", "mount", beside, "at most 2 x slower")
    whole_s, answer_s = [], []
    url = f"{sample.url}/v4/getPatient?Collection={collection}"
    for turn in range(options.rounds):
        answer_s.append(_answer_s(url))
        with tciafs_mounted(sample.url, options.scratch / f"{len(command)}-{turn}") as mount:
            plain_s = seconds(run, *command, plain)
            whole_s.append(seconds(run, *command, mount.path / collection))
            first.add(max(CLOCK_S, whole_s[-1] - answer_s[-1]), plain_s)
            plain_s = seconds(run, *command, plain)
            second.add(seconds(run, *command, mount.path / collection), plain_s)
    yield Line(f"{what}, first, all", f"mount: {in_seconds(whole_s)}", f"curl: {in_seconds(answer_s)}")
    yield first.line()
    yield second.line()


def _answer_s(url: str) -> float:
    """Return how long the server itself takes to answer, the better of two times."""
    return min(seconds(run, "curl", "-s", "-o", "/dev/null", url) for _ in range(2))


def _make_plain(sample: RunningSample, collection: str, folder: Path) -> int:
    """Make a folder of the same names, and return how many there are."""
    patients = {str(row["PatientId"]) for row in sample.rows("v4/getPatient", Collection=collection)}
    for name in patients:
        (folder / name).mkdir(parents=True)
    (folder / "LICENSE").touch()
    return len(patients) + 1


def _kind_of_disk(folder: Path) -> str:
    """Return the name of the file system that a folder is on; stat knows ext4 as one of its family."""
    words = ("findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder))
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


LISTING = Part("listing", "ls and ls -l of NLST, beside a plain folder", ("curl", "findmnt"), _listing)
