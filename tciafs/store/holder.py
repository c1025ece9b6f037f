"""Which process on which machine: what one daemon can find out about another, and what it cannot.

Two processes see each other if they run under the same start of the same kernel and in the same namespace of
process numbers. Blocking, but quick: only /proc is read.
"""

import os
import secrets
import socket
import time
from pathlib import Path

import msgspec

__all__ = ["Holder", "this_process"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MACHINE_ID = Path("/etc/machine-id")
DEAD_STATES = ("Z", "X")
"""A process that has ended and whose parent has not asked yet; see proc_pid_stat(5)."""


class Holder(msgspec.Struct, frozen=True):
    """A process: its number and when it began (in clock ticks since the start of the machine), and where."""

    host: str
    machine_id: str
    boot_id: str
    namespace: str
    pid: int
    began: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def sees(self, other: "Holder") -> bool:
        """Return whether this process can know if the other one is alive."""
        return (self.boot_id, self.namespace) == (other.boot_id, other.namespace)

    def knows_dead(self, other: "Holder", alive_at: float) -> bool:
        """Return whether another process, last heard of at Unix time `alive_at`, is gone for certain."""
        if self.sees(other):
            return _began(other.pid) != other.began
        if (self.host, self.machine_id) == (other.host, other.machine_id) and self.boot_id != other.boot_id:
            return alive_at < _started_at()
        return False


def this_process() -> Holder:
    """Return who we are."""
    return Holder(
        host=socket.gethostname(),
        machine_id=_text(MACHINE_ID),
        boot_id=_text(BOOT_ID),
        namespace=_namespace(),
        pid=os.getpid(),
        began=_began(os.getpid()) or 0,
    )


def _text(path: Path) -> str:
    """Return what a file says; something that no other process has where there is none."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return secrets.token_hex()


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return secrets.token_hex()


def _began(pid: int) -> int | None:
    """Return when a process began, None if it is none any more."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The name may have blanks and parentheses of its own. Behind it: the state, and 19 fields on the start.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in DEAD_STATES else int(fields[19])


def _started_at() -> float:
    """Return when this machine was started, in Unix seconds of its clock."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
