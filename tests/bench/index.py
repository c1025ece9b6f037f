"""The whole index of the Imaging Data Commons as folders, beside the same archive on an NBIA server.

The StudyIDs, which no index has, are learnt before, as `auto` learns them: from what NBIA lists. What both
walks find is compared.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tciafs.archives.idc.index import installed_index
from tests.bench.comparing import Comparison, Line, seconds
from tests.bench.parts import INDEX, Options, Part
from tests.bench.processes import memory_of
from tests.bench.stage import run, tciafs_mounted
from tests.relay import Relay
from tests.sample.running import running_sample

__all__ = ["WHOLE_INDEX"]

WALK_TIMEOUT_S = 3600.0
LEVELS = 3
NOWHERE = "http://127.0.0.1:9"
MIB = 1 << 20


def _whole_index(options: Options) -> Iterator[Line]:
    """Walk over all collections, patients and studies by either archive, with no listing remembered."""
    walks = Comparison(f"cold find -maxdepth {LEVELS} of the whole index", "IDC", "NBIA", "not slower")
    most_bytes = dict[str, int]()
    with running_sample("--idc-index") as nbia, Relay(NOWHERE) as buckets:
        common = ("--idc-url", buckets.url, "--idc-index", str(installed_index()), "--archive")
        learnt = options.scratch / "learnt"
        with tciafs_mounted(nbia.url, learnt, *common, "idc") as mount:
            yield Line("mount, and make the table of the index", f"IDC: {mount.started_s:.1f} s")
        with tciafs_mounted(nbia.url, learnt, *common, "auto") as mount:
            yield Line("learn all StudyIDs from NBIA", f"auto: {seconds(_find, mount.path):.1f} s")
        buckets.heads.clear()
        for _ in range(options.rounds):
            found = dict[str, list[bytes]]()
            for archive, took_s in (("idc", walks.ours_s), ("nbia", walks.theirs_s)):
                folder = _without_listings(learnt, options.scratch / archive)
                with tciafs_mounted(nbia.url, folder, *common, archive) as mount:
                    took_s.append(seconds(_find, mount.path))
                    found[archive] = _found(mount.path)
                    daemon, *_ = mount.processes()
                    most_bytes[archive] = max(most_bytes.get(archive, 0), memory_of(daemon).most_bytes)
            yield _compared(found["idc"], found["nbia"])
        yield Line("requests for objects meanwhile", f"IDC: {len(buckets.heads):,}", "", "(goal: none)")
    yield walks.line()
    ours, theirs = (f"{name.upper()}: {most / MIB:,.0f} MiB" for name, most in most_bytes.items())
    yield Line("memory of the daemon, at most", ours, theirs, "(goal: 400 MB)")


def _without_listings(learnt: Path, folder: Path) -> Path:
    """Return a folder to mount below where nothing is remembered but what the IDC's headers say."""
    run("rm", "-rf", folder)
    (folder / "cache").mkdir(parents=True)
    run("cp", "-r", learnt / "cache/idc", folder / "cache")
    return folder


def _find(mountpoint: Path) -> None:
    """Find all folders, the output into a file beside the mount point."""
    what = ("-maxdepth", str(LEVELS), "-type", "d", "-printf", r"%P\n")
    with _output(mountpoint).open("wb") as file:
        run("find", mountpoint, *what, stdout=file, timeout_s=WALK_TIMEOUT_S)


def _found(mountpoint: Path) -> list[bytes]:
    """Return the folders that were found."""
    return _output(mountpoint).read_bytes().splitlines()


def _output(mountpoint: Path) -> Path:
    return mountpoint.with_name("found")


def _compared(ours: Sequence[bytes], theirs: Sequence[bytes]) -> Line:
    """Return how many folders there are, and how many only one of both has, in collections of the index."""
    collections = {path.partition(b"/")[0] for path in ours}
    both = [path for path in theirs if path.partition(b"/")[0] in collections]
    different = len(set(ours) ^ set(both))
    verdict = f"{different:,} not in both" if different else "the same"
    return Line("folders found", f"IDC: {len(ours):,}", f"NBIA, in its collections: {len(both):,}", verdict)


WHOLE_INDEX = Part("index", "find over the whole index of the Imaging Data Commons", (INDEX,), _whole_index)
