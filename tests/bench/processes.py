"""What processes have used so far: processor time and memory, as Linux counts them; see proc(5)."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "cpu_s", "memory_of"]

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process has in memory now, and had at most, in bytes."""

    now_bytes: int
    most_bytes: int


def memory_of(pid: int) -> Memory:
    """Return the memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s*(\d+) kB$", status, re.MULTILINE))
    return Memory(int(found["VmRSS"]) << 10, int(found["VmHWM"]) << 10)


def cpu_s(daemon: int, others: Sequence[int] = ()) -> tuple[float, float]:
    """Return the processor time of a daemon, and that of its children: the living `others` and the dead."""
    own, dead = _times_s(daemon)
    for pid in others:
        with suppress(OSError):  # it has ended since, and is among the dead the next time
            dead += sum(_times_s(pid))
    return own, dead


def _times_s(pid: int) -> tuple[float, float]:
    """Return the time of a process, and that of its children whose end it has seen."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(text) / TICKS_A_SECOND for text in fields[11:15])
    return user + system, children_user + children_system
