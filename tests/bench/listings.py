"""`ls` of a folder of 26,000 patients, the first time and the second, beside a plain folder.

The kernel knows nothing of what a mount shows for the first time. So the first `ls` has two plain folders
beside it: one of which the kernel knows nothing either, and one that was listed before.
"""

import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.comparing import Comparison, Line, in_seconds, seconds
from tests.bench.parts import Options, Part, index_is_installed
from tests.bench.stage import ext4_made, ext4_mounted, run, tciafs_mounted
from tests.sample.running import RunningSample, running_sample

__all__ = ["LISTING"]

PATIENTS = 26_410
COMMANDS: Sequence[tuple[str, ...]] = (("ls",), ("ls", "-l"))
PLAIN = "plain"
IMAGE_BYTES = 512 << 20
CLOCK_S = 0.001
"""What is left of a first listing when the server's own time is subtracted is not believed below this."""


@dataclass(frozen=True, slots=True)
class _Beside:
    """A plain folder with as many entries, and an ext4 in a file with the same (None: it cannot be had)."""

    entries: int
    plain: Path
    image: Path | None


def _listing(options: Options) -> Iterator[Line]:
    """List the patients through the mount, each time beside a plain folder of the same names."""
    wanted, collection = ["--many-patients", str(PATIENTS)], "MANY"
    if index_is_installed():
        wanted, collection = ["--idc-index"], "NLST"
    with running_sample(*wanted) as sample:
        patients = {str(row["PatientId"]) for row in sample.rows("v4/getPatient", Collection=collection)}
        beside = _make_plain(patients, options.scratch)
        if beside.image is None:
            yield Line(
                "the first ls beside an ext4 just mounted", "skipped: that takes root and loop devices"
            )
        for command in COMMANDS:
            yield from _one_command(options, sample, command, collection, beside)


def _one_command(
    options: Options, sample: RunningSample, command: tuple[str, ...], collection: str, beside: _Beside
) -> Iterator[Line]:
    what = f"{' '.join(command)} of {collection}, {beside.entries:,} entries"
    first, plain = f"{what}, first, less the server's time", f"plain {_kind_of_disk(beside.plain)}"
    fresh = Comparison(first, "mount", "ext4 just mounted", "at most 4 x slower")
    warm = Comparison(first, "mount", f"{plain}, listed before", "at most 4 x slower")
    second = Comparison(f"{what}, second", "mount", plain, "at most 2 x slower")
    whole_s, answer_s = [], []
    url = f"{sample.url}/v4/getPatient?Collection={collection}"
    for turn in range(options.rounds):
        answer_s.append(_answer_s(url))
        with tciafs_mounted(sample.url, options.scratch / f"{len(command)}-{turn}") as mount:
            plain_s = seconds(run, *command, beside.plain)
            whole_s.append(seconds(run, *command, mount.path / collection))
            first_s = max(CLOCK_S, whole_s[-1] - answer_s[-1])
            warm.add(first_s, plain_s)
            if beside.image is not None:
                fresh.add(first_s, _fresh_s(command, beside.image))
            plain_s = seconds(run, *command, beside.plain)
            second.add(seconds(run, *command, mount.path / collection), plain_s)
    yield Line(f"{what}, first, all", f"mount: {in_seconds(whole_s)}", f"curl: {in_seconds(answer_s)}")
    yield from (compared.line() for compared in (fresh, warm, second) if compared.ours_s)


def _fresh_s(command: tuple[str, ...], image: Path) -> float:
    """Return how long a command takes on a file system that was mounted a moment ago, as ours was."""
    with ext4_mounted(image, image.with_name("fresh")) as folder:
        return seconds(run, *command, folder / PLAIN)


def _answer_s(url: str) -> float:
    """Return how long the server itself takes to answer, the better of two times."""
    return min(seconds(run, "curl", "-s", "-o", "/dev/null", url) for _ in range(2))


def _make_plain(patients: Collection[str], scratch: Path) -> _Beside:
    """Make a folder of the same names, and the same again in a file system of its own."""
    image = scratch / "ext4"
    can_mount = ext4_made(image, IMAGE_BYTES, 2 * len(patients))
    _fill(scratch / PLAIN, patients)
    if can_mount:
        with ext4_mounted(image, scratch / "fresh") as folder:
            _fill(folder / PLAIN, patients)
    return _Beside(len(patients) + 1, scratch / PLAIN, image if can_mount else None)


def _fill(folder: Path, names: Collection[str]) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
    (folder / "LICENSE").touch()


def _kind_of_disk(folder: Path) -> str:
    """Return the name of the file system that a folder is on; stat knows ext4 as one of its family."""
    words = ("findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder))
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


LISTING = Part("listing", "ls and ls -l of NLST, beside a plain folder", ("curl", "findmnt"), _listing)
