"""`tciafs prefetch` and `retry`: series fetched by the daemon, turn by turn, and how far that is.

What is here is passed over, so that the same command goes on where it was stopped. Ctrl-C stops the asking:
the few series under way come to their end in the daemon, and no other begins.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from tciafs.cli.completing import MOUNT_POINT, PATH
from tciafs.cli.daemons import asked, mount_around, mounts_of_user, the_mount
from tciafs.cli.output import fail, fail_with, say
from tciafs.errors import TciafsError

if TYPE_CHECKING:
    from tciafs.control.series_values import ListedSeries, PrefetchedSeries
    from tciafs.filesystem.mountpoint import Ours

__all__ = ["prefetch", "retry"]

WINDOW = 32
"""Series asked for in a turn: those that are here are passed over so many at a time."""

UNDER_WAY = ("coming", "waiting")

SAID = {"here": "was here", "gone": "not in this mount any more"}

ENDINGS = frozenset(["NoSpace", "Refused", "Offline"])
"""Errors that the next series would meet too."""


@click.command(short_help="Fetch what is at PATH, or in a MANIFEST, now.")
@click.argument("words", type=PATH, nargs=-1, required=True, metavar="PATH|MANIFEST...")
@click.option(
    "--mount",
    "mountpoint",
    type=MOUNT_POINT,
    metavar="MOUNTPOINT",
    help="Where to fetch what manifests name; default: your only mount.",
)
def prefetch(words: tuple[str, ...], mountpoint: str | None) -> int:
    """Fetch all series at PATH in a mount, or all that the file MANIFEST names, now.

    PATH is a collection, patient, study or series; MANIFEST is a .tcia manifest, a table with a column of
    series UIDs, or an .s5cmd list. Series that are here already are passed over, so the same command goes on
    where it was stopped. Ctrl-C stops; those under way come to their end.

    \b
      tciafs prefetch /mnt/tcia/LIDC-IDRI/LIDC-IDRI-0001
      tciafs prefetch cohort.tcia
      tciafs prefetch --mount /mnt/tcia cohort.tcia
    """
    return _fetch([_wanted(word, mountpoint) for word in words])


@click.command(short_help="Fetch what failed once more, and nothing else.")
@click.argument("paths", type=PATH, nargs=-1, metavar="[PATH...]")
def retry(paths: tuple[str, ...]) -> int:
    """Fetch once more, now, the series at PATH that failed, and no others (default: in all your mounts).

    tciafs status shows them, and why they failed. Ctrl-C stops.

    \b
      tciafs retry
      tciafs retry /mnt/tcia/LIDC-IDRI
    """
    places = [mount_around(path) for path in paths] or [(mount, "/") for mount in mounts_of_user()]
    wanted = [_Wanted(mount, partial(_failed, mount, inside), again=True) for mount, inside in places]
    return _fetch(wanted, nothing="nothing has failed")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Series of a mount, as a daemon lists them when asked; `missing` says of a list what there is not."""

    mount: "Ours"
    listed: "Callable[[], list[ListedSeries]]"
    again: bool = False
    missing: "Callable[[list[ListedSeries]], list[str]]" = lambda _: []


def _wanted(word: str, mountpoint: str | None) -> _Wanted:
    """Return what a path in a mount, or a manifest, means. Raises Unusable, or Misuse for a bad manifest."""
    from tciafs.filesystem.mountpoint import ours_around

    # Nothing in a mount is looked at: its daemon may be frozen.
    if not word or ours_around(Path(word)) is not None or not Path(word).is_file():
        mount, inside = mount_around(word)
        return _Wanted(mount, partial(_at_path, mount, inside))
    from tciafs.selection.manifests import read_manifest

    uids = read_manifest(Path(word)).uids
    mount = the_mount(mountpoint, "is to fetch")
    return _Wanted(mount, partial(_named, mount, uids), missing=partial(_missing, uids))


def _at_path(mount: "Ours", inside: str) -> "list[ListedSeries]":
    from tciafs.control.client import ask_series

    return list(ask_series(mount.path, inside))


def _failed(mount: "Ours", inside: str) -> "list[ListedSeries]":
    from tciafs.control.client import ask_failed

    return list(ask_failed(mount.path, inside))


def _named(mount: "Ours", series_uids: "Sequence[str]") -> "list[ListedSeries]":
    from tciafs.control.client import ask_named

    return list(ask_named(mount.path, series_uids))


def _missing(series_uids: "Sequence[str]", listed: "list[ListedSeries]") -> list[str]:
    there = {each.path[-1] for each in listed}
    return [f"{uid}: not in the archive, or not permitted" for uid in series_uids if uid not in there]


def _fetch(wanted: "list[_Wanted]", nothing: str = "there is no series") -> int:
    """Have all of it fetched, say what came of it (`nothing` of no series), and return the exit code."""
    since = time.time()
    outcome, exit_code = _Outcome(), 0
    try:
        for each in wanted:
            try:
                if not outcome.ending:
                    _prefetch(each, since, outcome)
            except TciafsError as error:
                if len(wanted) == 1:
                    raise
                exit_code = fail_with(error)
    except KeyboardInterrupt:
        say(f"stopped: {outcome.said()}; what is under way comes to its end")
        raise
    if exit_code == 0 and outcome.is_empty:
        say(nothing)
        return 0
    return outcome.conclude() or exit_code


@dataclass(slots=True)
class _Outcome:
    """What came of the series so far; `ending` is why no more can come, if that is so."""

    fetched: int = 0
    here: int = 0
    gone: int = 0
    fetched_bytes: int = 0
    failures: list[str] = field(default_factory=list)
    ending: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there was no series at all."""
        return not (self.fetched or self.here or self.gone or self.failures or self.ending)

    def said(self) -> str:
        """Return it as half a sentence."""
        from tciafs.control.report import size_text

        parts = [
            f"{self.fetched:,} series fetched ({size_text(self.fetched_bytes)})",
            f"{self.here:,} were here",
        ]
        if self.gone:
            parts.append(f"{self.gone:,} are not in this mount any more")
        if self.failures:
            parts.append(f"{len(self.failures):,} failed")
        return ", ".join(parts)

    def conclude(self) -> int:
        """Say what came of all of it, and return the exit code."""
        for failure in self.failures:
            click.echo(failure, err=True)
        say(self.said())
        if self.ending:
            return fail(f"not all could be fetched: {self.ending}", 1)
        return 1 if self.failures else 0


def _prefetch(wanted: _Wanted, since: float, outcome: _Outcome) -> None:
    from tciafs.control.client import ask_prefetch
    from tciafs.control.report import printable
    from tciafs.control.series_values import Prefetch

    mount = wanted.mount
    listed = asked(mount, wanted.listed)
    outcome.failures += wanted.missing(listed)
    waiting = {each.path[-1]: each for each in listed}
    with _display(len(listed), sum(each.listed_bytes or 0 for each in listed)) as display:
        while waiting and not outcome.ending:
            some = tuple(each.path for each, _ in zip(waiting.values(), range(WINDOW), strict=False))
            turn = asked(mount, partial(ask_prefetch, mount.path, Prefetch(some, since, wanted.again)))
            for state in turn.series:
                if state.state in UNDER_WAY:
                    continue
                if state.error in ENDINGS:  # which has not failed, but was not begun
                    outcome.ending = printable(state.message)
                    continue
                if (series := waiting.pop(state.series_uid, None)) is not None:
                    _note(series, state, outcome)
                    display.over(series, state)
            coming = [(waiting[s.series_uid], s) for s in turn.series if s.state == "coming"]
            display.coming(coming, paused=turn.paused)


def _note(series: "ListedSeries", state: "PrefetchedSeries", outcome: _Outcome) -> None:
    from tciafs.control.report import printable

    if state.state == "failed":
        outcome.failures.append(f"{_name(series)}: {printable(state.message)}")
    elif state.state == "gone":
        outcome.gone += 1
    elif state.state == "fetched":
        outcome.fetched += 1
        outcome.fetched_bytes += state.arrived_bytes
    else:
        outcome.here += 1


def _name(series: "ListedSeries") -> str:
    from tciafs.control.report import printable

    collection, patient, _, uid = series.path
    return printable(series.folder or f"{collection}/{patient} {uid}")


class _Display(Protocol):
    """Shows how far it is: what is over, and what is coming."""

    def over(self, series: "ListedSeries", state: "PrefetchedSeries") -> None: ...

    def coming(self, series: "list[tuple[ListedSeries, PrefetchedSeries]]", *, paused: bool) -> None: ...


class _Lines:
    """A line for each series that is over: for files and pipes."""

    def over(self, series: "ListedSeries", state: "PrefetchedSeries") -> None:
        say(f"{_name(series)}: {SAID.get(state.state, state.state)}")

    def coming(self, series: "list[tuple[ListedSeries, PrefetchedSeries]]", *, paused: bool) -> None:
        pass


@contextmanager
def _display(series: int, listed_bytes: int) -> Iterator[_Display]:
    """Have bars on a terminal, else lines."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    from tciafs.cli.bars import Bars

    with Bars(console, series, listed_bytes) as bars:
        yield bars
