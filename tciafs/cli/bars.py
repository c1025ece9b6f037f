"""The progress of `tciafs prefetch` on a terminal: one bar for all, one for each series under way.

rich draws it, without colours where NO_COLOR is set. Names come from the archive and are made fit for that.
"""

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tciafs.control.report import printable

if TYPE_CHECKING:
    from tciafs.control.series_values import ListedSeries, PrefetchedSeries

__all__ = ["Bars"]

LONGEST_NAME = 40


class Bars:
    """The bars, shown during a block and gone behind it."""

    def __init__(self, console: Console, series: int, listed_bytes: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._series = series
        self._over = 0
        self._over_bytes = 0
        self._all = self._progress.add_task("", total=listed_bytes or None)
        self._bars: dict[str, TaskID] = {}
        self._describe()

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def over(self, series: "ListedSeries", state: "PrefetchedSeries") -> None:
        """Take a series off the list."""
        self._over += 1
        self._over_bytes += series.listed_bytes or 0
        if (bar := self._bars.pop(state.series_uid, None)) is not None:
            self._progress.remove_task(bar)
        self._describe()

    def coming(self, series: "list[tuple[ListedSeries, PrefetchedSeries]]") -> None:
        """Show how far those under way are."""
        for listed, state in series:
            bar = self._bars.get(state.series_uid)
            if bar is None:
                bar = self._progress.add_task(_name(listed), total=listed.listed_bytes)
                self._bars[state.series_uid] = bar
            self._progress.update(bar, completed=state.arrived_bytes)
        arrived_bytes = self._over_bytes + sum(state.arrived_bytes for _, state in series)
        self._progress.update(self._all, completed=arrived_bytes)

    def _describe(self) -> None:
        self._progress.update(
            self._all, description=f"{self._over:,} of {self._series:,} series", completed=self._over_bytes
        )


def _name(series: "ListedSeries") -> str:
    collection, patient, *_ = series.path
    name = printable(f"{collection}/{patient}")
    shown = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."
    return escape(f"{shown} {printable(series.path[-1])[-5:]}")
