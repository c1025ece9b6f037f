"""What `tciafs status --watch` shows of a mount: a status as lines that fit a terminal, however narrow.

Names and sentences come from archives and are made fit for a terminal. Pure functions; rich draws.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tciafs.control.report import (
    left_text,
    opens_text,
    parts_text,
    printable,
    series_text,
    size_text,
    time_text,
)
from tciafs.control.speeds import Speeds

if TYPE_CHECKING:
    from tciafs.control.values import DownloadStatus, FailureStatus, Status

__all__ = ["view"]

MOST_ARRIVING = 8
MOST_QUEUED = 3
MOST_FAILURES = 5
MOST_OTHERS = 3

LABEL_COLUMNS = 10
INDENT = 2
LONGEST_BAR, SHORTEST_BAR = 30, 8


def view(status: "Status", speeds: Speeds, width: int) -> RenderableType:
    """Return what is shown of a mount in so many columns: what changes most comes first."""
    if status.paused:
        speeds = Speeds()  # what came before says nothing of how fast it comes now
    return Group(
        Text(printable(status.mountpoint), style="bold"),
        _summary(status, speeds),
        *_downloads(status, speeds, width - INDENT),
        *_failures(status),
        *_others(status),
    )


def _grid() -> Table:
    grid = Table.grid(padding=(0, 1), pad_edge=False)
    grid.add_column(width=LABEL_COLUMNS, no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    return grid


def _summary(status: "Status", speeds: Speeds) -> RenderableType:
    grid = _grid()
    for label, value in _summary_rows(status, speeds):
        grid.add_row(label, value)
    return _indented(grid)


def _summary_rows(status: "Status", speeds: Speeds) -> Iterator[tuple[str, RenderableType]]:
    since, cache = status.since_start, status.cache
    user = "a guest" if status.user is None else printable(status.user)
    yield "archive", Text(f"{printable(status.archive)}, as {user}")
    if status.archive_remark:
        yield "", Text(printable(status.archive_remark))
    if status.login_refused:
        yield "", Text(printable(status.login_refused), style="red")
    full = f"{size_text(cache.used_bytes)} of {size_text(cache.limit_bytes)}, {cache.series:,} series"
    yield "cache", Text(f"{full}, {parts_text(cache.parts_bytes)}{size_text(cache.free_bytes)} free")
    yield "opened", Text(opens_text(status))
    yield (
        "requests",
        Text(
            f"{status.catalogue.requests:,} for listings; series: {since.series_fetched:,} fetched, "
            f"{since.series_failed:,} failed"
        ),
    )
    speed = speeds.total()
    now = "" if speed is None else f"{size_text(speed)}/s now, "
    yield "received", Text(f"{now}{size_text(status.received_today_bytes)} since midnight UTC")


def _downloads(status: "Status", speeds: Speeds, width: int) -> Iterator[RenderableType]:
    queued = [each for each in status.downloads if each.state == "queued"]
    arriving = [each for each in status.downloads if each.state != "queued"]
    waiting = status.downloads_total - len(arriving)
    yield Text("")
    heading = Text(f"downloads: {len(arriving):,} coming, {waiting:,} waiting", style="bold")
    if status.paused:
        heading.append("  paused: tciafs resume lets them go on", style="yellow")
    yield heading
    numbers = [_numbers(each, speeds) for each in arriving[:MOST_ARRIVING]]
    bar_columns = min(LONGEST_BAR, width - 2 * INDENT - max(map(len, numbers), default=0) - 1)
    for each, said in zip(arriving, numbers, strict=False):
        yield _indented(_name(each))
        yield _indented(_progress(each, said, bar_columns), 2 * INDENT)
    for each in queued[:MOST_QUEUED]:
        yield _indented(_name(each, "dim"))
    shown = min(len(arriving), MOST_ARRIVING) + min(len(queued), MOST_QUEUED)
    if (more := status.downloads_total - shown) > 0:
        yield _indented(Text(f"and {more:,} more", style="dim"))


def _name(each: "DownloadStatus", style: str = "") -> Text:
    """Return whose series it is and what it is called, on one line."""
    text = Text(printable(f"{each.collection}/{each.patient}"), style=style or "cyan", no_wrap=True)
    text.append(f"  {printable(series_text(each))}", style="dim")
    text.overflow = "ellipsis"
    return text


def _progress(each: "DownloadStatus", numbers: str, bar_columns: int) -> RenderableType:
    if bar_columns < SHORTEST_BAR:
        return Text(numbers)
    listed = each.listed_bytes or 0
    # What is larger than listed is all but complete; a bar without an end would only flicker.
    bar = ProgressBar(total=max(listed, 1), completed=min(each.arrived_bytes, listed), width=bar_columns)
    line = Table.grid(padding=(0, 1), pad_edge=False)
    line.add_row(bar, Text(numbers))
    return line


def _numbers(each: "DownloadStatus", speeds: Speeds) -> str:
    images = "?" if each.image_count is None else f"{each.image_count:,}"
    size = "?" if each.listed_bytes is None else size_text(each.listed_bytes)
    text = f"{each.images:,}/{images} images {size_text(each.arrived_bytes)}/{size}"
    if each.state == "verified":
        return f"{text} verified"
    speed, left_s = speeds.of(each), speeds.left_s(each)
    text += "" if speed is None else f" {size_text(speed)}/s"
    return text if left_s is None else f"{text} {left_text(left_s)} left"


def _failures(status: "Status") -> Iterator[RenderableType]:
    if not status.failures_total:
        return
    yield Text("")
    yield Text(f"failed: {status.failures_total:,} series", style="bold")
    for each in reversed(status.failures[-MOST_FAILURES:]):
        yield _indented(_failure(each))
        if each.hint:
            yield _indented(Text(printable(each.hint), style="green"), 2 * INDENT)


def _failure(each: "FailureStatus") -> Text:
    times = f" ({each.times:,} times)" if each.times > 1 else ""
    text = Text(f"{time_text(each.at)} ", style="dim")
    text.append(printable(f"{each.collection}/{each.patient}"), style="cyan")
    return text.append(f"{times}: {printable(each.message)}", style="red")


def _others(status: "Status") -> Iterator[RenderableType]:
    if status.refusals:
        yield Text("")
        yield Text(f"refused: {status.since_start.refused:,} times", style="bold")
        for each in reversed(status.refusals[-MOST_OTHERS:]):
            who = f"{printable(each.program)} (process {each.pid}) {each.count:,}x"
            yield _indented(Text(f"{who}: {printable(each.reason)}"))
    if status.catalogue.events:
        yield Text("")
        yield Text("listings", style="bold")
        for event in reversed(status.catalogue.events[-MOST_OTHERS:]):
            yield _indented(Text(f"{time_text(event.at)} {printable(event.message)}"))


def _indented(inner: RenderableType, columns: int = INDENT) -> Padding:
    return Padding(inner, (0, 0, 0, columns), expand=False)
