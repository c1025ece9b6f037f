"""A walk over all folders of the whole archive: what is found, what it costs, and again without the server.

Run once, not in rounds: it takes minutes. The server's own listings say how many folders there are.
"""

import hashlib
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.comparing import Line, ratio
from tests.bench.parts import INDEX, Options, Part
from tests.bench.processes import Memory, cpu_s, memory_of
from tests.bench.requests import by_endpoint
from tests.bench.stage import FAILURES, Mounted, run, tciafs_mounted
from tests.sample.running import RunningSample, running_sample

__all__ = ["WALK"]

WALK_TIMEOUT_S = 3600.0
LEVELS = 4
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Which collections are walked (None: all, from the root), and how many folders they have."""

    names: Sequence[str] | None
    collections: int
    folders: int

    def starts(self, mountpoint: Path) -> list[str | Path]:
        """Return where `find` starts, and how deep it goes."""
        if self.names is None:
            return [mountpoint, "-maxdepth", str(LEVELS)]
        return [*(mountpoint / name for name in self.names), "-maxdepth", str(LEVELS - 1)]


@dataclass(frozen=True, slots=True)
class _Walked:
    """How long a walk took, and what it found; equal digests are equal trees."""

    took_s: float
    entries: int
    folders: int
    digest: str
    complaints: int


def _walk(options: Options) -> Iterator[Line]:
    """Walk cold, and warm while the server answers, is silent, and is gone."""
    with running_sample("--idc-index") as sample:
        chosen = _choose(sample, options.collections)
        plain_s = _by_curl(sample, chosen)
        with tciafs_mounted(sample.url, options.scratch) as mount:
            cold_start_s = mount.started_s
            sample.forget_requests()
            cold, lines = _cold(sample, mount, chosen, plain_s)
        yield from lines
        for server in ("server up", "server stopped", "server gone"):
            if server == "server stopped":
                sample.process.send_signal(signal.SIGSTOP)
            elif server == "server gone":
                sample.process.kill()
                sample.process.wait()
            yield from _warm(sample.url, options.scratch, server, chosen, cold, cold_start_s)


def _cold(
    sample: RunningSample, mount: Mounted, chosen: _Chosen, plain_s: float
) -> tuple[_Walked, list[Line]]:
    """Return the walk, and what is to be said of it."""
    daemon, *_ = mount.processes()
    used_before, before = _used(sample, mount), memory_of(daemon)
    walked = _find(mount, chosen)
    used_after, after = _used(sample, mount), memory_of(daemon)
    own_s, children_s, server_s = (b - a for a, b in zip(used_before, used_after, strict=True))
    asked = sample.tally()
    return walked, [
        _found(walked, chosen),
        Line(
            "cold find -maxdepth 4",
            f"{walked.took_s:.1f} s",
            f"curl of all listings: {plain_s:.1f} s",
            ratio(plain_s / walked.took_s, "curl of all listings"),
        ),
        Line(
            "requests of it",
            f"{asked.total():,}: {by_endpoint(asked)}",
            f"{chosen.collections:,} collections",
            f"{asked.total() / chosen.collections:,.1f} for each collection",
        ),
        Line(
            "processor time of it",
            f"daemon {own_s:.1f} s, its children {children_s:.1f} s",
            f"the sample server: {server_s:.1f} s",
        ),
        _memory(before, after, walked.entries),
    ]


def _used(sample: RunningSample, mount: Mounted) -> tuple[float, float, float]:
    """Return the processor time so far of the daemon, of its children, and of the server."""
    daemon, *others = mount.processes()
    return *cpu_s(daemon, others), cpu_s(sample.process.pid)[0]


def _found(walked: _Walked, chosen: _Chosen) -> Line:
    difference = walked.folders - chosen.folders
    verdict = "all of them" if not difference else f"{abs(difference):,} too {_few_or_many(difference)}"
    if walked.complaints:
        verdict += f", and {walked.complaints:,} complaints of find"
    return Line("folders found", f"{walked.folders:,}", f"the server lists {chosen.folders:,}", verdict)


def _few_or_many(difference: int) -> str:
    return "few" if difference < 0 else "many"


def _memory(before: Memory, after: Memory, inodes: int) -> Line:
    each = (after.now_bytes - before.now_bytes) / inodes
    return Line(
        "memory of the daemon, all inodes live",
        f"{after.now_bytes / MIB:,.0f} MiB, at most {after.most_bytes / MIB:,.0f} MiB",
        f"before: {before.now_bytes / MIB:,.0f} MiB",
        f"{each:,.0f} bytes for each of {inodes:,} inodes",
    )


def _warm(
    url: str, folder: Path, server: str, chosen: _Chosen, cold: _Walked, cold_start_s: float
) -> Iterator[Line]:
    """Mount again with the listings of the cold walk, and walk again."""
    what, beside = f"warm find -maxdepth 4, {server}", f"cold: {cold.took_s:.1f} s"
    try:
        with tciafs_mounted(url, folder) as mount:
            yield Line(
                f"tciafs MOUNTPOINT until it returns, {server}",
                f"{mount.started_s:.2f} s",
                f"with an empty cache: {cold_start_s:.2f} s",
                "(goal: under 1 s)",
            )
            walked = _find(mount, chosen)
    except FAILURES as error:
        yield Line(what, f"failed: {_short(error)}", beside)
        return
    same = "the same answer" if walked.digest == cold.digest else "ANOTHER ANSWER"
    verdict = f"{ratio(cold.took_s / walked.took_s, 'cold')}, {same}"
    yield Line(what, f"{walked.took_s:.1f} s, {walked.folders:,} folders", beside, verdict)


def _short(error: Exception) -> str:
    match error:
        case subprocess.TimeoutExpired():
            return f"not back in {error.timeout:g} s"
        case subprocess.CalledProcessError():
            return f"exit code {error.returncode}"
        case _:
            return str(error)


def _find(mount: Mounted, chosen: _Chosen) -> _Walked:
    """Walk, the output into a file. Raises TimeoutExpired; what `find` complains of is counted."""
    output, complaints = mount.path.with_name("found"), mount.path.with_name("complaints")
    start = time.perf_counter()
    with (
        output.open("wb") as file,
        complaints.open("wb") as errors,
        suppress(subprocess.CalledProcessError),  # its complaints are counted
    ):
        run("find", *chosen.starts(mount.path), stdout=file, stderr=errors, timeout_s=WALK_TIMEOUT_S)
    took_s = time.perf_counter() - start
    paths = sorted(output.read_bytes().splitlines())
    above = len(mount.path.parts)
    licences = sum(path.endswith(b"/LICENSE") and path.count(b"/") == above + 1 for path in paths)
    digest = hashlib.sha256(b"\n".join(paths)).hexdigest()
    return _Walked(took_s, len(paths), len(paths) - licences, digest, complaints.read_bytes().count(b"\n"))


# What the server itself says


def _choose(sample: RunningSample, wanted: int | tuple[str, ...] | None) -> _Chosen:
    """Return the wanted collections, of a number the smallest, and how many folders they have."""
    patients = Counter(str(row["Collection"]) for row in sample.rows("v4/getPatient"))
    studies: Counter[str] = Counter()
    series: Counter[str] = Counter()
    for row in sample.rows("v4/getPatientStudy"):
        studies[row["Collection"]] += 1
        series[row["Collection"]] += row["SeriesCount"]
    names: list[str] | None
    if isinstance(wanted, int):
        names = sorted(patients, key=lambda name: (patients[name], name))[:wanted]
    else:
        names = list(wanted) if wanted is not None else None
    walked = [row["Collection"] for row in sample.rows("v4/getCollectionValues")] if names is None else names
    below = sum(1 + patients[name] + studies[name] + series[name] for name in walked)
    return _Chosen(names, len(walked), below + (names is None))


def _by_curl(sample: RunningSample, chosen: _Chosen) -> float:
    """Return how long the server takes to list all patients, studies and series, collection by collection."""
    names = chosen.names or [row["Collection"] for row in sample.rows("v4/getCollectionValues")]
    start = time.perf_counter()
    for name in names:
        for endpoint in ("getPatient", "getPatientStudy", "getSeries"):
            url = f"{sample.url}/v4/{endpoint}"
            words = ("curl", "-s", "-G", "-o", "/dev/null", "--data-urlencode", f"Collection={name}")
            run(*words, url)
    return time.perf_counter() - start


WALK = Part("walk", "find over the whole archive, once, with and without the server", (INDEX, "curl"), _walk)
