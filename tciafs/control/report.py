"""What a status looks like to a person: a few aligned lines for each mount, or JSON on one line.

Names and sentences come from archives, and nothing of them reaches a terminal raw. Pure functions.
"""

import json
import time
from collections.abc import Iterator

import msgspec

from tciafs.control.values import (
    ArrivalStatus,
    DownloadStatus,
    EventStatus,
    FailureStatus,
    RefusalStatus,
    Status,
)
from tciafs.printable import printable

__all__ = [
    "json_line",
    "left_text",
    "opens_text",
    "parts_text",
    "printable",
    "report",
    "series_text",
    "size_text",
    "time_text",
]

MOST_LISTED = 10
"""Downloads, failures and events shown to a person; JSON has more."""

UNITS = "BKMGT"
FAILED_HINT = "asked for again later, or at once: tciafs retry"


def json_line(status: Status) -> str:
    """Return a status as JSON on one line, of printable ASCII."""
    return json.dumps(msgspec.to_builtins(status)).replace("\x7f", "\\u007f")


def report(status: Status) -> str:
    """Return a status for a person, in local time."""
    lines = [printable(status.mountpoint), *(f"  {label:10} {text}" for label, text in _rows(status))]
    return "\n".join(lines)


def _rows(status: Status) -> Iterator[tuple[str, str]]:
    cache, catalogue = status.cache, status.catalogue
    yield "archive", printable(status.archive)
    if status.archive_remark:
        yield "", printable(status.archive_remark)
    if status.user is not None:
        refused = f"; {printable(status.login_refused)}, so as a guest" if status.login_refused else ""
        yield "login", f"{printable(status.user)}{refused}"
    yield from (("selection", printable(each)) for each in status.selection)
    yield (
        "daemon",
        f"tciafs {printable(status.version)}, process {status.pid}, since {time_text(status.mounted_at)}",
    )
    yield (
        "cache",
        f"{size_text(cache.used_bytes)} of {size_text(cache.limit_bytes)} in {cache.series:,} series, "
        f"{parts_text(cache.parts_bytes)}{size_text(cache.free_bytes)} free",
    )
    yield (
        "names",
        f"{status.inodes:,} in use; listings: {catalogue.remembered:,} kept, "
        f"{catalogue.requests:,} asked for since the start",
    )
    yield "opened", opens_text(status)
    yield "today", f"{size_text(status.received_today_bytes)} received since midnight UTC"
    paused = ", paused: tciafs resume lets them go on" if status.paused else ""
    yield "downloads", (f"{status.downloads_total:,}" if status.downloads_total else "none") + paused
    yield from (("", _download(each)) for each in status.downloads[:MOST_LISTED])
    yield from _left_out(status.downloads_total, len(status.downloads))
    yield from (("came", _arrival(each)) for each in status.arrivals)
    if status.failures_total:
        yield "failed", f"{status.failures_total:,} series; {FAILED_HINT}"
        yield from (("", _failure(each)) for each in status.failures[-MOST_LISTED:])
        yield from _left_out(status.failures_total, len(status.failures))
    yield from (("refused", _refused(each)) for each in status.refusals[-MOST_LISTED:])
    yield from (("event", _event(each)) for each in catalogue.events[-MOST_LISTED:])


def parts_text(size_bytes: int) -> str:
    """Return what there is of series that are here in part, as one of several things; "" for nothing."""
    return f"{size_text(size_bytes)} in parts of others, " if size_bytes else ""


def opens_text(status: Status) -> str:
    """Return how often an image was opened since the start, and how often it was here then."""
    cached, waiting = status.since_start.opened_cached, status.since_start.opened_waiting
    if not cached + waiting:
        return "no image since the start"
    share = 100 * cached // (cached + waiting)  # rounded down: 100% is all
    times = "once" if cached + waiting == 1 else f"{cached + waiting:,} times"
    return f"images {times} since the start, {share}% of them from the cache"


def _refused(each: RefusalStatus) -> str:
    times = f"{each.count:,} times, last " if each.count > 1 else ""
    who = f"{printable(each.program)}, {times}{time_text(each.at)}, process {each.pid}"
    return f"{who}: {printable(each.reason)}"


def _left_out(total: int, listed: int) -> Iterator[tuple[str, str]]:
    if (more := total - min(listed, MOST_LISTED)) > 0:
        yield "", f"and {more:,} more"


def _download(each: DownloadStatus) -> str:
    images = f"{each.images:,} of {'?' if each.image_count is None else f'{each.image_count:,}'} images"
    size = "?" if each.listed_bytes is None else size_text(each.listed_bytes)
    return f"{each.state} {_series(each)}: {images}, {size_text(each.arrived_bytes)} of {size}"


def _arrival(each: ArrivalStatus) -> str:
    checks = ", ".join(each.checks) + ("" if "md5" in each.checks else "; the archive offers no MD5")
    came = f"{each.images:,} images" + (f" from {', '.join(each.routes)}" if each.routes else "")
    return f"{time_text(each.at)} {_series(each)}: {printable(came)}, agreed: {printable(checks)}"


def _failure(each: FailureStatus) -> str:
    hint = f". {each.hint}" if each.hint else ""
    times = f" ({each.times:,} times)" if each.times > 1 else ""
    return f"{time_text(each.at)} {_series(each)}{times}: {printable(each.message + hint)}"


def _series(each: ArrivalStatus | DownloadStatus | FailureStatus) -> str:
    return printable(f"{each.collection}/{each.patient} {each.series_uid}")


def series_text(each: DownloadStatus) -> str:
    """Return what a person calls a series: its modality, description and the end of its UID.

    All series of a study may be described alike; its folder has that end, too. The UID without these words.
    """
    words = " ".join(filter(None, (each.modality, each.description)))
    return f"{words} {each.series_uid[-5:]}" if words else each.series_uid


def _event(each: EventStatus) -> str:
    return f"{time_text(each.at)} {printable(each.message)}"


def time_text(at: float) -> str:
    """Return a time (Unix seconds) in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def left_text(seconds: float) -> str:
    """Return a time to wait: "0:09", "12:34", "1:02:03"; "more than a day"."""
    whole = int(seconds + 0.5)
    if whole >= 86_400:
        return "more than a day"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def size_text(size_bytes: float) -> str:
    """Return a size as df -h writes it, in powers of 1024."""
    unit = 0
    while size_bytes >= 1024 and unit < len(UNITS) - 1:
        size_bytes, unit = size_bytes / 1024, unit + 1
    return f"{size_bytes:.1f}{UNITS[unit]}" if unit and size_bytes < 10 else f"{size_bytes:.0f}{UNITS[unit]}"
