"""Speeds come from what is counted over the last seconds, and none is known before there are two counts."""

from msgspec.structs import replace

from tciafs.control.speeds import Speeds
from tciafs.control.values import DownloadStatus, SinceStart, Status
from tests.statuses import make_status

DOWNLOAD = DownloadStatus("1.2.3", "Lung", "P1", "arriving", 0, 10, 0, 0, 1000)
STATUS = make_status(
    downloads=(DOWNLOAD,),
    downloads_total=1,
)


def status(received_bytes: int, arrived_bytes: int, *, total_bytes: int = 0, pid: int = 17) -> Status:
    download = replace(DOWNLOAD, received_bytes=received_bytes, arrived_bytes=arrived_bytes)
    since = SinceStart(received_bytes=total_bytes)
    return replace(STATUS, downloads=(download,), since_start=since, pid=pid)


def noted(*seen: tuple[float, Status]) -> tuple[Speeds, DownloadStatus]:
    speeds = Speeds()
    for at, each in seen:
        speeds.note(each, at)
    return speeds, seen[-1][1].downloads[0]


def test_after_one_look_no_speed_is_known() -> None:
    speeds, download = noted((0.0, status(500, 500)))
    assert (speeds.total(), speeds.of(download), speeds.left_s(download)) == (None, None, None)
    assert Speeds().total() is None
    assert Speeds().of(DOWNLOAD) is None


def test_a_speed_is_that_of_the_line_and_the_time_left_that_of_images() -> None:
    speeds, download = noted((0.0, status(0, 0)), (2.0, status(100, 400, total_bytes=150)))
    assert (speeds.total(), speeds.of(download), speeds.left_s(download)) == (75.0, 50.0, 3.0)


def test_what_was_long_ago_does_not_count() -> None:
    fast, slow = (0.0, status(0, 0)), [(float(at), status(10_000 + at, 0)) for at in range(1, 21)]
    speeds, download = noted(fast, *slow)
    assert speeds.of(download) == 1.0


def test_a_try_that_begins_anew_is_measured_from_its_beginning() -> None:
    seen = [(0.0, status(800, 500)), (1.0, status(900, 600)), (2.0, status(0, 0)), (4.0, status(60, 20))]
    speeds, download = noted(*seen)
    assert speeds.of(download) == 30.0
    assert speeds.left_s(download) == 98.0


def test_what_another_daemon_counted_is_forgotten() -> None:
    speeds, download = noted((0.0, status(0, 0)), (1.0, status(100, 100, total_bytes=100, pid=18)))
    assert (speeds.total(), speeds.of(download)) == (None, None)


def test_where_nothing_comes_no_end_is_foretold() -> None:
    speeds, download = noted((0.0, status(5, 5)), (3.0, status(5, 5)))
    assert (speeds.of(download), speeds.left_s(download)) == (0.0, None)
    unknown = replace(download, listed_bytes=None)
    assert noted((0.0, status(0, 0)), (1.0, status(9, 9)))[0].left_s(unknown) is None


def test_more_than_was_listed_leaves_nothing_to_wait_for() -> None:
    speeds, download = noted((0.0, status(0, 0)), (1.0, status(2000, 2000)))
    assert speeds.left_s(download) == 0.0
