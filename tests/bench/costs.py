"""What work costs: how long it takes, which processor time, and how much memory at most.

A command's own figures come from wait4(2), those of a mount from /proc: its daemon's and its workers'.
"""

import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.comparing import Line, in_seconds
from tests.bench.processes import cpu_s, memory_of
from tests.bench.stage import Mounted

__all__ = ["Cost", "costs", "of_commands", "of_mount", "tciafs_cpu_s"]

TIMEOUT_S = 900.0


@dataclass(slots=True)
class Cost:
    """How long it took, the processor time of all processes together, and the most memory of all together."""

    took_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0


def of_commands(*commands: Sequence[str | Path], stdout: int = subprocess.DEVNULL) -> Cost:
    """Run commands, each reading what the one before it writes, and return what they cost.

    Raises CalledProcessError where the last one fails; TimeoutExpired having killed them.
    """
    begun = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    previous: int | None = subprocess.DEVNULL
    for command in commands:
        target = stdout if command is commands[-1] else subprocess.PIPE
        process = subprocess.Popen([str(word) for word in command], stdin=previous, stdout=target)
        if running and (source := running[-1].stdout) is not None:
            source.close()  # else who writes into it does not hear that nobody reads any more
        running.append(process)
        previous = None if process.stdout is None else process.stdout.fileno()
    cost = Cost()
    for process in reversed(running):
        used = _waited(process, begun + TIMEOUT_S)
        cost.cpu_s += used[0]
        cost.peak_bytes += used[1]
    cost.took_s = time.perf_counter() - begun
    if running[-1].returncode:
        raise subprocess.CalledProcessError(running[-1].returncode, running[-1].args)
    return cost


def _waited(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[float, int]:
    """Wait for a process and return its processor time in seconds and its most memory in bytes."""
    watched = os.pidfd_open(process.pid)
    try:
        ended, _, _ = select.select([watched], [], [], max(0.0, deadline - time.perf_counter()))
    finally:
        os.close(watched)
    if not ended:
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if not ended:
        raise subprocess.TimeoutExpired(process.args, TIMEOUT_S)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10


def tciafs_cpu_s(mount: Mounted) -> float:
    """Return the processor time of a mount so far, its workers' too."""
    daemon, *workers = mount.processes()
    return sum(cpu_s(daemon, workers))


@contextmanager
def of_mount(mount: Mounted, work: Cost) -> Iterator[None]:
    """Add to `work`, which is done in the block, what the mount has for it."""
    before_s = tciafs_cpu_s(mount)
    yield
    work.cpu_s += tciafs_cpu_s(mount) - before_s
    work.peak_bytes += sum(memory_of(pid).most_bytes for pid in mount.processes())


def costs(what: str, ours: Sequence[Cost], theirs: Sequence[Cost], theirs_name: str) -> Line:
    """Return the line that says the processor time and the memory of both."""
    return Line(f"{what}: processor, memory", f"mount: {_said(ours)}", f"{theirs_name}: {_said(theirs)}")


def _said(rounds: Sequence[Cost]) -> str:
    most_bytes = max(each.peak_bytes for each in rounds)
    return f"{in_seconds([each.cpu_s for each in rounds])}, {most_bytes >> 20:,} MiB"
