"""What ordinary programs see of a mount where something goes wrong, and the table that it is put down in.

`python -m tests.filesystem.seen RESULTS` prints that table out of what pytest wrote with the options
`--junitxml=RESULTS -o junit_family=xunit1`.
"""

import errno
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.mounting import Mount

__all__ = ["BRIEF", "FORGETS", "PROGRAMS", "Record", "Seen", "note", "program", "warm_up"]

BRIEF = ("--connect-timeout", "1s", "--stall-timeout", "2s", "--listing-timeout", "1s")
"""Options of a mount that does not wait for long."""

FORGETS = (sys.executable, "-m", "tests.filesystem.altered_mount", "forgets")
PROMPTLY_S = 20.0
"""A bound, generous for a loaded machine, on what has deadlines of one or two seconds."""

PROGRAMS = ("ls", "cat", "cp")
COLUMNS = ("fault", "how injected", "where", "what programs saw", "what stayed on disk")
Record = Callable[[str, object], None]
"""pytest's record_property."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a program came to: the errno it complained of (0: none), and after how many seconds."""

    errno: int
    took_s: float
    output: bytes = b""

    def __str__(self) -> str:
        name = errno.errorcode[self.errno] if self.errno else "ok"
        return f"{name} {self.took_s:.1f} s"


def program(name: str, folder: Path, image: str, copies: Path) -> Seen:
    """Let a program at a folder: `ls` lists it, `cp` copies it, `cat` reads one image."""
    arguments: dict[str, list[str | Path]] = {
        "ls": ["-U", folder],
        "cat": [folder / image],
        "cp": ["-r", "--no-preserve=mode", folder, copies / name],
    }
    begun = time.monotonic()
    words = [name, *arguments[name]]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(words, capture_output=True, timeout=PROMPTLY_S, check=False, env=environment)
    took_s = time.monotonic() - begun
    if done.returncode == 0:
        return Seen(0, took_s, done.stdout)
    text = done.stderr.decode(errors="replace").strip().rpartition(": ")[2]
    return Seen(next(number for number in errno.errorcode if os.strerror(number) == text), took_s)


def warm_up(mount: Mount) -> None:
    """Have a series fetched, so that no later wait is that for the start of a worker."""
    next((mount.path / "Phantom-Mammography").rglob("1-1.dcm")).read_bytes()


def note(record: Record, where: str, what: str, how: str, seen: Mapping[str, Seen], stays: str) -> None:
    """Put down a row of the table."""
    programs = ", ".join(f"{name}: {came}" for name, came in seen.items())
    record("fault", " | ".join(text.replace("|", "/") for text in (what, how, where, programs, stays)))


def main() -> None:
    """Print the rows that the results have."""
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for each in ET.parse(sys.argv[1]).iter("property"):
        if each.get("name") == "fault":
            print(f"| {each.get('value')} |")


if __name__ == "__main__":
    main()
