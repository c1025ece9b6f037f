"""What `tciafs status --watch` shows: all that matters, in any width, nothing that a terminal would obey."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.cells import cell_len
from rich.console import Console

from tciafs.cli.watch_view import view
from tciafs.control.report import left_text
from tciafs.control.speeds import Speeds
from tciafs.control.values import (
    CacheStatus,
    CatalogueStatus,
    DownloadStatus,
    EventStatus,
    FailureStatus,
    RefusalStatus,
    SinceStart,
    Status,
)
from tests.statuses import make_status

DOWNLOAD = DownloadStatus(
    "1.2.3", "Lung", "P1", "arriving", 12, 133, 6_400_000, 3_000_000, 73_400_320, "Thorax 1mm", "CT"
)
STATUS = make_status(
    cache=CacheStatus(50 << 30, 1536, 1 << 40, 1234),
    downloads=(DOWNLOAD, replace(DOWNLOAD, series_uid="1.2.4", state="queued", patient="P2")),
    downloads_total=2,
    failures=(FailureStatus("1.2.5", "Lung", "P3", 60.0, "Unreachable", "no route", "Check it.", times=3),),
    failures_total=1,
    inodes=56_789,
    catalogue=CatalogueStatus(17, 45, (EventStatus(3600.0, "nothing under NLST"),)),
    refusals=(RefusalStatus("updatedb", 99, 4, 60.0, "not allowed"),),
    received_today_bytes=10_000_000,
    since_start=SinceStart(9, 1, 5_000_000, 6, 7, 8),
)


def lines(status: Status, width: int, speeds: Speeds | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(view(status, speeds or Speeds(), width))
    return captured.get().rstrip("\n").split("\n")


def test_everything_that_happens_is_shown() -> None:
    speeds = Speeds()
    speeds.note(replace(STATUS, downloads=(replace(DOWNLOAD, arrived_bytes=0, received_bytes=0),)), 0.0)
    speeds.note(STATUS, 2.0)
    text = "\n".join(lines(STATUS, 100, speeds))
    for said in (
        "opened     images 10 times since the start, 90% of them from the cache",
        "requests   17 for listings; series: 6 fetched, 7 failed",
        "received   0B/s now, 9.5M since midnight UTC",
        "downloads: 1 coming, 1 waiting",
        "Lung/P1  CT Thorax 1mm 1.2.3",
        "12/133 images 6.1M/70M 1.4M/s 0:21 left",
        "Lung/P2  CT Thorax 1mm",
        "Lung/P3 (3 times): no route\n    Check it.",
        "refused: 8 times\n  updatedb (process 99) 4x: not allowed",
        "nothing under NLST",
    ):
        assert said in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = replace(DOWNLOAD, description="très long " * 50, patient="P" * 300)
    shown = lines(replace(STATUS, downloads=(long,), archive="https://" + "x" * 300), width)
    assert max(map(cell_len, shown)) <= width
    assert "12/133" in "\n".join(shown)


def test_of_many_downloads_some_are_shown_and_the_others_counted() -> None:
    arriving = tuple(replace(DOWNLOAD, series_uid=f"1.{number}") for number in range(12))
    queued = tuple(replace(DOWNLOAD, series_uid=f"2.{number}", state="queued") for number in range(38))
    text = "\n".join(lines(replace(STATUS, downloads=arriving + queued, downloads_total=1000), 80))
    assert "downloads: 12 coming, 988 waiting" in text
    assert (text.count("12/133"), text.count("Lung/P1"), "  and 989 more" in text) == (8, 11, True)


def test_a_mount_where_nothing_happens_is_short() -> None:
    calm = replace(
        STATUS,
        downloads=(),
        downloads_total=0,
        failures=(),
        failures_total=0,
        refusals=(),
        catalogue=CatalogueStatus(0, 0, ()),
    )
    assert lines(calm, 80)[-1] == "downloads: 0 coming, 0 waiting"


def test_bars_of_series_with_longer_numbers_end_where_the_others_do() -> None:
    large = replace(DOWNLOAD, series_uid="1.9", images=1234, image_count=91_980)
    shown = lines(replace(STATUS, downloads=(DOWNLOAD, large)), 60)
    first, second = (line for line in shown if "images" in line and "/" in line)
    assert first.index("12/133") == second.index("1,234/91,980")


def test_what_stands_still_has_no_speed() -> None:
    speeds = Speeds()
    speeds.note(replace(STATUS, downloads=(replace(DOWNLOAD, arrived_bytes=0, received_bytes=0),)), 0.0)
    speeds.note(STATUS, 2.0)
    assert "1.4M/s 0:21 left" in "\n".join(lines(STATUS, 100, speeds))
    paused = "\n".join(lines(replace(STATUS, paused=True), 100, speeds))
    assert not re.search(r"\d[KMG]?/s|:\d\d left", paused)


def test_what_of_the_archive_is_not_shown_is_said_below_it() -> None:
    shown = lines(replace(STATUS, archive_remark="NBIA alone so far"), 80)
    (place,) = (place for place, line in enumerate(shown) if line.rstrip().endswith("as a guest"))
    assert shown[place + 1].strip() == "NBIA alone so far"


def test_a_pause_and_a_refused_login_are_shown() -> None:
    shown = lines(replace(STATUS, paused=True, user="ada", login_refused="it refused"), 80)
    assert any("paused: tciafs resume lets them go on" in line for line in shown)
    (place,) = (place for place, line in enumerate(shown) if line.rstrip().endswith("as ada"))
    assert shown[place + 1].strip() == "it refused"


@given(st.text(st.characters()), st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_whatever_an_archive_says_reaches_a_terminal_harmless(text: str, odd: str) -> None:
    hostile = f"{text}{odd}[red]\x1b[2J"
    download = replace(DOWNLOAD, collection=hostile, patient=hostile, description=hostile, modality=hostile)
    status = replace(
        STATUS,
        mountpoint=hostile,
        archive=hostile,
        archive_remark=hostile,
        user=hostile,
        login_refused=hostile,
        downloads=(download,),
        failures=(replace(STATUS.failures[0], message=hostile, patient=hostile, hint=hostile),),
        refusals=(RefusalStatus(hostile, 1, 1, 0.0, hostile),),
        catalogue=CatalogueStatus(0, 0, (EventStatus(0.0, hostile),)),
    )
    shown = lines(status, 80)
    assert all(line.isprintable() for line in shown)
    assert "[red]" in "".join(shown)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0:00"), (9.4, "0:09"), (754.0, "12:34"), (3723.0, "1:02:03"), (1e9, "more than a day")],
)
def test_a_time_to_wait_is_written_as_a_clock_does(seconds: float, text: str) -> None:
    assert left_text(seconds) == text
