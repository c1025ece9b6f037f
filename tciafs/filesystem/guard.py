"""Who may cause a download: tells looks from walks, one row a process, and knows crawlers by name.

A process that has listed several series in a row whose names are not known, and touched no image in
between, is walking (find, glob): it gets provisional names and causes no download. Any touch of an image
makes it a looker again. A crawler (updatedb, a thumbnailer) always walks, and may read what is here and
nothing else. What is refused is counted by program. Defined here and only here: these rules. Used from
the daemon's one thread; reads /proc, never waits.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from tciafs.errors import Refused
from tciafs.model import Series

__all__ = ["Guard", "ListingMode", "Refusals"]

V = TypeVar("V")

ListingMode = Literal["auto", "names", "exact"]

LOOKS_BEFORE_WALK = 3
"""So many unknown series in a row are fetched for one process before it counts as walking."""

REMEMBERED_PROCESSES = 4096
REMEMBERED_PROGRAMS = 100
REMEMBERED_SERIES = 1000

IDENTITY_LASTS_S = 1.0
"""To ask /proc who a process is takes 30 microseconds, half as long as all the rest of an open."""

_PROC = Path("/proc")


def process_identity(pid: int) -> str:
    """Return what names a process for good: its thread group and when it started.

    The kernel hands out the id of the thread (fuse_in_header.pid), and ids are used again. A process
    that /proc does not show, being in another namespace or gone, is known by its id alone.
    """
    try:
        status = (_PROC / str(pid) / "status").read_text(errors="replace")
        group = next(line.split()[1] for line in status.splitlines() if line.startswith("Tgid:"))
        # proc(5): the name in parentheses may hold anything, so count fields from its end.
        fields = (_PROC / group / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, StopIteration):
        return str(pid)
    start_time = fields[19]
    return f"{group}@{start_time}"


def program_names(pid: int) -> tuple[str, ...]:
    """Return what a process is called: its comm, of at most 15 characters, and its program's file name.

    Empty if /proc does not show it; only the first where the program is another user's.
    """
    names = []
    try:
        names.append((_PROC / str(pid) / "comm").read_text(errors="replace").rstrip("\n"))
        names.append((_PROC / str(pid) / "exe").readlink().name)
    except OSError:
        pass
    return tuple(names)


@dataclass(slots=True)
class Refusals:
    """What was refused to a program: how often, when last (Unix seconds), to which process, and why."""

    program: str
    count: int = 0
    at: float = 0.0
    pid: int = 0
    reason: str = ""


class Admits(Protocol):
    """Whoever counts what a process may cause; see `budgets.Budgets`."""

    def admit(self, process: str, series: Series) -> None:
        """Return if a process may cause the download of a series. Raises Refused."""
        ...


class Guard:
    """Counts, for each process, the unknown series it listed since it last touched an image.

    `crawlers` are patterns of program names, as in a shell. `budgets` None is no limit. `paused` says with
    what all are refused for now, None: with nothing. `refused` counts what was, since the start.
    """

    def __init__(
        self,
        mode: ListingMode = "auto",
        crawlers: Sequence[str] = (),
        budgets: Admits | None = None,
        *,
        paused: Callable[[], Refused | None] = lambda: None,
        names: Callable[[int], tuple[str, ...]] = program_names,
        identify: Callable[[int], str] = process_identity,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mode = mode
        self._crawlers = crawlers
        self._budgets = budgets
        self._paused = paused
        self.refused = 0
        self._refusals: OrderedDict[str, Refusals] = OrderedDict()
        self._refused: OrderedDict[str, Refused] = OrderedDict()
        self._names = names
        self._identify = identify
        self._now = now
        self._identities: dict[int, str] = {}
        self._identities_until = now()
        self._looks: OrderedDict[str, int] = OrderedDict()

    def admit(self, pid: int, series: Series) -> None:
        """Return if a process may cause the download of a series. Raises Refused."""
        try:
            if (name := self._crawler(pid)) is not None:
                raise Refused(f"{name} is not allowed to cause downloads (see --crawlers)")
            if (pause := self._paused()) is not None:
                raise pause.with_traceback(None)
            if self._budgets is not None:
                self._budgets.admit(self._process(pid), series)
        except Refused as refused:
            self._note(pid, series, refused)
            raise
        self._refused.pop(series.series_uid, None)

    def admits_ahead(self, pid: int, series: Series) -> bool:
        """Return whether a series may be fetched ahead of a process, which it is then counted for."""
        try:
            if self.is_crawler(pid):
                return False
            if self._budgets is not None:
                self._budgets.admit(self._process(pid), series)
        except Refused:
            return False  # nobody has asked for it, so nobody is told
        return True

    def is_crawler(self, pid: int) -> bool:
        """Return whether a process is one of those that never cause a download."""
        return self._crawler(pid) is not None

    @property
    def refusals(self) -> Sequence[Refusals]:
        """What was refused, by program, the latest last."""
        return tuple(self._refusals.values())

    def why_refused(self, series: Series) -> Refused | None:
        """Return why a series was last refused, None if it was admitted since or never asked for."""
        return self._refused.get(series.series_uid)

    def _note(self, pid: int, series: Series, refused: Refused) -> None:
        self.refused += 1
        program = next(iter(self._names(pid)), "a program that is gone")
        noted = self._refusals.pop(program, None) or Refusals(program)
        noted.count, noted.at, noted.pid, noted.reason = noted.count + 1, time.time(), pid, str(refused)
        _add(self._refusals, program, noted, REMEMBERED_PROGRAMS)
        _add(self._refused, series.series_uid, refused, REMEMBERED_SERIES)

    def _crawler(self, pid: int) -> str | None:
        for name in self._names(pid):
            if any(fnmatchcase(name, pattern) for pattern in self._crawlers):
                return name
        return None

    def lists_unknown_series(self, pid: int) -> bool:
        """Count a listing of a series whose names are not known; return True if it is part of a walk."""
        if self._crawler(pid) is not None:
            return True
        if self._mode != "auto":
            return self._mode == "names"
        process = self._process(pid)
        looks = self._looks.pop(process, 0)
        self._looks[process] = looks + 1
        if len(self._looks) > REMEMBERED_PROCESSES:
            self._looks.popitem(last=False)
        return looks >= LOOKS_BEFORE_WALK

    def touches_image(self, pid: int) -> None:
        """Note that a process looked up or opened an image: it looks, it does not walk."""
        if self._looks:
            self._looks.pop(self._process(pid), None)

    def _process(self, pid: int) -> str:
        now = self._now()
        if now >= self._identities_until:
            self._identities.clear()
            self._identities_until = now + IDENTITY_LASTS_S
        if pid not in self._identities:
            self._identities[pid] = self._identify(pid)
        return self._identities[pid]


def _add(table: "OrderedDict[str, V]", key: str, value: V, most: int) -> None:
    """Put a value at the end of a table that forgets its oldest."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
