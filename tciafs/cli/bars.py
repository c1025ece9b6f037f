"""The progress of `tciafs prefetch` on a terminal: one bar for all, one for each series under way.

rich draws it, without colours where NO_COLOR is set. Names come from the archive and are made fit for that.
"""

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from tciafs.control.report import left_text, printable, size_text

if TYPE_CHECKING:
    from tciafs.control.series_values import ListedSeries, PrefetchedSeries

__all__ = ["Bars"]

LONGEST_NAME = 40


class _Size(ProgressColumn):
    """How much is in, of how much."""

    def render(self, task: Task) -> Text:
        total = "?" if task.total is None else size_text(task.total)
        return Text(f"{size_text(task.completed)}/{total}", justify="right")


class _Speed(ProgressColumn):
    """How fast that is, as far as that is known, and not while all stands still."""

    def render(self, task: Task) -> Text:
        speed = None if task.fields["paused"] else task.speed
        return Text("" if speed is None else f"{size_text(speed)}/s", justify="right")


class _Left(ProgressColumn):
    """How long it will still take; likewise."""

    def render(self, task: Task) -> Text:
        left_s = None if task.fields["paused"] else task.time_remaining
        return Text("" if left_s is None else f"{left_text(left_s)} left", justify="right")


class Bars:
    """The bars, shown during a block and gone behind it."""

    def __init__(self, console: Console, series: int, listed_bytes: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Size(),
            _Speed(),
            _Left(),
            console=console,
            transient=True,
        )
        self._series = series
        self._over = 0
        self._over_bytes = 0
        self._paused = False
        self._all = self._progress.add_task("", total=listed_bytes or None, paused=False)
        self._bars: dict[str, TaskID] = {}
        self._describe()

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __rich__(self) -> RenderableType:
        return self._progress.get_renderable()

    def over(self, series: "ListedSeries", state: "PrefetchedSeries") -> None:
        """Take a series off the list."""
        self._over += 1
        self._over_bytes += series.listed_bytes or 0
        if (bar := self._bars.pop(state.series_uid, None)) is not None:
            self._progress.remove_task(bar)
        self._describe()

    def coming(self, series: "list[tuple[ListedSeries, PrefetchedSeries]]", *, paused: bool) -> None:
        """Show how far those under way are, and whether they stand still."""
        self._paused = paused
        for listed, state in series:
            bar = self._bars.get(state.series_uid)
            if bar is None:
                bar = self._progress.add_task(_name(listed), total=listed.listed_bytes, paused=paused)
                self._bars[state.series_uid] = bar
            self._progress.update(bar, completed=state.arrived_bytes, paused=paused)
        self._describe(sum(state.arrived_bytes for _, state in series))

    def _describe(self, coming_bytes: int = 0) -> None:
        """Show how far all of it is, of which so much is in of series under way."""
        paused = ", paused: tciafs resume" if self._paused else ""
        self._progress.update(
            self._all,
            description=f"{self._over:,} of {self._series:,} series{paused}",
            completed=self._over_bytes + coming_bytes,
            paused=self._paused,
        )


def _name(series: "ListedSeries") -> str:
    collection, patient, *_ = series.path
    name = printable(f"{collection}/{patient}")
    shown = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."
    return escape(f"{shown} {printable(series.path[-1])[-5:]}")
