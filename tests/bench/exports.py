"""A collection into a compressed archive: `tciafs export`, and by hand a mount, tar and xz.

Both begin with an empty cache, and both compress with the same program; the content is compared once. How
much disk an export needs besides is the most that the cache held while it ran, as its limit allowed.
"""

import hashlib
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.comparing import Comparison, Line, seconds
from tests.bench.parts import Options, Part
from tests.bench.stage import run, tciafs_mounted
from tests.mounting import PROGRAM
from tests.sample.running import RunningSample, running_sample

__all__ = ["EXPORT"]

SLICES, SERIES = 8, 4
COLLECTION = "BENCH"


def _export(options: Options) -> Iterator[Line]:
    """Write a collection as tar.xz in both ways, with room for no more than two and a half series."""
    compared = Comparison(f"{SERIES} series of {SLICES} CT slices into a tar.xz", "export", "mount, tar | xz")
    with running_sample("--bench-slices", str(SLICES), "--bench-series", str(SERIES)) as sample:
        rows = sample.rows("v4/getSeries", Collection=COLLECTION)
        room = max(int(row["FileSize"]) for row in rows) * 5 // 2
        for turn in range(options.rounds):
            place = options.scratch / str(turn)
            place.mkdir()
            ours_s = _through(_exported, sample, place / "ours", room)
            compared.add(ours_s, _through(_by_hand, sample, place / "theirs", room))
            ours, theirs = place / "ours" / f"{COLLECTION}.tar.xz", place / "theirs" / "by-hand.tar.xz"
            if turn == 0:
                same = "yes" if _content(ours) == _content(theirs) else "NO"
                yield Line("the same images in both archives", same)
            run("rm", "-r", place)
    yield compared.line()


def _through(write: Callable[[Path, Path], None], sample: RunningSample, folder: Path, room: int) -> float:
    with tciafs_mounted(sample.url, folder, "--cache-size", str(room)) as mount:
        return seconds(write, mount.path, folder)


def _exported(mountpoint: Path, folder: Path) -> None:
    words = ("export", "--to", folder, "--archive", "tar.xz", mountpoint / COLLECTION)
    run(*PROGRAM, *words, stdout=subprocess.DEVNULL)


def _by_hand(mountpoint: Path, folder: Path) -> None:
    command = f"tar -C '{mountpoint}' -cf - {COLLECTION} | xz -T0 > '{folder / 'by-hand.tar.xz'}'"
    run("sh", "-c", command)


def _content(archive: Path) -> dict[str, str]:
    """Return the images in an archive, and a hash of each."""
    with tarfile.open(archive) as tar:
        images = [member for member in tar if member.name.endswith(".dcm")]
        return {member.name: _digest(tar, member) for member in images}


def _digest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    assert file is not None
    return hashlib.sha256(file.read()).hexdigest()


EXPORT = Part("export", "a collection into a tar.xz, beside a mount with tar and xz", ("xz",), _export)
