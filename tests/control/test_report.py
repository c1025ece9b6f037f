"""What a status looks like: aligned lines, short lists, and nothing that a terminal would obey."""

import json
import re
import time
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.control.report import json_line, printable, report
from tciafs.control.values import (
    ArrivalStatus,
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

DOWNLOAD = DownloadStatus("1.2.3", "Lung", "P1", "arriving", 12, 133, 6_400_000, 3_000_000, 73_400_320)
QUEUED = DownloadStatus("1.2.4", "Lung", "P 2", "queued", 0, None, 0, 0, None)
FAILURE = FailureStatus("1.2.5", "Lung", "P3", 60.0, "Unreachable", "no route", "Check the network.")
STATUS = make_status(
    cache=CacheStatus(50 << 30, 1536, 1 << 40, 1234),
    downloads=(DOWNLOAD, QUEUED),
    downloads_total=2,
    failures=(FAILURE,),
    failures_total=1,
    inodes=56_789,
    catalogue=CatalogueStatus(
        17, 45, (EventStatus(3600.0, "the archive lists nothing under patients/NLST"),)
    ),
    received_today_bytes=10_000_000,
)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_status_is_a_few_aligned_lines() -> None:
    assert (
        report(STATUS)
        == """\
/mnt/tcia
  archive    https://example.org/services
  daemon     tciafs 0.1.0, process 17, since 1970-01-01 00:00:00
  cache      1.5K of 50G in 1,234 series, 1.0T free
  names      56,789 in use; listings: 45 kept, 17 asked for since the start
  opened     no image since the start
  today      9.5M received since midnight UTC
  downloads  2
             arriving Lung/P1 1.2.3: 12 of 133 images, 6.1M of 70M
             queued Lung/P 2 1.2.4: 0 of ? images, 0B of ?
  failed     1 series; asked for again later, or at once: tciafs retry
             1970-01-01 00:01:00 Lung/P3 1.2.5: no route. Check the network.
  event      1970-01-01 01:00:00 the archive lists nothing under patients/NLST"""
    )


def test_what_came_is_shown_with_what_agreed_and_whether_the_archive_offers_no_md5() -> None:
    came = ArrivalStatus("1.2.6", "Lung", "P4", 60.0, 1234, ("crc32", "size", "md5"))
    text = report(replace(STATUS, arrivals=(came, replace(came, checks=("crc32",)))))
    line = "  came       1970-01-01 00:01:00 Lung/P4 1.2.6: 1,234 images, agreed: crc32"
    assert f"{line}, size, md5\n{line}; the archive offers no MD5\n" in text


def test_what_came_is_shown_with_the_archives_that_it_came_from() -> None:
    came = ArrivalStatus("1.2.6", "Lung", "P4", 60.0, 9, ("md5",), ("idc", "nbia"))
    assert "Lung/P4 1.2.6: 9 images from idc, nbia, agreed: md5\n" in report(
        replace(STATUS, arrivals=(came,))
    )


def test_a_series_that_failed_again_and_again_says_so() -> None:
    again = replace(STATUS, failures=(replace(FAILURE, times=3),))
    assert "Lung/P3 1.2.5 (3 times): no route" in report(again)


def test_what_of_the_archive_is_not_shown_is_said_below_it() -> None:
    lacking = report(replace(STATUS, archive_remark="NBIA alone\x1b"))
    assert "\n             NBIA alone\\x1b\n" in lacking
    assert [line for line in report(STATUS).splitlines() if line not in lacking.splitlines()] == []


def test_a_login_is_shown_and_that_it_was_refused() -> None:
    assert "\n  login      ada\n" in report(replace(STATUS, user="ada"))
    refused = report(replace(STATUS, user="ada", login_refused="archive.example refused the login"))
    assert "\n  login      ada; archive.example refused the login, so as a guest\n" in refused


@pytest.mark.parametrize(
    ("cached", "waiting", "said"),
    [
        (0, 1, "images once since the start, 0%"),
        (3, 0, "images 3 times since the start, 100%"),
        (1999, 1, "images 2,000 times since the start, 99%"),
        (0, 7, "images 7 times"),
    ],
)
def test_how_many_images_were_here_is_not_rounded_up(cached: int, waiting: int, said: str) -> None:
    counted = replace(STATUS, since_start=SinceStart(cached, waiting))
    assert f"\n  opened     {said}" in report(counted)


def test_a_pause_is_shown() -> None:
    lines = report(replace(STATUS, paused=True)).split("\n")
    assert "  downloads  2, paused: tciafs resume lets them go on" in lines


def test_refusals_are_shown_by_program() -> None:
    often = RefusalStatus("updatedb", 7, 1200, 60.0, "updatedb is not allowed to cause downloads")
    once = replace(often, program="cp\x1b[2J", count=1, reason="the budget is spent")
    lines = report(replace(STATUS, refusals=(often, once))).split("\n")
    assert (
        "  refused    updatedb, 1,200 times, last 1970-01-01 00:01:00, process 7: "
        "updatedb is not allowed to cause downloads"
    ) in lines
    assert "  refused    cp\\x1b[2J, 1970-01-01 00:01:00, process 7: the budget is spent" in lines


def test_where_nothing_happens_little_is_said() -> None:
    idle = replace(
        STATUS,
        downloads=(),
        downloads_total=0,
        failures=(),
        failures_total=0,
        catalogue=CatalogueStatus(0, 0, ()),
    )
    assert report(idle).splitlines()[-1] == "  downloads  none"
    assert "failed" not in report(idle)


def test_of_long_lists_a_person_sees_ten_and_how_many_there_are() -> None:
    busy = replace(
        STATUS,
        downloads=(DOWNLOAD,) * 50,
        downloads_total=1234,
        failures=(FAILURE,) * 20,
        failures_total=21,
        catalogue=CatalogueStatus(0, 0, tuple(EventStatus(0.0, f"event {n}") for n in range(20))),
    )
    text = report(busy)
    assert text.count("arriving") == text.count("no route") == 10
    assert "and 1,224 more" in text
    assert "and 11 more" in text
    assert re.findall(r"event (\d+)", text) == [str(number) for number in range(10, 20)]


def test_json_has_everything_on_one_line() -> None:
    line = json_line(STATUS)
    assert "\n" not in line
    assert msgspec.json.decode(line, type=Status) == STATUS
    assert json.loads(line)["downloads"][0]["arrived_bytes"] == 6_400_000


def test_words_are_printed_as_they_are_and_what_a_terminal_obeys_is_not() -> None:
    assert printable("Größe 東京 'x' \\ \"") == "Größe 東京 'x' \\ \""
    assert printable("a\x1b[2J\r\n\x07\x9b\u202e\u2028\udcff") == r"a\x1b[2J\r\n\x07\x9b\u202e\u2028\udcff"


@given(st.text(st.characters()), st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_whatever_an_archive_says_reaches_a_terminal_harmless(text: str, odd: str) -> None:
    hostile = text + odd
    status = replace(
        STATUS,
        version=hostile,
        mountpoint=hostile,
        archive=hostile,
        downloads=(replace(DOWNLOAD, series_uid=hostile, collection=hostile, patient=hostile),),
        arrivals=(ArrivalStatus(hostile, hostile, hostile, 0.0, 1, (hostile,)),),
        failures=(replace(FAILURE, message=hostile, patient=hostile, series_uid=hostile),),
        catalogue=CatalogueStatus(0, 0, (EventStatus(0.0, hostile),)),
    )
    lines = report(status).split("\n")
    assert len(lines) == len(report(STATUS).split("\n")) + 1
    assert all(line.isprintable() for line in lines)
    assert json_line(status).isprintable()
    assert json_line(status).isascii()
    told, read = json.loads(json_line(status)), json.loads(json.dumps(hostile))
    assert list(told) == list(Status.__struct_fields__)
    assert (told["version"], told["arrivals"][0]["checks"]) == (read, [read])
    assert (told["failures"][0]["message"], told["catalogue"]["events"][0]["message"]) == (read, read)
