"""`tciafs prefetch`: series fetched by the daemon, turn by turn, and how far that is.

What is here is passed over, so that the same command goes on where it was stopped. Ctrl-C stops the asking:
the few series under way come to their end in the daemon, and no other begins.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import click

from tciafs.cli.daemons import asked, mount_around
from tciafs.cli.output import fail, say

if TYPE_CHECKING:
    from tciafs.control.values import ListedSeries, PrefetchedSeries
    from tciafs.filesystem.mountpoint import Ours

__all__ = ["prefetch"]

WINDOW = 32
"""Series asked for in a turn: those that are here are passed over so many at a time."""

UNDER_WAY = ("coming", "waiting")

SAID = {"here": "was here", "gone": "not in the archive any more"}

ENDINGS = frozenset(["NoSpace", "Refused", "Offline"])
"""Errors that the next series would meet too."""


@click.command()
@click.argument("paths", type=click.UNPROCESSED, nargs=-1, required=True, metavar="PATH...")
def prefetch(paths: tuple[str, ...]) -> int:
    """Fetch all series at PATH, a collection, patient, study or series of a mount, now.

    Series that are here already are passed over. Ctrl-C stops; those under way come to their end.
    """
    since = time.time()
    places = [mount_around(path) for path in paths]
    outcome = _Outcome()
    try:
        for mount, inside in places:
            if not outcome.ending:
                _prefetch(mount, inside, since, outcome)
    except KeyboardInterrupt:
        say(f"stopped: {outcome.said()}; what is under way comes to its end")
        raise
    return outcome.conclude()


@dataclass(slots=True)
class _Outcome:
    """What came of the series so far; `ending` is why no more can come, if that is so."""

    fetched: int = 0
    here: int = 0
    gone: int = 0
    fetched_bytes: int = 0
    failures: list[str] = field(default_factory=list)
    ending: str = ""

    def said(self) -> str:
        """Return it as half a sentence."""
        from tciafs.control.report import size_text

        parts = [
            f"{self.fetched:,} series fetched ({size_text(self.fetched_bytes)})",
            f"{self.here:,} were here",
        ]
        if self.gone:
            parts.append(f"{self.gone:,} are not in the archive any more")
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


def _prefetch(mount: "Ours", inside: str, since: float, outcome: _Outcome) -> None:
    from tciafs.control.client import ask_prefetch, ask_series
    from tciafs.control.values import Prefetch

    listed = asked(mount, lambda: list(ask_series(mount.path, inside)))
    waiting = {each.path[-1]: each for each in listed}
    with _display(len(listed), sum(each.listed_bytes or 0 for each in listed)) as display:
        while waiting and not outcome.ending:
            some = tuple(each.path for each, _ in zip(waiting.values(), range(WINDOW), strict=False))
            turn = asked(mount, partial(ask_prefetch, mount.path, Prefetch(some, since)))
            for state in turn.series:
                if state.state in UNDER_WAY:
                    continue
                if (series := waiting.pop(state.series_uid, None)) is not None:
                    _note(series, state, outcome)
                    display.over(series, state)
            display.coming([(waiting[s.series_uid], s) for s in turn.series if s.state == "coming"])


def _note(series: "ListedSeries", state: "PrefetchedSeries", outcome: _Outcome) -> None:
    from tciafs.control.report import printable

    if state.state == "failed":
        if state.error in ENDINGS:
            outcome.ending = printable(state.message)
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
    return printable(f"{collection}/{patient} {uid}")


class _Display(Protocol):
    """Shows how far it is: what is over, and what is coming."""

    def over(self, series: "ListedSeries", state: "PrefetchedSeries") -> None: ...

    def coming(self, series: "list[tuple[ListedSeries, PrefetchedSeries]]") -> None: ...


class _Lines:
    """A line for each series that is over: for files and pipes."""

    def over(self, series: "ListedSeries", state: "PrefetchedSeries") -> None:
        say(f"{_name(series)}: {SAID.get(state.state, state.state)}")

    def coming(self, series: "list[tuple[ListedSeries, PrefetchedSeries]]") -> None:
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
